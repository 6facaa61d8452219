//! What containers may do in their pods: pure.
//!
//! The worker is restricted by the Pod Security standard's word. A handler is the user's image, and ordinary images run as root: their
//! entry points change owners of files, switch to another user, write beside their programs. Told `runAsNonRoot` they would not start,
//! and without any capabilities many would not either (a web server cannot become its own user). So a handler may be root unless its
//! template says otherwise. But it may gain no rights that it has not (`sudo` and the like aside, nobody does), and no system calls
//! but those of ordinary programs. Where the template says that it is not root, it keeps no capabilities: it could not use
//! them. Then it meets the restricted standard with that one line.

use serde_json::{Map, Value, json};

/// What the worker may do.
pub(super) fn worker() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

/// What the handler may do: whatever its template says, for the container or for the `pod`, and else no more than it needs.
pub(super) fn handler(mut chosen: Map<String, Value>, pod: &Value) -> Map<String, Value> {
    let adds = chosen.get("capabilities").and_then(|all| all["add"].as_array()).is_some_and(|added| {
        added.iter().any(|one| ["SYS_ADMIN", "CAP_SYS_ADMIN", "ALL"].iter().any(|name| one == name))
    });
    // The API server takes no promise that such a one gains nothing.
    if chosen.get("privileged") != Some(&Value::Bool(true)) && !adds {
        chosen.entry("allowPrivilegeEscalation").or_insert(Value::Bool(false));
    }
    if pod["seccompProfile"].is_null() {
        chosen.entry("seccompProfile").or_insert_with(|| json!({ "type": "RuntimeDefault" }));
    }
    if !may_be_root(&chosen, pod) {
        chosen.entry("capabilities").or_insert_with(|| json!({ "drop": ["ALL"] }));
    }
    chosen
}

/// What a container says counts before what its pod says.
fn may_be_root(container: &Map<String, Value>, pod: &Value) -> bool {
    let said = |field: &str| container.get(field).unwrap_or(&pod[field]).clone();
    let privileged = container.get("privileged") == Some(&Value::Bool(true));
    privileged || !(said("runAsNonRoot") == true || said("runAsUser").as_i64().is_some_and(|user| user != 0))
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
        let all = json!({ "allowPrivilegeEscalation": false, "seccompProfile": profile });
        check(&json!({}), &json!({}), &all);
        check(&json!({}), &json!({ "fsGroup": 5 }), &all);
        let root = json!({ "allowPrivilegeEscalation": false, "seccompProfile": profile, "runAsUser": 0 });
        check(&json!({ "runAsUser": 0 }), &json!({ "runAsUser": 5 }), &root);
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
        check(&chosen, &json!({}), &chosen);
        let local = json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": "p" } });
        check(&json!({}), &local, &json!({ "allowPrivilegeEscalation": false }));
        // The API server would refuse these together with the promise not to gain any rights.
        for context in [json!({ "privileged": true }), json!({ "capabilities": { "add": ["SYS_ADMIN"] } })] {
            let mut expected = context.clone();
            expected["seccompProfile"] = json!({ "type": "RuntimeDefault" });
            check(&context, &json!({}), &expected);
        }
    }
}
