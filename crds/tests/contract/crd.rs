use std::collections::BTreeSet;
use std::path::PathBuf;

use rowlock_crds::{
    ConditionReason, ConditionType, EventReason, TaskQueue, TaskQueueSpec, TaskQueueStatus, annotations, api,
    crd, crd_yaml,
};
use serde_json::{Value, json};

/// Set, it has the chart written anew.
const UPDATE: &str = "ROWLOCK_UPDATE";

const HEAD: &str = "# Written by a test from the types in crds/: ROWLOCK_UPDATE=1 cargo test -p rowlock-crds --features kube\n";

/// `cargo test` starts tests in their package's folder.
fn file(path: &str) -> PathBuf {
    PathBuf::from("..").join(path)
}

fn schema() -> Value {
    let crd = serde_json::to_value(crd()).expect("a definition is JSON");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Every schema below, with its path.
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
    assert!(
        found == made,
        "{} is not that of the types; its first line says how to write it",
        path.display()
    );
    // kubectl's client-side apply keeps a copy of it in an annotation, of at most 256 KiB together with
    // others.
    assert!(made.len() < 64 * 1024, "{} bytes", made.len());
    // Helm would take it for a template.
    assert!(!made.contains("{{"));
}

#[test]
fn what_was_left_out_stays_left_out() {
    walk("spec", &schema()["properties"]["spec"], &mut |path, schema| {
        assert!(schema["default"].is_null(), "{path} has a default");
    });
}

#[test]
fn every_field_is_explained_in_a_line_or_two() {
    walk("", &schema(), &mut |path, schema| {
        let described = schema["description"].as_str().unwrap_or_default();
        // The head is Kubernetes' own; of a list's items the list tells.
        if matches!(path, ".metadata" | ".kind" | ".apiVersion") || path.ends_with("[]") {
            return;
        }
        assert!((10..=160).contains(&described.len()), "{path}: {described:?}");
    });
}

#[test]
fn formats_are_those_that_kubernetes_knows() {
    let mut formats = BTreeSet::new();
    walk("", &schema(), &mut |_, schema| {
        formats.extend(schema["format"].as_str().map(str::to_owned));
    });
    assert_eq!(formats, ["date-time", "int32", "int64"].map(str::to_owned).into());
}

#[test]
fn the_names_are_those_that_manifests_use() {
    let crd = serde_json::to_value(crd()).unwrap();
    assert_eq!(crd["spec"]["group"], api::GROUP);
    assert_eq!(crd["spec"]["names"]["kind"], api::KIND);
    assert_eq!(crd["spec"]["versions"][0]["name"], api::VERSION);
    assert!(annotations::DEV_COMMAND.starts_with(&format!("{}/", api::GROUP)));
    let scale = &crd["spec"]["versions"][0]["subresources"]["scale"];
    assert_eq!(scale["specReplicasPath"], ".spec.workers.replicas");
}

#[test]
fn a_new_task_queue_is_not_known_to_be_ready() {
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
fn a_status_is_written_as_it_is_read() {
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
        "scaling": { "mode": "Auto", "desired": 60, "reason": "Total", "limitedBy": "Total" },
        "database": { "identity": "shop@7", "before": "shop@6", "changed": "2026-01-01T00:00:00Z" }
    });
    let read: TaskQueueStatus = serde_json::from_value(status.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), status);
    // Nothing of it is a field that the definition would drop.
    let known = schema()["properties"]["status"]["properties"].clone();
    for (field, value) in status.as_object().unwrap() {
        for inner in value.as_object().into_iter().flat_map(|inner| inner.keys()) {
            assert!(known[field]["properties"][inner].is_object(), "{field}.{inner}");
        }
        assert!(known[field].is_object(), "{field}");
    }
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
