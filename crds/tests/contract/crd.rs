//! The CRD in the chart, and its schema.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rowlock_crds::{
    ConditionReason, ConditionType, EventReason, TaskQueue, TaskQueueSpec, TaskQueueStatus, annotations, api,
    crd, crd_yaml,
};
use serde_json::{Value, json};

/// If this variable is set, the test writes the chart's file.
const UPDATE: &str = "ROWLOCK_UPDATE";

const HEAD: &str = "# Written by a test from the types in crds/: \
                    ROWLOCK_UPDATE=1 cargo test -p rowlock-crds --features kube\n";

/// `cargo test` starts tests in their package's folder.
fn file(path: &str) -> PathBuf {
    PathBuf::from("..").join(path)
}

fn schema() -> Value {
    let crd = serde_json::to_value(crd()).expect("a definition is JSON");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Visits every schema below this one, with its path.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], visit);
    }
}

#[test]
fn the_chart_has_the_crd_of_the_types() {
    let path = file("charts/rowlock-crds/templates/taskqueues.yaml");
    let made = format!("{HEAD}{}", crd_yaml());
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == made, "{} differs from the types; its first line says how to update it", path.display());
    // kubectl's client-side apply keeps a copy in an annotation. All annotations together may have 256 KiB.
    assert!(made.len() < 64 * 1024, "{} bytes", made.len());
    // Helm would treat it as a template.
    assert!(!made.contains("{{"));
}

#[test]
fn no_field_of_the_spec_has_a_default() {
    walk("spec", &schema()["properties"]["spec"], &mut |path, schema| {
        assert!(schema["default"].is_null(), "{path} has a default");
    });
}

#[test]
fn every_field_has_a_short_description() {
    walk("", &schema(), &mut |path, schema| {
        let described = schema["description"].as_str().unwrap_or_default();
        // Kubernetes defines the head. The description of a list covers its items.
        if matches!(path, ".metadata" | ".kind" | ".apiVersion") || path.ends_with("[]") {
            return;
        }
        assert!((10..=160).contains(&described.len()), "{path}: {described:?}");
    });
}

#[test]
fn all_formats_are_known_to_kubernetes() {
    let mut formats = BTreeSet::new();
    walk("", &schema(), &mut |_, schema| {
        formats.extend(schema["format"].as_str().map(str::to_owned));
    });
    assert_eq!(formats, ["date-time", "int32", "int64"].map(str::to_owned).into());
}

#[test]
fn the_crd_uses_the_names_of_manifests() {
    let crd = serde_json::to_value(crd()).unwrap();
    assert_eq!(crd["spec"]["group"], api::GROUP);
    assert_eq!(crd["spec"]["names"]["kind"], api::KIND);
    assert_eq!(crd["spec"]["versions"][0]["name"], api::VERSION);
    assert!(annotations::DEV_COMMAND.starts_with(&format!("{}/", api::GROUP)));
    let scale = &crd["spec"]["versions"][0]["subresources"]["scale"];
    assert_eq!(scale["specReplicasPath"], ".spec.workers.replicas");
}

#[test]
fn a_new_task_queue_has_an_unknown_ready_condition() {
    let status = schema()["properties"]["status"]["default"].clone();
    let queue = json!({
        "apiVersion": api::API_VERSION, "kind": api::KIND, "metadata": { "name": "emails" },
        "spec": { "workers": { "total": 3 } }, "status": status
    });
    let queue: TaskQueue = serde_json::from_value(queue).unwrap();
    assert_eq!(queue.spec, TaskQueueSpec::with_workers(3));
    let conditions = queue.status.unwrap().conditions;
    let ready = (conditions[0].type_.as_str(), conditions[0].status.as_str());
    assert_eq!((conditions.len(), ready), (1, ("Ready", "Unknown")));
    assert_eq!(serde_json::to_value(TaskQueueStatus::default()).unwrap(), json!({}));
}

