//! What a Deployment and its pods contain, for a spec.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rowlock_crds::{Manifest, TaskQueueSpec};
use serde_json::{Value, json};

use super::{Metadata, Owner, StringMap, WorkerImage, budget, deployment, hash_of};
use crate::kubernetes::deployment::last_applied::is_operator_change;
use crate::kubernetes::deployment::worker_resources;

const SPEC: &str = "
database: { secretRef: { name: shop-pg-app } }
workers: { total: 40, perPod: 20 }
timeout: 90s
template:
  metadata: { labels: { team: mail }, annotations: { a: b } }
  spec:
    serviceAccountName: mailer
    initContainers: [{ name: first, image: i }]
    containers:
      - { name: handler, image: emails:1, env: [{ name: A, value: b }] }
      - { name: proxy, image: proxy:1 }
    volumes: [{ name: mine, configMap: { name: c } }]
";

fn image() -> WorkerImage {
    let resources = worker_resources::parse(worker_resources::DEFAULT).unwrap();
    let (image, labels, tracing) = ("worker:1".into(), StringMap::new(), StringMap::new());
    WorkerImage { image, pull_policy: None, pull_secrets: Vec::new(), resources, labels, tracing }
}

fn owner() -> Owner {
    let texts = |name: &str| [(name.to_owned(), "x".to_owned())].into();
    Owner {
        namespace: "shop".into(),
        name: "emails".into(),
        uid: "u1".into(),
        generation: "3".into(),
        labels: texts("team"),
        annotations: texts("example.com/contact"),
    }
}

fn built_from(spec: &str, image: &WorkerImage) -> Value {
    let spec: TaskQueueSpec = serde_yaml::from_str(spec).unwrap();
    deployment(&owner(), &Manifest::new("emails", spec), 2, image)
}

fn built(spec: &str) -> Value {
    built_from(spec, &image())
}

fn pod(spec: &str) -> Value {
    built(spec)["spec"]["template"]["spec"].clone()
}

fn names(containers: &Value) -> Vec<&str> {
    containers.as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect()
}

fn env<'a>(container: &'a Value, name: &str) -> &'a Value {
    container["env"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()
}

#[test]
fn the_worker_is_the_only_main_container_and_the_handler_the_last_sidecar() {
    let pod = pod(SPEC);
    assert_eq!(names(&pod["containers"]), ["worker"]);
    assert_eq!(names(&pod["initContainers"]), ["first", "proxy", "handler"]);
    let restarts = |index: usize| pod["initContainers"][index]["restartPolicy"].clone();
    assert_eq!([restarts(0), restarts(1), restarts(2)], [json!(null), json!("Always"), json!("Always")]);
}

#[test]
fn the_handler_keeps_the_fields_of_its_template_and_gets_its_port() {
    let handler = pod(SPEC)["initContainers"][2].clone();
    assert_eq!((&handler["image"], &env(&handler, "A")["value"]), (&json!("emails:1"), &json!("b")));
    assert_eq!(env(&handler, "PORT")["value"], "8080");
    assert_eq!(handler["securityContext"]["allowPrivilegeEscalation"], false);
    let own = SPEC
        .replace("value: b }]", "value: b }, { name: PORT, value: '1' }], securityContext: { runAsUser: 5 }");
    let handler = pod(&own)["initContainers"][2].clone();
    assert_eq!(handler["securityContext"]["runAsUser"], 5);
    assert_eq!(handler["env"].as_array().unwrap().len(), 2);
}

/// Before, sidecars and init containers of the template could read the traffic of the worker.
#[test]
fn no_container_of_the_template_can_read_the_traffic_of_the_worker() {
    let pod = pod(SPEC);
    for container in pod["initContainers"].as_array().unwrap() {
        let capabilities = &container["securityContext"]["capabilities"];
        assert_eq!(capabilities, &json!({ "drop": ["NET_RAW"] }), "{container}");
    }
}

#[test]
fn the_secret_is_a_file_in_the_worker_only() {
    let pod = pod(SPEC);
    let worker = &pod["containers"][0];
    let mount =
        json!([{ "name": "rowlock-database", "mountPath": "/var/run/rowlock/database", "readOnly": true }]);
    assert_eq!(worker["volumeMounts"], mount);
    assert_eq!(env(worker, "ROWLOCK_DATABASE_URL_FILE")["value"], "/var/run/rowlock/database/url");
    let secret = json!({ "secretName": "shop-pg-app", "items": [{ "key": "uri", "path": "url" }] });
    assert_eq!(pod["volumes"][1], json!({ "name": "rowlock-database", "secret": secret }));
    assert_eq!(
        (pod["volumes"][0]["name"].clone(), pod["initContainers"][2]["volumeMounts"].clone()),
        (json!("mine"), json!(null))
    );
}

