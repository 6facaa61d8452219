//! Security contexts of containers: pure.
//!
//! The worker meets the restricted Pod Security standard. A handler is the user's image, and many images run
//! as root: their entry points change the owners of files, switch to another user, and write next to their
//! programs. With `runAsNonRoot` they would not start. Without any capabilities many would not start either,
//! for example a web server that switches to its own user. So a handler may run as root, unless its template
//! says otherwise. But it cannot gain privileges, which hardly any program but `sudo` needs, and it can only
//! make the system calls of the runtime's default profile. Neither the handler nor another container of the
//! template can read the traffic of the pod's worker.
//!
//! If the template says that the handler is not root, it gets no capabilities, since it could not use them.
//! So that one line in a template makes it meet the restricted standard.

use serde_json::{Map, Value, json};

/// With this capability, root can read and forge the traffic of the other containers of the pod, since they
/// share a network. Hardly any image needs it.
const RAW: &str = "NET_RAW";

/// The security context of the handler: what its template sets for the container or the `pod`. Other fields
/// are as strict as ordinary images allow.
pub(crate) fn handler(mut chosen: Map<String, Value>, pod: &Value) -> Map<String, Value> {
    let adds = chosen.get("capabilities").and_then(|all| all["add"].as_array()).is_some_and(|added| {
        added.iter().any(|one| ["SYS_ADMIN", "CAP_SYS_ADMIN", "ALL"].iter().any(|name| one == name))
    });
    // For such a container the API server rejects `allowPrivilegeEscalation: false`.
    if !is_privileged(&chosen) && !adds {
        chosen.entry("allowPrivilegeEscalation").or_insert(Value::Bool(false));
    }
    if pod["seccompProfile"].is_null() {
        chosen.entry("seccompProfile").or_insert_with(|| json!({ "type": "RuntimeDefault" }));
    }
    if !may_be_root(&chosen, pod) {
        chosen.entry("capabilities").or_insert_with(|| json!({ "drop": ["ALL"] }));
    } else if !is_privileged(&chosen) {
        without_raw(chosen.entry("capabilities").or_insert(Value::Null));
    }
    chosen
}

/// Sets the security context of another container: what the template says, but without [`RAW`].
pub(crate) fn other(container: &mut Map<String, Value>) {
    let context = container.entry("securityContext").or_insert(Value::Null);
    if context.is_null() {
        *context = json!({});
    }
    // The API server rejects anything else.
    if let Some(chosen) = context.as_object_mut().filter(|chosen| !is_privileged(chosen)) {
        without_raw(chosen.entry("capabilities").or_insert(Value::Null));
    }
}

fn is_privileged(context: &Map<String, Value>) -> bool {
    context.get("privileged") == Some(&Value::Bool(true))
}

/// Drops [`RAW`], unless the template adds it.
fn without_raw(capabilities: &mut Value) {
    if capabilities.is_null() {
        *capabilities = json!({});
    }
    let names = |list: &str, name: &str| {
        let listed = capabilities[list].as_array().into_iter().flatten().filter_map(Value::as_str);
        listed.map(|one| one.strip_prefix("CAP_").unwrap_or(one)).any(|one| one == name || one == "ALL")
    };
    if names("add", RAW) || names("drop", RAW) || !capabilities.is_object() {
        return;
    }
    match &mut capabilities["drop"] {
        Value::Array(dropped) => dropped.push(RAW.into()),
        dropped => *dropped = json!([RAW]),
    }
}

