//! The CRD.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceSubresourceScale, JSON,
    JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::rules;
use crate::{ConditionReason, ConditionType, TaskQueue};

/// The transition time of the default status.
const NEVER: &str = "1970-01-01T00:00:00Z";

/// The definition of `TaskQueue`s, as `charts/rowlock-crds` installs it. `TaskQueue::crd()` has the same
/// fields without the rules.
///
/// # Panics
/// Never: each rule names a field of the types, which a test checks.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut crd = TaskQueue::crd();
    // Uninstalling the chart keeps the CRD, and with it every TaskQueue.
    crd.metadata.annotations = Some([("helm.sh/resource-policy".to_owned(), "keep".to_owned())].into());
    for version in &mut crd.spec.versions {
        version.additional_printer_columns = Some(columns());
        version.subresources.get_or_insert_default().scale = Some(scale());
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let schema = schema.expect("a derived CRD has a schema");
        simplify(schema);
        rules::constrain(schema);
        let status = schema.properties.as_mut().and_then(|properties| properties.get_mut("status"));
        status.expect("a TaskQueue has a status").default = Some(JSON(not_observed()));
    }
    crd
}

/// The definition as YAML, as it is in the chart.
///
/// # Panics
/// Never: YAML can write all of its values.
#[must_use]
pub fn crd_yaml() -> String {
    let mut value = serde_json::to_value(crd()).expect("a definition is JSON");
    whole_numbers(&mut value);
    let text = serde_yaml::to_string(&value).expect("JSON is YAML");
    // YAML 1.1 reads an unquoted timestamp as a date.
    text.replace(&format!(": {NEVER}\n"), &format!(": '{NEVER}'\n"))
}

/// Writes `10000` where the schema type has `10000.0`.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Number(number) => {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0);
            if let Some(whole) = whole.and_then(|whole| format!("{whole}").parse::<i64>().ok()) {
                *value = whole.into();
            }
        }
        _ => {}
    }
}

/// The status of a `TaskQueue` that no operator has observed. With it, `kubectl wait` and kstatus wait for an
/// operator.
fn not_observed() -> Value {
    json!({ "conditions": [{
        "type": ConditionType::Ready.as_str(),
        "status": "Unknown",
        "reason": ConditionReason::NotObserved.as_str(),
        "message": "waiting for the operator",
        "lastTransitionTime": NEVER
    }] })
}

/// The scale subresource counts pods, as autoscalers do. It does not use `total`, which counts slots.
fn scale() -> CustomResourceSubresourceScale {
    CustomResourceSubresourceScale {
        spec_replicas_path: ".spec.workers.replicas".to_owned(),
        status_replicas_path: ".status.pods".to_owned(),
        label_selector_path: Some(".status.selector".to_owned()),
    }
}

fn columns() -> Vec<CustomResourceColumnDefinition> {
    let column = |name: &str, type_: &str, json_path: &str, description: &str, priority: Option<i32>| {
        CustomResourceColumnDefinition {
            name: name.to_owned(),
            type_: type_.to_owned(),
            json_path: json_path.to_owned(),
            description: Some(description.to_owned()),
            priority,
            ..CustomResourceColumnDefinition::default()
        }
    };
    let ready =
        |field: &str| format!(".status.conditions[?(@.type==\"{}\")].{field}", ConditionType::Ready.as_str());
    let slots = "Slots that may run tasks now";
    let oldest = "How long the oldest available task has waited";
    vec![
        column("Ready", "string", &ready("status"), "Whether tasks are processed", None),
        column("Slots", "integer", ".status.workers.allocated", slots, None),
        column("Backlog", "integer", ".status.backlog.available", "Tasks that could start now", None),
        column("Oldest", "date", ".status.backlog.oldestAvailable", oldest, None),
        column("Dead", "integer", ".status.backlog.dead", "Dead tasks", None),
        column("Reason", "string", &ready("reason"), "Why it is ready or not", Some(1)),
        column("Pods", "integer", ".status.pods", "Current pods", Some(1)),
        column("Scaling", "string", ".status.scaling.mode", "What sets the number of pods", Some(1)),
        column("Age", "date", ".metadata.creationTimestamp", "Time since it was created", None),
    ]
}

/// Removes the parts of a derived schema that do not belong in the CRD. Defaults: a field that is left out
/// must stay detectable, and the descriptions name the defaults. `nullable`: the API server drops null
/// values. Formats that Kubernetes does not know. Markdown in descriptions.
fn simplify(schema: &mut JSONSchemaProps) {
    schema.default = None;
    schema.nullable = None;
    schema.format = match schema.format.take().as_deref() {
        Some("uint8" | "uint16" | "uint32") => Some("int32".to_owned()),
        Some("uint64") => Some("int64".to_owned()),
        other => other.map(str::to_owned),
    };
    if let Some(description) = &mut schema.description {
        *description = description.replace('\n', " ").replace('`', "");
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(simplify);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        simplify(items);
    }
}
