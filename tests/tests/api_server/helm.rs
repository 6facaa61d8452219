//! The operator's chart, rendered by Helm.

use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use rowlock_tests::alerts::{RuleFile, check_rules};
use rowlock_tests::checkout;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::kubectl::{namespace, ok};

/// All values that a platform team may set.
const VALUES: &str = r#"
enabled: true
registry: registry.example/team
imagePullSecrets: [{ name: own }]
workerImage: { tag: "7", pullSecrets: [registry, mirror] }
workerResources: { limits: { cpu: 1, memory: 96Mi } }
workerLabels: { cost-centre: "4711" }
workerTracing: { OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318" }
allowedDatabaseHosts: [10.0.0.1, db.example.com]
refusedDatabaseHosts: [10.0.0.0/24, '2001:db8::/32']
nameOverride: tasks
dnsPolicy: None
dnsConfig: { nameservers: [10.0.0.2] }
extraVolumes: [{ name: mine, emptyDir: {} }]
extraVolumeMounts: [{ name: mine, mountPath: /mine }]
networkPolicy: { from: [{ podSelector: {} }], egress: [{ ports: [{ port: 443 }] }] }
workerNetworkPolicy:
  { enabled: true, from: [{ podSelector: {} }], ingress: [{ ports: [{ port: 1 }] }],
    egress: [{ ports: [{ port: 5432 }] }] }
namespaces: [shop]
class: blue.green_1
rolloutsAtOnce: 2
logFormat: text
logLevel: info,rowlock_operator=debug
extraEnv: [{ name: ROWLOCK_LISTEN, value: 0.0.0.0:9464 }]
nodeSelector: { disk: ssd }
topologySpreadConstraints: [{ maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule }]
priorityClassName: system-cluster-critical
podAnnotations: { a: b }
podLabels: { team: platform }
commonLabels: { cost-centre: "4711" }
serviceAccount: { name: mine, annotations: { role: r } }
dashboards:
  { enabled: true, annotations: { grafana_folder: Rowlock }, runbookUrl: "https://wiki.example/alerts" }
"#;

static HELM: OnceLock<String> = OnceLock::new();

/// The helm binary, built if it is missing.
fn program() -> &'static str {
    HELM.get_or_init(|| {
        let mut build = Command::new(checkout().join("tests/cluster/build.sh"));
        let output = build.arg("helm").stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "tests/cluster/build.sh failed; the reason is above");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    })
}

/// Runs helm on the chart as release `rowlock` in this namespace with these values.
fn helm(verb: &str, namespace: &str, values: &str, more: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.args([verb, "rowlock"]).arg(checkout().join("charts/rowlock"));
    // Without a cluster the chart would report that the definition is missing.
    command.args(["-n", namespace, "--set", "checkDefinition=false", "-f", "-"]).args(more);
    command.env("KUBECONFIG", "/dev/null");
    rowlock_tests::run_with_input(&mut command, values).unwrap()
}

