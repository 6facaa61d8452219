//! Finds preStop hooks in a template that cut tasks short. No I/O.

use serde_json::Value;

use crate::kubernetes::sanitize::sanitize;

/// A warning about harmful preStop hooks.
///
/// When a pod is deleted, the kubelet runs the preStop hooks of all containers at once, and sends SIGTERM to
/// the sidecars in order afterwards. So a hook that stops the handler, or a proxy that it needs, cuts running
/// tasks short. A hook that only sleeps is harmless.
pub(crate) fn harmful_hooks(template: Option<&Value>) -> Option<String> {
    let list =
        |name: &str| template.and_then(|template| template["spec"][name].as_array()).into_iter().flatten();
    let harms = |one: &&Value| {
        let hook = &one["lifecycle"]["preStop"];
        hook.is_object() && !hook["sleep"].is_object()
    };
    // Only a sidecar among the init containers may have hooks.
    let stays = |one: &&Value| one["restartPolicy"] == "Always";
    let all = list("containers").chain(list("initContainers").filter(stays));
    let names: Vec<&str> = all.filter(harms).filter_map(|one| one["name"].as_str()).collect();
    if names.is_empty() {
        return None;
    }
    Some(format!(
        "the preStop hook of {} runs as soon as a pod is deleted, not after its tasks: if it stops the \
         handler, or what the handler needs, running tasks are cut short. Remove it: the worker drains \
         first, and the other containers get SIGTERM afterwards (docs/pods.md)",
        sanitize(&names.join(" and "))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Before, the event repeated an invalid name unchanged.
    #[test]
    fn an_invalid_container_name_looks_like_no_command() {
        let hook = json!({ "preStop": { "exec": {} } });
        let template = json!({ "spec": { "containers": [{ "name": "`x`\n", "lifecycle": hook }] } });
        let detail = harmful_hooks(Some(&template)).unwrap();
        assert!(detail.contains("of 'x'  runs"), "{detail}");
    }

    #[test]
    fn a_hook_that_cuts_tasks_short_is_named() {
        let hook = json!({ "preStop": { "exec": { "command": ["kill", "1"] } } });
        let warned = |containers: Value, init: Value| {
            harmful_hooks(Some(&json!({ "spec": { "containers": containers, "initContainers": init } })))
        };
        let handler = json!({ "name": "handler", "lifecycle": hook });
        let proxy = json!({ "name": "proxy", "lifecycle": hook, "restartPolicy": "Always" });
        let detail = warned(json!([handler]), json!([proxy])).unwrap();
        assert!(detail.contains("of handler and proxy runs"), "{detail}");
        let ends = json!({ "name": "migrate", "lifecycle": hook });
        assert_eq!(warned(json!([{ "name": "handler" }]), json!([ends])), None);
        let sleeps = json!({ "name": "handler", "lifecycle": { "preStop": { "sleep": { "seconds": 5 } } } });
        assert_eq!(warned(json!([sleeps]), Value::Null), None);
        assert_eq!(harmful_hooks(None), None);
    }
}