#[test]
fn a_status_survives_a_round_trip() {
    let status = json!({
        "observedGeneration": 2, "pods": 4, "selector": "a=b,c=d", "schema": 8, "adopted": "c/shop/letters",
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Succeeded", "message": "4 pods",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 2
        }],
        "workers": { "desired": 40, "allocated": 39, "busy": 38 },
        "backlog": {
            "available": 17, "scheduled": 1, "running": 38, "retryable": 2, "dead": 5,
            "oldestAvailable": "2026-01-01T00:00:00Z"
        },
        "scaling": { "mode": "Auto", "demand": 60, "reason": "Total", "limitedBy": "Total" },
        "database": { "identity": "shop@7", "before": "shop@6", "changed": "2026-01-01T00:00:00Z" }
    });
    let read: TaskQueueStatus = serde_json::from_value(status.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), status);
    // The definition has every field of it, so the API server drops none.
    let known = schema()["properties"]["status"]["properties"].clone();
    for (field, value) in status.as_object().unwrap() {
        for inner in value.as_object().into_iter().flat_map(|inner| inner.keys()) {
            assert!(known[field]["properties"][inner].is_object(), "{field}.{inner}");
        }
        assert!(known[field].is_object(), "{field}");
    }
}

/// The values of a field, as docs/limits.md writes them. `None`: only its type limits them.
fn values(schema: &Value) -> Option<String> {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    let hints: Vec<&str> = rules.filter_map(|rule| rule["message"].as_str()).collect();
    let after = |begin| hints.iter().find_map(|hint| hint.strip_prefix(begin)?.split(';').next());
    if let Some(names) = schema["enum"].as_array() {
        let names = names.iter().filter_map(Value::as_str).map(|name| format!("`{name}`"));
        return Some(names.collect::<Vec<_>>().join(", "));
    }
    if let Some(longest) = after("is longer than ").or(after("make it at most ")) {
        let shortest = if after("is zero").is_some() { "1ms" } else { "0s" };
        return Some(format!("{shortest} to {longest}"));
    }
    if let Some(values) = after("write ").filter(|_| schema["x-kubernetes-int-or-string"] == true) {
        return Some(values.to_owned());
    }
    if let (Some(least), Some(most)) = (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
        return Some(format!("{least:.0} to {most:.0}"));
    }
    if let Some(most) = schema["maxItems"].as_u64() {
        let least = schema["minItems"].as_u64();
        return Some(
            least.map_or(format!("at most {most} items"), |least| format!("{least} to {most} items")),
        );
    }
    schema["maxLength"].as_u64().map(|most| format!("1 to {most} characters"))
}

#[test]
fn the_values_of_every_field_are_documented() {
    let mut rows = Vec::new();
    walk("", &schema()["properties"]["spec"], &mut |path, schema| {
        let values =
            values(schema).map(|values| format!("| `{}` | {values} |", path.trim_start_matches('.')));
        rows.extend(values);
    });
    let table = format!("| field | values |\n|---|---|\n{}\n\n", rows.join("\n"));
    let page = std::fs::read_to_string(file("docs/limits.md")).unwrap();
    assert!(page.contains(&table), "the table must be\n{table}");
}

#[test]
fn conditions_and_reasons_are_documented() {
    let described = schema()["properties"]["status"]["properties"]["conditions"]["description"].to_string();
    let page = std::fs::read_to_string(file("docs/kubernetes.md")).unwrap();
    for name in ConditionType::ALL.map(ConditionType::as_str) {
        assert!(described.contains(name), "{name}");
        assert!(page.contains(&format!("`{name}`")), "{name} is not in docs/kubernetes.md");
    }
    let events = EventReason::ALL.map(EventReason::as_str);
    for name in ConditionReason::ALL.map(ConditionReason::as_str).into_iter().chain(events) {
        assert!(page.contains(&format!("`{name}`")), "{name} is not in docs/kubernetes.md");
    }
}