/// The manifests.
fn rendered(namespace: &str, values: &str) -> String {
    let output = helm("template", namespace, values, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The objects of a release in the namespace `ops`.
fn objects(values: &str) -> Vec<Value> {
    objects_in("ops", values)
}

/// The objects of a release in a namespace.
pub(crate) fn objects_in(namespace: &str, values: &str) -> Vec<Value> {
    let text = rendered(namespace, values);
    let documents = serde_yaml::Deserializer::from_str(&text);
    documents.map(|one| Value::deserialize(one).unwrap()).filter(|one| !one.is_null()).collect()
}

fn of_kind(objects: &[Value], kind: &str) -> Vec<Value> {
    objects.iter().filter(|one| one["kind"] == kind).cloned().collect()
}

/// An environment variable of the operator's container.
fn variable(objects: &[Value], name: &str) -> Option<String> {
    let deployment = of_kind(objects, "Deployment").swap_remove(0);
    let env = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().clone();
    let found = env.into_iter().find(|one| one["name"] == name)?;
    Some(found["value"].as_str().unwrap().to_owned())
}

/// The namespaces with role bindings, and the names of the bindings.
fn bindings(objects: &[Value]) -> Vec<(String, String)> {
    let bindings = of_kind(objects, "RoleBinding").into_iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    bindings.map(|one| (text(&one["metadata"]["namespace"]), text(&one["metadata"]["name"]))).collect()
}

#[test]
fn the_api_server_accepts_the_charts_objects() {
    let release = namespace("chart-release");
    let alone = format!("namespace: {release}");
    for values in ["{}", &VALUES.replace("[shop]", "[default]"), &alone, "rbac: { clusterWide: true }"] {
        let manifests = rendered(&release, values);
        ok(&["apply", "--dry-run=server", "--validate=strict", "-f", "-"], &manifests);
    }
}

#[test]
fn the_charts_values_reach_the_operator() {
    let objects = objects(VALUES);
    for (name, expected) in [
        ("ROWLOCK_WORKER_IMAGE", "registry.example/team/rowlock-worker:7"),
        ("ROWLOCK_WORKER_PULL_SECRETS", "registry,mirror"),
        ("ROWLOCK_WORKER_LABELS", r#"{"cost-centre":"4711"}"#),
        ("ROWLOCK_WORKER_TRACING", r#"{"OTEL_EXPORTER_OTLP_ENDPOINT":"http://collector:4318"}"#),
        ("ROWLOCK_ALLOWED_DATABASE_HOSTS", "10.0.0.1,db.example.com"),
        ("ROWLOCK_REFUSED_DATABASE_HOSTS", "10.0.0.0/24,2001:db8::/32"),
        ("ROWLOCK_CLASS", "blue.green_1"),
        ("ROWLOCK_ROLLOUTS_AT_ONCE", "2"),
        ("ROWLOCK_LOG_FORMAT", "text"),
        ("RUST_LOG", "info,rowlock_operator=debug"),
        ("ROWLOCK_LISTEN", "0.0.0.0:9464"),
        ("ROWLOCK_SERVICE_ACCOUNT", "mine"),
    ] {
        assert_eq!(variable(&objects, name).as_deref(), Some(expected), "{name}");
    }
    // Limits are added to the requests that the chart sets.
    let resources: Value =
        serde_json::from_str(&variable(&objects, "ROWLOCK_WORKER_RESOURCES").unwrap()).unwrap();
    let requests = json!({ "cpu": "10m", "memory": "48Mi" });
    assert_eq!(resources, json!({ "limits": { "cpu": 1, "memory": "96Mi" }, "requests": requests }));
    let pod = of_kind(&objects, "Deployment")[0]["spec"]["template"].clone();
    assert_eq!(pod["metadata"]["labels"]["team"], "platform");
    assert_eq!(pod["spec"]["nodeSelector"], json!({ "kubernetes.io/os": "linux", "disk": "ssd" }));
    assert_eq!(pod["spec"]["topologySpreadConstraints"][0]["topologyKey"], "zone");
    assert_eq!(
        (&pod["spec"]["priorityClassName"], &pod["spec"]["serviceAccountName"]),
        (&json!("system-cluster-critical"), &json!("mine"))
    );
    for one in &objects {
        assert_eq!(one["metadata"]["labels"]["cost-centre"], "4711", "{one}");
        for subject in one["subjects"].as_array().into_iter().flatten() {
            assert_eq!(subject["name"], "mine", "{one}");
        }
    }
}

#[test]
fn an_existing_service_account_is_used() {
    let objects = objects("serviceAccount: { create: false, name: theirs }");
    assert!(of_kind(&objects, "ServiceAccount").is_empty());
    assert_eq!(of_kind(&objects, "ClusterRoleBinding")[0]["subjects"][0]["name"], "theirs");
    assert_eq!(variable(&objects, "ROWLOCK_SERVICE_ACCOUNT").as_deref(), Some("theirs"));
}

#[test]
fn with_one_namespace_only_that_namespace_is_watched() {
    let objects = objects("namespace: shop");
    assert_eq!(variable(&objects, "ROWLOCK_NAMESPACE").as_deref(), Some("shop"));
    let places: Vec<String> = bindings(&objects).into_iter().map(|(namespace, _)| namespace).collect();
    assert_eq!(places, ["shop", "ops"], "in its own namespace, only the Lease");
    assert!(bindings(&objects)[1].1.ends_with("-lease"));
    // Before the fix, installing it for one namespace needed permissions in the whole cluster.
    let kinds: Vec<&str> = objects.iter().filter_map(|one| one["kind"].as_str()).collect();
    assert!(kinds.iter().all(|kind| !kind.starts_with("Cluster")), "{kinds:?}");
}

#[test]
fn an_image_can_be_set_by_digest() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let values =
        format!("{{ image: {{ digest: '{digest}' }}, workerImage: {{ tag: '7', digest: '{digest}' }} }}");
    let objects = objects(&values);
    let image = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(*image, format!("rowlock-operator@{digest}"));
    assert_eq!(variable(&objects, "ROWLOCK_WORKER_IMAGE"), Some(format!("rowlock-worker:7@{digest}")));
}

/// Before the fix, unready replicas blocked the drain of their nodes, and a hostile server could fill a
/// node's memory.
#[test]
fn unready_operators_do_not_block_a_node_drain() {
    let objects = objects("{}");
    assert_eq!(
        of_kind(&objects, "PodDisruptionBudget")[0]["spec"]["unhealthyPodEvictionPolicy"],
        "AlwaysAllow"
    );
    let limits = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["resources"]
        ["limits"];
    assert_eq!((&limits["memory"], &limits["ephemeral-storage"]), (&json!("256Mi"), &json!("256Mi")));
}

#[test]
fn network_policies_admit_only_the_named_peers() {
    let policies = of_kind(&objects(VALUES), "NetworkPolicy");
    let places: Vec<(&Value, &Value)> = policies
        .iter()
        .map(|one| (&one["metadata"]["namespace"], &one["spec"]["ingress"][0]["from"]))
        .collect();
    let from = json!([{ "podSelector": {} }]);
    assert_eq!(places, [(&json!("ops"), &from), (&json!("shop"), &from), (&json!("ops"), &from)]);
    for policy in &policies {
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    }
    let workers = &policies[1]["spec"];
    assert_eq!(workers["podSelector"]["matchLabels"]["app.kubernetes.io/managed-by"], "rowlock-operator");
    assert_eq!(workers["ingress"][0]["ports"][0]["port"], "rowlock");
    // By default only the operator's own policy, open to any peer.
    let policies = of_kind(&objects("{}"), "NetworkPolicy");
    assert_eq!((policies.len(), &policies[0]["spec"]["policyTypes"]), (1, &json!(["Ingress"])));
}

/// Without this check, an operator without the CRD would wait for ever, without a visible message.
#[test]
fn installing_without_the_crd_names_the_chart_to_install() {
    let template =
        |more: &[&str]| helm("template", "ops", "{}", &[&["--set", "checkDefinition=true"], more].concat());
    let output = template(&[]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && message.contains("install the chart rowlock-crds first"),
        "{message}"
    );
    assert!(template(&["--api-versions", "rowlock.dev/v1alpha1/TaskQueue"]).status.success());
}

#[test]
fn the_role_binding_in_the_notes_has_a_name_that_the_chart_does_not_use() {
    let output = helm("install", "ops", "namespaces: [shop]", &["--dry-run=client"]);
    let message = String::from_utf8(output.stdout).unwrap();
    let objects = objects("namespaces: [shop]");
    let role = variable(&objects, "ROWLOCK_CLUSTER_ROLE").unwrap();
    // The condition Forbidden prints the same.
    let by_hand = format!("{role}-by-hand");
    assert!(message.contains(&format!("kubectl create rolebinding {by_hand} -n NAMESPACE")), "{message}");
    assert!(
        message.contains(&format!("--clusterrole={role} --serviceaccount=ops:rowlock-operator")),
        "{message}"
    );
    let bindings = bindings(&objects);
    assert!(bindings.iter().any(|(namespace, _)| namespace == "shop"), "{bindings:?}");
    assert!(bindings.iter().all(|(_, name)| *name != by_hand), "{bindings:?}");
}

#[test]
fn metrics_labels_are_not_replaced_by_those_of_the_operators_pod() {
    let monitors = of_kind(&objects("podMonitor: { enabled: true, interval: 15s }"), "PodMonitor");
    let endpoints: Vec<&Value> = monitors.iter().map(|one| &one["spec"]["podMetricsEndpoints"][0]).collect();
    let operator = json!({ "port": "metrics", "honorLabels": true, "interval": "15s" });
    assert_eq!(endpoints, [&operator, &json!({ "port": "rowlock", "interval": "15s" })]);
    // A label of the pods would be one more of each series, and could replace their label `queue`.
    assert!(monitors.iter().all(|one| one["spec"]["podTargetLabels"].is_null()), "{monitors:?}");
}

/// The groups of the `PrometheusRule`, whose metadata has a label for Prometheus.
fn alert_groups(values: &str) -> RuleFile {
    let rule = of_kind(&objects(values), "PrometheusRule").swap_remove(0);
    assert_eq!(rule["metadata"]["namespace"], "ops");
    serde_json::from_value(rule["spec"].clone()).unwrap()
}

#[test]
fn the_prometheus_rule_has_the_alerts_of_the_plain_file() {
    assert!(of_kind(&objects("{}"), "PrometheusRule").is_empty());
    let of_chart = alert_groups("alerts: { enabled: true }");
    assert_eq!(of_chart, RuleFile::read().unwrap());
}

#[test]
fn values_change_thresholds_labels_links_and_single_alerts() {
    let values = "alerts: { enabled: true, labels: { release: prometheus }, ruleLabels: { team: shop }, \
                  runbookUrl: 'https://wiki.example/alerts', \
                  thresholds: { stuckFactor: 20.5, podsEndedEarly: 12345678 }, rules: { \
                  RowlockQueueStuck: { for: 1m, severity: page }, RowlockQueueLate: { enabled: false } } }";
    let object = of_kind(&objects(values), "PrometheusRule").swap_remove(0);
    assert_eq!(object["metadata"]["labels"]["release"], "prometheus");
    let groups = alert_groups(values);
    let find = |name: &str| groups.rules().find(|rule| rule.alert == name);
    let stuck = find("RowlockQueueStuck").unwrap();
    assert!(stuck.expr.contains("> 20.5 * rowlock_queue_wait_target_seconds"), "{}", stuck.expr);
    assert_eq!(stuck.duration.as_deref(), Some("1m"));
    assert_eq!((stuck.labels["severity"].as_str(), stuck.labels["team"].as_str()), ("page", "shop"));
    assert_eq!(stuck.annotations["runbook_url"], "https://wiki.example/alerts#rowlockqueuestuck");
    assert!(find("RowlockQueueLate").is_none());
    let early = find("RowlockPodsEndEarly").unwrap();
    assert!(early.expr.contains("> 1.2345678e+07 ") || early.expr.contains("> 12345678 "), "{}", early.expr);
    // Nothing but these two has changed.
    assert_eq!(groups.rules().count() + 1, RuleFile::read().unwrap().rules().count());
    check_rules(&serde_yaml::to_string(&groups).unwrap()).unwrap();
}

#[test]
fn alerts_without_the_prometheus_operator_are_refused_with_what_to_do() {
    let template = |more: &[&str]| {
        let task_queue =
            ["--set", "checkDefinition=true", "--api-versions", "rowlock.dev/v1alpha1/TaskQueue"];
        helm("template", "ops", "alerts: { enabled: true }", &[&task_queue, more].concat())
    };
    let output = template(&[]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && message.contains("install the Prometheus Operator first"),
        "{message}"
    );
    assert!(template(&["--api-versions", "monitoring.coreos.com/v1/PrometheusRule"]).status.success());
}

#[test]
fn dashboards_are_config_maps_that_grafanas_sidecar_finds() {
    let maps = of_kind(&objects("dashboards: { enabled: true, namespace: monitoring }"), "ConfigMap");
    let names: Vec<&Value> = maps.iter().map(|one| &one["metadata"]["name"]).collect();
    assert_eq!(names, ["rowlock-operator-dashboard-fleet", "rowlock-operator-dashboard-queue"]);
    for (map, file) in maps.iter().zip(["fleet.json", "queue.json"]) {
        let metadata = &map["metadata"];
        assert_eq!((&metadata["namespace"], &metadata["annotations"]), (&json!("monitoring"), &Value::Null));
        assert_eq!(metadata["labels"]["grafana_dashboard"], "1");
        // The braces of Grafana's legends are not Helm's.
        let file_text =
            std::fs::read_to_string(checkout().join("charts/rowlock/dashboards").join(file)).unwrap();
        assert_eq!(map["data"][format!("rowlock-{file}")], file_text.trim_end());
    }
    // With a link to the runbooks, after that to the other dashboard. Nothing else changes.
    let maps = of_kind(&objects(VALUES), "ConfigMap");
    let linked = maps[0]["data"]["rowlock-fleet.json"].as_str().unwrap();
    let mut linked: Value = serde_json::from_str(linked).unwrap();
    let link = linked["links"].as_array_mut().unwrap().pop().unwrap();
    assert_eq!((&link["type"], &link["url"]), (&json!("link"), &json!("https://wiki.example/alerts")));
    let file = std::fs::read_to_string(checkout().join("charts/rowlock/dashboards/fleet.json")).unwrap();
    assert_eq!(linked, serde_json::from_str::<Value>(&file).unwrap());
    assert_eq!(maps[0]["metadata"]["annotations"], json!({ "grafana_folder": "Rowlock" }));
    assert_eq!(of_kind(&objects("{}"), "ConfigMap"), Vec::<Value>::new(), "not by default");
}

#[test]
fn invalid_values_are_refused_with_their_name() {
    for (values, says) in [
        ("class: two words", "/class"),
        ("namespace: Shop", "/namespace"),
        ("{ namespace: shop, namespaces: [mail] }", "set only one of the three"),
        ("{ namespace: shop, rbac: { clusterWide: true } }", "set only one of the three"),
        ("workerResources: { limit: { cpu: 1 } }", "/workerResources"),
        ("workerResources: { limits: { memory: 96MB } }", "/workerResources/limits/memory"),
        ("workerImage: { pullSecrets: [{ name: a }] }", "/workerImage/pullSecrets/0"),
        ("podMonitor: { interval: soon }", "/podMonitor/interval"),
        ("dashboards: { runbookUrl: runbooks }", "/dashboards/runbookUrl"),
        ("dashboards: { labels: { grafana_dashboard: 1 } }", "/dashboards/labels/grafana_dashboard"),
        ("serviceAccount: { create: false }", "serviceAccount.name is required"),
        ("image: { digest: latest }", "/image/digest"),
        ("workerLabels: { a: 1 }", "/workerLabels/a"),
        ("workerTracing: { a: 1 }", "/workerTracing/a"),
        ("allowedDatabaseHosts: ['a b']", "/allowedDatabaseHosts/0"),
        ("refusedDatabaseHosts: ['10.0.0.0/240']", "/refusedDatabaseHosts/0"),
        (
            "{ rbac: { clusterWide: true }, workerNetworkPolicy: { enabled: true } }",
            "create a NetworkPolicy in each namespace yourself",
        ),
        ("logFormat: yaml", "/logFormat"),
        ("extraEnv: { A: b }", "/extraEnv"),
        ("podLabels: { a: 1 }", "/podLabels/a"),
        ("alerts: { thresholds: { stuck: 1 } }", "/alerts/thresholds"),
        ("alerts: { thresholds: { failedShare: 25 } }", "/alerts/thresholds/failedShare"),
        ("alerts: { thresholds: { deadTasks: many } }", "/alerts/thresholds/deadTasks"),
        ("alerts: { rules: { RowlockQueueLate: { for: soon } } }", "/alerts/rules/RowlockQueueLate/for"),
        ("alerts: { ruleLabels: { a-b: c } }", "/alerts/ruleLabels"),
        (
            "alerts: { enabled: true, rules: { Late: { enabled: false } } }",
            "there is no such alert; the names are",
        ),
        ("enable: true", "'enable' not allowed"),
    ] {
        let output = helm("template", "ops", values, &[]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains(says), "{values}: {message}");
    }
}
