//! Hooks of a template that run before its tasks are done: pure.

use serde_json::Value;

use crate::kubernetes::database::session::sanitize;

/// What to tell whoever wrote such hooks.
///
/// A pod that is told to end runs the preStop hooks of all its containers at once, and only then sends them
/// SIGTERM in their order. A hook that stops the handler, or a proxy that it needs, so cuts short what
/// runs. One that only sleeps harms nobody.
pub(crate) fn harmful_hooks(template: Option<&Value>) -> Option<String> {
    let list =
        |name: &str| template.and_then(|template| template["spec"][name].as_array()).into_iter().flatten();
    let harms = |one: &&Value| {
        let hook = &one["lifecycle"]["preStop"];
        hook.is_object() && !hook["sleep"].is_object()
    };
    // An init container that ends has none.
    let stays = |one: &&Value| one["restartPolicy"] == "Always";
    let all = list("containers").chain(list("initContainers").filter(stays));
    let names: Vec<&str> = all.filter(harms).filter_map(|one| one["name"].as_str()).collect();
    if names.is_empty() {
        return None;
    }
    Some(format!(
        "the preStop hook of {} runs as soon as a pod is told to end, not after its tasks: if it stops the \
        handler, or what the handler needs, \
         running tasks are cut short. Leave it out: the worker drains first, and only then the others get \
         SIGTERM (docs/pods.md)",
        sanitize(&names.join(" and "))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Before, the name was told as it is written, before the API server had refused it.
    #[test]
    fn a_name_that_is_none_looks_like_no_command() {
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