#[test]
fn certificates_and_the_pods_own_secret_are_files_in_one_folder() {
    let more = "secretRef: { name: shop-pg-app }, caRef: { kind: ConfigMap, name: shop-ca }, \
                workerSecretRef: { name: shop-worker, key: url }";
    let spec = SPEC.replace("secretRef: { name: shop-pg-app }", more);
    let pod = pod(&spec);
    let sources = json!([
        { "secret": { "name": "shop-worker", "items": [{ "key": "url", "path": "url" }] } },
        { "configMap": { "name": "shop-ca", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
    ]);
    assert_eq!(pod["volumes"][1], json!({ "name": "rowlock-database", "projected": { "sources": sources } }));
    assert_eq!(
        env(&pod["containers"][0], "ROWLOCK_DATABASE_CA_FILE")["value"],
        "/var/run/rowlock/database/ca.crt"
    );
    assert!(!pod.to_string().contains("shop-pg-app"), "the owner's password is in no pod");
}

/// Before, a policy that requires a label on each Deployment could not be met.
#[test]
fn objects_inherit_labels_and_annotations_of_their_task_queue() {
    let platform = [("team", "platform"), ("cost-centre", "4711")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    let image = WorkerImage { labels: platform.into(), ..image() };
    for object in [built_from(SPEC, &image), budget(&owner(), &image)] {
        let metadata = &object["metadata"];
        assert_eq!(
            (&metadata["labels"]["team"], &metadata["labels"]["cost-centre"]),
            (&json!("x"), &json!("4711"))
        );
        assert_eq!(metadata["annotations"]["example.com/contact"], "x");
        assert_eq!(metadata["labels"]["app.kubernetes.io/managed-by"], "rowlock-operator");
    }
    // For pods, the template overrides both.
    let labels = built_from(SPEC, &image)["spec"]["template"]["metadata"]["labels"].clone();
    assert_eq!((&labels["team"], &labels["cost-centre"]), (&json!("mail"), &json!("4711")));
}

#[test]
fn pods_go_to_nodes_that_run_the_workers_image() {
    assert_eq!(pod(SPEC)["nodeSelector"], json!({ "kubernetes.io/os": "linux" }));
    let own = SPEC.replace("serviceAccountName: mailer", "nodeSelector: { kubernetes.io/arch: arm64 }");
    let both = json!({ "kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64" });
    assert_eq!(pod(&own)["nodeSelector"], both);
}

#[test]
fn a_rollout_adds_as_many_pods_as_the_task_queue_allows() {
    let surge = |more: &str| {
        built(&format!("{SPEC}\n{more}"))["spec"]["strategy"]["rollingUpdate"]["maxSurge"].clone()
    };
    assert_eq!(surge("rollout: { maxSurge: 25% }"), "25%");
    assert_eq!(surge("rollout: { maxSurge: 3 }"), 3);
}

#[test]
fn the_worker_is_restricted_and_gets_its_configuration() {
    let worker = pod(SPEC)["containers"][0].clone();
    let context = &worker["securityContext"];
    assert_eq!((&context["runAsNonRoot"], &context["readOnlyRootFilesystem"]), (&json!(true), &json!(true)));
    assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
    for (name, value) in [
        ("ROWLOCK_QUEUE", "emails"),
        ("ROWLOCK_SLOTS", "20"),
        ("ROWLOCK_HANDLER_URL", "http://127.0.0.1:8080/tasks"),
        ("ROWLOCK_DRAIN_GRACE", "1m30s"),
        ("ROWLOCK_LISTEN", "[::]:19464"),
    ] {
        assert_eq!(env(&worker, name)["value"], value, "{name}");
    }
    for (name, path) in [("ROWLOCK_INSTANCE_NAME", "metadata.name"), ("ROWLOCK_POD_UID", "metadata.uid")] {
        assert_eq!(env(&worker, name)["valueFrom"]["fieldRef"]["fieldPath"], path);
    }
    assert!(worker["resources"]["requests"]["memory"].is_string());
}

#[test]
fn grace_follows_the_timeout_unless_the_template_asks_for_more() {
    let grace = |spec: &str| pod(spec)["terminationGracePeriodSeconds"].clone();
    assert_eq!(grace(SPEC), 95);
    let longer = SPEC.replace("serviceAccountName: mailer", "terminationGracePeriodSeconds: 600");
    assert_eq!(grace(&longer), 600);
    let shorter = SPEC.replace("serviceAccountName: mailer", "terminationGracePeriodSeconds: 5");
    assert_eq!(grace(&shorter), 95);
}

#[test]
fn a_deployment_says_what_it_was_made_from() {
    let annotations = |spec: &str| built(spec)["metadata"]["annotations"].clone();
    let (first, more) = (annotations(SPEC), annotations(&SPEC.replace("total: 40", "total: 50")));
    assert_eq!(
        (&first["rowlock.dev/generation"], &first["rowlock.dev/rollout-slot"]),
        (&json!("3"), &json!(null))
    );
    assert_eq!(first["rowlock.dev/template-hash"], more["rowlock.dev/template-hash"]);
    let other = annotations(&SPEC.replace("emails:1", "emails:2"));
    assert_ne!(first["rowlock.dev/template-hash"], other["rowlock.dev/template-hash"]);
    let mut marked = built(SPEC);
    super::mark_rollout_slot(&mut marked, "ready");
    assert_eq!(marked["metadata"]["annotations"]["rowlock.dev/rollout-slot"], "ready");
    assert_ne!(hash_of(&marked), hash_of(&built(SPEC)));
}

#[test]
fn pods_get_no_token_unless_the_template_asks_for_one() {
    let pod = pod(SPEC);
    assert_eq!(
        (&pod["automountServiceAccountToken"], &pod["serviceAccountName"]),
        (&json!(false), &json!("mailer"))
    );
    assert!(!pod.to_string().contains("emptyDir"));
}

#[test]
fn a_handler_on_the_workers_port_moves_the_worker() {
    let spec = format!("{SPEC}\nhandler: {{ http: {{ port: 19464 }} }}");
    let worker = pod(&spec)["containers"][0].clone();
    assert_eq!(env(&worker, "ROWLOCK_LISTEN")["value"], "[::]:19465");
    assert_eq!(worker["ports"][0]["containerPort"], 19465);
}

#[test]
fn pods_tell_injectors_which_container_is_the_handler_and_when_to_start() {
    let annotations = built(SPEC)["spec"]["template"]["metadata"]["annotations"].clone();
    for (name, value) in [
        ("sidecar.istio.io/nativeSidecar", "true"),
        ("config.beta.linkerd.io/proxy-enable-native-sidecar", "true"),
        ("instrumentation.opentelemetry.io/container-names", "handler"),
        ("vault.hashicorp.com/agent-init-first", "true"),
    ] {
        assert_eq!(annotations[name], value, "{name}");
    }
}

#[test]
fn pods_are_selected_by_our_labels_and_keep_their_own() {
    let built = built(SPEC);
    let metadata = &built["spec"]["template"]["metadata"];
    assert_eq!(metadata["labels"]["team"], "mail");
    for (label, value) in built["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&metadata["labels"][label], value);
    }
    assert_eq!(
        (&metadata["annotations"]["a"], &metadata["annotations"]["sidecar.istio.io/nativeSidecar"]),
        (&json!("b"), &json!("true"))
    );
    assert_eq!(metadata["annotations"]["kubectl.kubernetes.io/default-container"], "handler");
    assert_eq!(built["spec"]["strategy"]["rollingUpdate"], json!({ "maxUnavailable": 0, "maxSurge": "10%" }));
    assert_eq!(built["metadata"]["ownerReferences"][0]["uid"], "u1");
}

#[test]
fn the_worker_gets_the_resources_that_the_platform_gives_it() {
    let resources = worker_resources::parse(r#"{"limits":{"cpu":1,"memory":"96Mi"}}"#).unwrap();
    let pod = built_from(SPEC, &WorkerImage { resources, ..image() })["spec"]["template"]["spec"].clone();
    assert_eq!(pod["containers"][0]["resources"], json!({ "limits": { "cpu": "1", "memory": "96Mi" } }));
    assert_eq!(pod["initContainers"][2]["resources"], json!(null));
}

#[test]
fn pull_secrets_of_the_worker_come_after_those_of_the_template_and_each_once() {
    let secrets = |spec: &str, names: &[&str]| {
        let pull_secrets = names.iter().map(|name| (*name).to_owned()).collect();
        let image = WorkerImage { pull_secrets, ..image() };
        built_from(spec, &image)["spec"]["template"]["spec"]["imagePullSecrets"].clone()
    };
    assert_eq!(secrets(SPEC, &[]), json!(null));
    assert_eq!(secrets(SPEC, &["a", "b", "a"]), json!([{ "name": "a" }, { "name": "b" }]));
    let own = SPEC.replace("serviceAccountName: mailer", "imagePullSecrets: [{ name: b }, { name: mine }]");
    assert_eq!(secrets(&own, &["a", "b"]), json!([{ "name": "b" }, { "name": "mine" }, { "name": "a" }]));
}

#[test]
fn other_resources_or_pull_secrets_are_a_change_by_the_operator() {
    let resources = worker_resources::parse("{}").unwrap();
    let live: ObjectMeta = serde_json::from_value(built(SPEC)["metadata"].clone()).unwrap();
    let live = Metadata::from(live);
    assert!(!is_operator_change(&live, &built(SPEC)));
    assert!(is_operator_change(&live, &built_from(SPEC, &WorkerImage { resources, ..image() })));
    let pull_secrets = vec!["a".into()];
    assert!(is_operator_change(&live, &built_from(SPEC, &WorkerImage { pull_secrets, ..image() })));
}

#[test]
fn fields_that_this_release_does_not_know_are_left_to_the_server() {
    let spec = SPEC.replace("serviceAccountName: mailer", "aFieldOfTomorrow: { x: 1 }");
    assert_eq!(pod(&spec)["aFieldOfTomorrow"], json!({ "x": 1 }));
}

#[test]
fn the_hash_changes_only_with_the_content() {
    assert_eq!(hash_of(&built(SPEC)), hash_of(&built(SPEC)));
    assert_ne!(hash_of(&built(SPEC)), hash_of(&built(&SPEC.replace("emails:1", "emails:2"))));
    assert_ne!(hash_of(&budget(&owner(), &image())), "");
}