/// Whether a container may run as root. Its own fields override those of its pod.
fn may_be_root(container: &Map<String, Value>, pod: &Value) -> bool {
    let detail = |field: &str| container.get(field).unwrap_or(&pod[field]).clone();
    is_privileged(container)
        || !(detail("runAsNonRoot") == true || detail("runAsUser").as_i64().is_some_and(|user| user != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker_container::security_context as worker;

    fn check(container: &Value, pod: &Value, expected: &Value) {
        let chosen = serde_json::from_value(container.clone()).unwrap();
        assert_eq!(&Value::from(handler(chosen, pod)), expected, "{container} in {pod}");
    }

    #[test]
    fn an_ordinary_image_runs_unchanged_and_gains_no_privileges() {
        let profile = json!({ "type": "RuntimeDefault" });
        let kept = json!({ "drop": ["NET_RAW"] });
        let all =
            json!({ "allowPrivilegeEscalation": false, "seccompProfile": profile, "capabilities": kept });
        check(&json!({}), &json!({}), &all);
        check(&json!({}), &json!({ "fsGroup": 5 }), &all);
        let mut root = all.clone();
        root["runAsUser"] = 0.into();
        check(&json!({ "runAsUser": 0 }), &json!({ "runAsUser": 5 }), &root);
    }

    /// Before, a handler that runs as root could read the worker's traffic, and answer in place of the
    /// database.
    #[test]
    fn a_handler_cannot_read_the_traffic_of_its_pod_unless_it_asks_to() {
        for (detail, left) in [
            (json!({}), json!({ "drop": ["NET_RAW"] })),
            (json!({ "add": ["CHOWN"] }), json!({ "add": ["CHOWN"], "drop": ["NET_RAW"] })),
            (json!({ "drop": ["KILL"] }), json!({ "drop": ["KILL", "NET_RAW"] })),
            (json!({ "add": ["NET_RAW"] }), json!({ "add": ["NET_RAW"] })),
            (
                json!({ "add": ["CAP_NET_RAW"], "drop": ["KILL"] }),
                json!({ "add": ["CAP_NET_RAW"], "drop": ["KILL"] }),
            ),
            (json!({ "drop": ["ALL"], "add": ["CHOWN"] }), json!({ "drop": ["ALL"], "add": ["CHOWN"] })),
            (json!({ "drop": ["CAP_NET_RAW"] }), json!({ "drop": ["CAP_NET_RAW"] })),
        ] {
            let chosen = serde_json::from_value(json!({ "capabilities": detail })).unwrap();
            assert_eq!(handler(chosen, &json!({}))["capabilities"], left, "{detail}");
        }
    }

    /// Before, sidecars and init containers could read that traffic: they share a network.
    #[test]
    fn other_containers_cannot_read_the_traffic_either() {
        let dropped = json!({ "drop": ["NET_RAW"] });
        for (detail, left) in [
            (json!({}), json!({ "securityContext": { "capabilities": dropped } })),
            (json!({ "securityContext": null }), json!({ "securityContext": { "capabilities": dropped } })),
            (
                json!({ "securityContext": { "runAsUser": 5, "capabilities": null } }),
                json!({ "securityContext": { "runAsUser": 5, "capabilities": dropped } }),
            ),
        ] {
            let mut container = serde_json::from_value(detail.clone()).unwrap();
            other(&mut container);
            assert_eq!(Value::from(container), left, "{detail}");
        }
        for kept in [
            json!({ "securityContext": { "privileged": true } }),
            json!({ "securityContext": { "capabilities": { "add": ["NET_ADMIN", "NET_RAW"] } } }),
            json!({ "securityContext": { "capabilities": { "add": ["ALL"] } } }),
            json!({ "securityContext": "the API server rejects this" }),
        ] {
            let mut container = serde_json::from_value(kept.clone()).unwrap();
            other(&mut container);
            assert_eq!(Value::from(container), kept);
        }
        let chosen = serde_json::from_value(json!({ "capabilities": null })).unwrap();
        assert_eq!(handler(chosen, &json!({}))["capabilities"], dropped, "null counts as unset");
    }

    /// Before, the worker inherited `runAsUser: 0` from its pod, and the kubelet refused to start it.
    #[test]
    fn the_worker_is_not_root_in_a_pod_that_runs_as_root() {
        let context = worker(&json!({ "runAsUser": 0 }));
        assert_eq!((&context["runAsUser"], &context["runAsGroup"]), (&json!(65532), &json!(65532)));
        for pod in [json!({}), json!({ "runAsUser": 1000 }), Value::Null] {
            assert_eq!(worker(&pod)["runAsUser"], Value::Null, "{pod}");
        }
    }

    #[test]
    fn a_handler_that_is_not_root_gets_no_capabilities() {
        let mut expected = json!({
            "allowPrivilegeEscalation": false,
            "seccompProfile": { "type": "RuntimeDefault" },
            "capabilities": { "drop": ["ALL"] },
        });
        check(&json!({}), &json!({ "runAsNonRoot": true }), &expected);
        check(&json!({}), &json!({ "runAsUser": 1000 }), &expected);
        expected["runAsNonRoot"] = true.into();
        check(&json!({ "runAsNonRoot": true }), &json!({}), &expected);
        expected["capabilities"] = json!({ "add": ["NET_BIND_SERVICE"] });
        check(
            &json!({ "runAsNonRoot": true, "capabilities": expected["capabilities"] }),
            &json!({}),
            &expected,
        );
    }

    #[test]
    fn fields_of_the_template_stay() {
        let chosen = json!({ "allowPrivilegeEscalation": true, "seccompProfile": { "type": "Unconfined" } });
        let kept = json!({ "drop": ["NET_RAW"] });
        let mut expected = chosen.clone();
        expected["capabilities"] = kept.clone();
        check(&chosen, &json!({}), &expected);
        let local = json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": "p" } });
        check(&json!({}), &local, &json!({ "allowPrivilegeEscalation": false, "capabilities": kept }));
        // The API server rejects these together with `allowPrivilegeEscalation: false`.
        for context in [json!({ "privileged": true }), json!({ "capabilities": { "add": ["SYS_ADMIN"] } })] {
            let mut expected = context.clone();
            expected["seccompProfile"] = json!({ "type": "RuntimeDefault" });
            if expected["capabilities"].is_object() {
                expected["capabilities"]["drop"] = json!(["NET_RAW"]);
            }
            check(&context, &json!({}), &expected);
        }
    }
}
