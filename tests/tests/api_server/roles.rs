//! Permissions on `TaskQueue`s.

use serde_json::json;

use crate::kubectl::{json as read, kubectl, namespace, ok};

#[test]
fn the_view_and_edit_roles_include_task_queues() {
    // No controller manager runs here to aggregate the rules of roles with the label.
    for role in ["view", "edit", "admin"] {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{role}");
        let usual = read(&["get", "clusterrole", role], "");
        let selectors = usual["aggregationRule"]["clusterRoleSelectors"].as_array().unwrap();
        let selector = json!({ "matchLabels": { label.as_str(): "true" } });
        assert!(selectors.contains(&selector), "{role}: {selectors:?}");
        let ours = ok(&["get", "clusterroles", "-o", "name", "-l", &format!("{label}=true")], "");
        assert!(ours.contains("/rowlock-taskqueues-view\n"), "{role}");
        assert_eq!(ours.contains("/rowlock-taskqueues-edit\n"), role != "view", "{role}");
    }
}

#[test]
fn editors_change_task_queues_and_only_the_operator_writes_the_status() {
    let namespace = namespace("roles");
    for (user, roles) in [("vera", &["view"] as &[&str]), ("edgar", &["view", "edit"])] {
        for role in roles {
            let (name, role) = (format!("{user}-{role}"), format!("--clusterrole=rowlock-taskqueues-{role}"));
            ok(&["create", "rolebinding", &name, "-n", &namespace, &role, &format!("--user={user}")], "");
        }
    }
    let may = |user: &str, verb: &str| {
        kubectl(&["auth", "can-i", verb, "tq", "-n", &namespace, "--as", user]).succeeded
    };
    let may_status = |user: &str, verb: &str| {
        kubectl(&["auth", "can-i", verb, "tq", "--subresource=status", "-n", &namespace, "--as", user])
            .succeeded
    };
    for verb in ["get", "list", "watch"] {
        assert!(may("vera", verb) && may("edgar", verb), "{verb}");
    }
    for verb in ["create", "update", "patch", "delete", "deletecollection"] {
        assert!(!may("vera", verb) && may("edgar", verb), "{verb}");
        assert!(!may("nobody", verb), "{verb}");
    }
    for verb in ["update", "patch"] {
        assert!(!may_status("edgar", verb), "{verb}");
    }
    let may_scale = |user: &str, verb: &str| {
        kubectl(&["auth", "can-i", verb, "tq", "--subresource=scale", "-n", &namespace, "--as", user])
            .succeeded
    };
    assert!(may_scale("vera", "get") && !may_scale("vera", "patch"));
    assert!(may_scale("edgar", "patch") && may_scale("edgar", "update"));
    assert!(may_status("vera", "get"));
}
