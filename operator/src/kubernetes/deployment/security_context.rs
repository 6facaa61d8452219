//! What containers may do in their pods: pure.
//!
//! The worker is restricted by the Pod Security standard's word. A handler is the user's image, and ordinary
//! images run as root: their entry points change owners of files, switch to another user, write beside their
//! programs. Told `runAsNonRoot` they would not start, and without any capabilities many would not either (a
//! web server cannot become its own user). So a handler may be root unless its template says otherwise. But
//! it may gain no rights that it has not (`sudo` and the like aside, nobody does), and no system calls but
//! those of ordinary programs. Nor may it, or any other container of the template, listen to what its pod's
//! worker sends. Where the template says that it is not root, it keeps no capabilities: it could not use
//! them. Then it meets the restricted standard with that one line.

use serde_json::{Map, Value, json};

/// The user and group of the worker's image.
const WORKER_USER: i64 = 65_532;

/// By it root reads and forges what other containers of its pod send: they share one network. Hardly an image
/// needs it.
const RAW: &str = "NET_RAW";

/// What the worker may do in such a `pod`.
pub(crate) fn worker(pod: &Value) -> Value {
    let mut context = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    // Told so for the pod, the worker would have to be root too. Said only then: elsewhere the cluster may
    // choose the user.
    if pod["runAsUser"] == 0 {
        context["runAsUser"] = WORKER_USER.into();
        context["runAsGroup"] = WORKER_USER.into();
    }
    context
}

/// What the handler may do: whatever its template says, for the container or for the `pod`, and else no more
/// than it needs.
pub(crate) fn handler(mut chosen: Map<String, Value>, pod: &Value) -> Map<String, Value> {
    let adds = chosen.get("capabilities").and_then(|all| all["add"].as_array()).is_some_and(|added| {
        added.iter().any(|one| ["SYS_ADMIN", "CAP_SYS_ADMIN", "ALL"].iter().any(|name| one == name))
    });
    // The API server takes no promise that such a one gains nothing.
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

/// What another container of the template may do: whatever that says, but for [`RAW`].
pub(crate) fn other(container: &mut Map<String, Value>) {
    let context = container.entry("securityContext").or_insert(Value::Null);
    if context.is_null() {
        *context = json!({});
    }
    // Anything else is for the API server to refuse.
    if let Some(chosen) = context.as_object_mut().filter(|chosen| !is_privileged(chosen)) {
        without_raw(chosen.entry("capabilities").or_insert(Value::Null));
    }
}

fn is_privileged(context: &Map<String, Value>) -> bool {
    context.get("privileged") == Some(&Value::Bool(true))
}

/// Takes [`RAW`] away, unless it is asked for.
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

/// What a container says counts before what its pod says.
fn may_be_root(container: &Map<String, Value>, pod: &Value) -> bool {
    let detail = |field: &str| container.get(field).unwrap_or(&pod[field]).clone();
    is_privileged(container)
        || !(detail("runAsNonRoot") == true || detail("runAsUser").as_i64().is_some_and(|user| user != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(container: &Value, pod: &Value, expected: &Value) {
        let chosen = serde_json::from_value(container.clone()).unwrap();
        assert_eq!(&Value::from(handler(chosen, pod)), expected, "{container} in {pod}");
    }

    #[test]
    fn an_ordinary_image_runs_as_it_is_and_gains_nothing() {
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

    /// Before, a handler that is root could read in clear what the worker sends, and answer in the database's
    /// place.
    #[test]
    fn nobody_listens_to_the_network_of_the_pod_who_does_not_ask_to() {
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

    /// Before, a sidecar or an init container could do what the handler could not: they share one network.
    #[test]
    fn other_containers_listen_to_nothing_either() {
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
            json!({ "securityContext": "the API server's to refuse" }),
        ] {
            let mut container = serde_json::from_value(kept.clone()).unwrap();
            other(&mut container);
            assert_eq!(Value::from(container), kept);
        }
        let chosen = serde_json::from_value(json!({ "capabilities": null })).unwrap();
        assert_eq!(handler(chosen, &json!({}))["capabilities"], dropped, "a null is nothing said");
    }

    /// Before, `runAsUser: 0` of the pod was the worker's too, which the kubelet then refused to start.
    #[test]
    fn a_pod_of_root_has_a_worker_that_is_not() {
        let context = worker(&json!({ "runAsUser": 0 }));
        assert_eq!((&context["runAsUser"], &context["runAsGroup"]), (&json!(65532), &json!(65532)));
        for pod in [json!({}), json!({ "runAsUser": 1000 }), Value::Null] {
            assert_eq!(worker(&pod)["runAsUser"], Value::Null, "{pod}");
        }
    }

    #[test]
    fn who_says_not_to_be_root_keeps_no_capabilities() {
        let mut expected = json!({
            "allowPrivilegeEscalation": false, "seccompProfile": { "type": "RuntimeDefault" }, "capabilities": { "drop": ["ALL"] }
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
    fn what_the_template_says_stays() {
        let chosen = json!({ "allowPrivilegeEscalation": true, "seccompProfile": { "type": "Unconfined" } });
        let kept = json!({ "drop": ["NET_RAW"] });
        let mut expected = chosen.clone();
        expected["capabilities"] = kept.clone();
        check(&chosen, &json!({}), &expected);
        let local = json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": "p" } });
        check(&json!({}), &local, &json!({ "allowPrivilegeEscalation": false, "capabilities": kept }));
        // The API server would refuse these together with the promise not to gain any rights.
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
