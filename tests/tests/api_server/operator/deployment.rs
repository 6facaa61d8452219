//! The Deployment of a `TaskQueue`, and changes of it by others.

use serde_json::{Value, json};

use super::harness::{EMAILS, Harness, until};

fn names(containers: &Value) -> Vec<&str> {
    containers.as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_queue_becomes_a_deployment_tables_and_a_queue() {
    let harness = Harness::new("becomes").await;
    harness.db.run("drop schema rowlock cascade").await;
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    let deployment = harness.deployment();
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!((names(&pod["containers"]), names(&pod["initContainers"])), (vec!["worker"], vec!["handler"]));
    assert_eq!(deployment["spec"]["replicas"], 0);
    let task_queue = harness.get("tq", "emails");
    assert_eq!(deployment["metadata"]["ownerReferences"][0]["uid"], task_queue["metadata"]["uid"]);
    assert_eq!(harness.get("pdb", "emails")["spec"]["maxUnavailable"], "25%");
    let total: i32 = harness.db.one("select total_workers from rowlock.queue where name = 'mail'").await;
    assert_eq!(total, 40);
    // No finalizer may block the deletion of a namespace whose roles are gone already.
    assert!(task_queue["metadata"]["finalizers"].is_null());
    let status = &task_queue["status"];
    assert_eq!(
        (&status["schema"], &status["observedGeneration"]),
        (&json!(rowlock_queue::SCHEMA_VERSION), &json!(1))
    );
    harness.until("DatabaseReachable", "True Succeeded").await;
    harness.until("SchemaReady", "True Succeeded").await;
    harness.until("Stalled", "False Succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_task_queue_changes_deployment_and_queue() {
    let harness = Harness::new("changed").await;
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    harness.change(&json!({ "timeout": "5m", "workers": { "total": 7, "autoscaling": null } }));
    harness.until_replicas(1).await;
    until("the grace is longer", || {
        let grace = harness.deployment()["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].clone();
        if grace == 305 { Ok(()) } else { Err(grace.to_string()) }
    })
    .await;
    let total: i32 = harness.db.one("select total_workers from rowlock.queue where name = 'mail'").await;
    assert_eq!(total, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_of_somebody_else_is_not_touched() {
    let harness = Harness::new("foreign").await;
    harness.kubectl(&["create", "deployment", "emails", "--image=theirs:1"]);
    let before = harness.deployment();
    harness.task_queue("emails", EMAILS);
    let operator = harness.operator().await;
    let message = harness.until("Stalled", "True OwnedByAnother").await;
    assert!(message.contains("rename or delete it"), "{message}");
    assert_eq!(harness.deployment()["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    harness.kubectl(&["delete", "deployment", "emails"]);
    harness.until("Ready", "True Succeeded").await;
    assert_eq!(names(&harness.deployment()["spec"]["template"]["spec"]["containers"]), ["worker"]);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_template_changes_are_undone_but_a_restart_stays() {
    let harness = Harness::new("edited").await;
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    harness.kubectl(&["rollout", "restart", "deployment/emails"]);
    let restarted = |deployment: &Value| {
        let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
        annotations["kubectl.kubernetes.io/restartedAt"].clone()
    };
    let at = restarted(&harness.deployment());
    assert!(at.is_string());
    harness.kubectl(&["set", "env", "deployment/emails", "-c", "worker", "THEIRS=1", "ROWLOCK_SLOTS=99"]);
    until("the template is the operator's again", || {
        let text = harness.deployment()["spec"]["template"].to_string();
        if text.contains("THEIRS") || text.contains("\"99\"") { Err(text) } else { Ok(()) }
    })
    .await;
    // No other manager owns any field afterwards, so later changes are the operator's alone.
    until("no other manager owns a field", || {
        let whole = harness.kubectl(&["get", "deployment", "emails", "-o", "json", "--show-managed-fields"]);
        let managers: Vec<String> =
            serde_json::from_str::<Value>(&whole).unwrap()["metadata"]["managedFields"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|entry| entry["fieldsV1"].to_string().contains("f:env"))
                .map(|entry| format!("{} {}", entry["manager"], entry["operation"]))
                .collect();
        if managers == ["\"rowlock-operator\" \"Apply\""] { Ok(()) } else { Err(format!("{managers:?}")) }
    })
    .await;
    assert_eq!(restarted(&harness.deployment()), at);
    let events = harness.kubectl(&["get", "events"]);
    assert!(events.contains("TemplateRestored"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_deployment_is_created_again() {
    let harness = Harness::new("deleted").await;
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    for kind in ["deployment", "pdb"] {
        let uid = |harness: &Harness| harness.get(kind, "emails")["metadata"]["uid"].clone();
        let before = uid(&harness);
        harness.kubectl(&["delete", kind, "emails"]);
        until("the Deployment exists again", || {
            let now = uid(&harness);
            if now.is_null() || now == before { Err(format!("{kind} {now}")) } else { Ok(()) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_disruption_budget_replaces_the_operators() {
    let harness = Harness::new("budget").await;
    let selector = json!({ "matchLabels": { "rowlock.dev/task-queue": "orders" } });
    let budget = json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": { "name": "orders" },
        "spec": { "minAvailable": 3, "selector": selector } });
    harness.apply(&budget.to_string());
    harness.task_queue("orders", &EMAILS.replace("queueName: mail", "queueName: orders"));
    harness.task_queue("emails", EMAILS);
    let operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    harness.until_of("orders", "Ready", "True Succeeded").await;
    // The operator's own budget, taken over as docs/kubernetes.md says.
    let disown = r#"[{"op": "remove", "path": "/metadata/ownerReferences"}]"#;
    harness.kubectl(&["patch", "pdb", "emails", "--type=json", "-p", disown]);
    let two = r#"{"spec": {"minAvailable": 2, "maxUnavailable": null}}"#;
    harness.kubectl(&["patch", "pdb", "emails", "--type=merge", "-p", two]);
    operator.stop().await;
    let _next = harness.operator().await;
    harness.change(&json!({ "workers": { "autoscaling": { "min": 11 } } }));
    harness.until_replicas(2).await;
    for (name, available) in [("orders", 3), ("emails", 2)] {
        let budget = harness.get("pdb", name);
        assert_eq!(budget["spec"]["minAvailable"], available, "{budget}");
        assert!(budget["metadata"]["ownerReferences"].is_null(), "{budget}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_are_accepted_in_a_restricted_namespace() {
    let harness = Harness::new("restricted").await;
    let level = "pod-security.kubernetes.io/enforce=restricted";
    harness.kubectl(&["label", "namespace", &harness.namespace, level]);
    harness.kubectl(&["create", "serviceaccount", "default"]);
    let handler = json!({
        "name": "handler", "image": "emails:1",
        "securityContext": { "runAsNonRoot": true, "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
                             "seccompProfile": { "type": "RuntimeDefault" } }
    });
    let proxy = json!({ "name": "proxy", "image": "proxy:1", "securityContext": handler["securityContext"] });
    let template = json!({ "spec": { "containers": [handler, proxy] } });
    let spec = EMAILS.lines().filter(|line| !line.starts_with("template")).collect::<Vec<_>>().join("\n");
    harness.task_queue("emails", &format!("{spec}\ntemplate: {template}"));
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    // One violation is enough.
    let own = json!({ "name": "handler", "image": "emails:1", "securityContext": { "runAsNonRoot": true } });
    harness.task_queue(
        "other",
        &format!(
            "{}\ntemplate: {}",
            spec.replace("queueName: mail", "queueName: other"),
            json!({ "spec": { "containers": [own] } })
        ),
    );
    harness.until_of("other", "Ready", "True Succeeded").await;
    let other = harness.get("deployment", "other")["spec"]["template"]["spec"].clone();
    harness.apply(
        &json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "other" }, "spec": other })
            .to_string(),
    );
    let template = harness.deployment()["spec"]["template"].clone();
    let mut pod =
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": template["spec"] });
    harness.apply(&pod.to_string());
    // The namespace enforces the restricted policy.
    pod["metadata"]["name"] = "privileged".into();
    pod["spec"]["containers"][0]["securityContext"]["runAsNonRoot"] = false.into();
    let answer = harness.try_apply(&pod.to_string()).unwrap_err();
    assert!(answer.contains("violates PodSecurity"), "{answer}");
}

/// Whether it contains all expected values; it may contain more.
fn says(all: &Value, asked: &Value) -> bool {
    let Value::Object(asked) = asked else { return all == asked };
    asked.iter().all(|(name, value)| says(&all[name], value))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_can_give_its_handler_more_privileges() {
    let harness = Harness::new("rights-of-handlers").await;
    let handler =
        json!({ "name": "handler", "image": "emails:1", "securityContext": { "privileged": true } });
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    for context in [
        json!({ "privileged": true }),
        json!({ "capabilities": { "add": ["SYS_ADMIN"] } }),
        json!({ "runAsUser": 0 }),
    ] {
        let mut handler = handler.clone();
        handler["securityContext"] = context;
        harness.change(&json!({ "template": { "spec": { "containers": [handler] } } }));
        until("the template is applied", || {
            let spec = harness.deployment()["spec"]["template"]["spec"].clone();
            let theirs = spec["initContainers"][0]["securityContext"].clone();
            if says(&theirs, &handler["securityContext"]) { Ok(()) } else { Err(theirs.to_string()) }
        })
        .await;
    }
    harness.until("Stalled", "False Succeeded").await;
}

/// Before the fix, no label of a user reached the Deployment, so such a policy could not be satisfied.
#[tokio::test(flavor = "multi_thread")]
async fn labels_of_the_task_queue_satisfy_an_admission_policy() {
    let harness = Harness::new("policy").await;
    let (api, name) = ("admissionregistration.k8s.io/v1", format!("label-team-{}", harness.namespace));
    let rules = json!([{ "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
        "resources": ["deployments"] }]);
    let asked = "has(object.metadata.labels) && 'team' in object.metadata.labels";
    harness.apply(
        &json!({
            "apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": { "name": name },
            "spec": {
                "matchConstraints": { "resourceRules": rules },
                "validations": [{ "expression": asked, "message": "every Deployment needs the label team" }]
            }
        })
        .to_string(),
    );
    let here = json!({ "matchLabels": { "kubernetes.io/metadata.name": harness.namespace } });
    harness.apply(
        &json!({
            "apiVersion": api, "kind": "ValidatingAdmissionPolicyBinding", "metadata": { "name": name },
            "spec": { "policyName": name, "validationActions": ["Deny"],
            "matchResources": { "namespaceSelector": here } }
        })
        .to_string(),
    );
    let unlabelled = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "x" },
        "spec": { "selector": { "matchLabels": { "a": "b" } }, "template": {
            "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] }
        } }
    });
    until("the policy is active", || harness.refusal(&unlabelled).ok_or_else(|| "it is not".to_owned()))
        .await;
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    let answer = harness.until("Stalled", "True TemplateRejected").await;
    assert!(answer.contains("every Deployment needs the label team"), "{answer}");
    harness.kubectl(&["label", "tq", "emails", "team=mail"]);
    harness.until("Ready", "True Succeeded").await;
    assert_eq!(harness.deployment()["metadata"]["labels"]["team"], "mail");
    for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
        harness.kubectl(&["delete", kind, &name]);
    }
}
