//! How manifests are read, with their defaults and errors.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use rowlock_crds::{
    Backoff, CanarySpec, Dur, Manifest, ManifestError, ScalingMode, Surge, TaskQueueSpec, parse_manifests,
};

const HEAD: &str = "apiVersion: rowlock.dev/v1alpha1\nkind: TaskQueue\n";

fn parse(text: &str) -> Result<Vec<Manifest>, Vec<ManifestError>> {
    parse_manifests(Path::new("q.yaml"), text)
}

/// The errors of a manifest with that spec. The spec is indented by two and starts on line 5.
fn spec_errors(spec: &str) -> String {
    errors(&format!("{HEAD}metadata: {{ name: emails }}\nspec:\n{spec}"))
}

fn errors(text: &str) -> String {
    let errors = parse(text).expect_err("the manifest is wrong");
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_small_manifest_gets_the_defaults() {
    let text = format!("{HEAD}metadata: {{ name: emails }}\nspec: {{ workers: {{ total: 3 }} }}\n");
    let manifests = parse(&text).unwrap();
    assert_eq!(manifests.len(), 1);
    assert_eq!(manifests[0].spec, TaskQueueSpec::with_workers(3));
    assert_eq!(manifests[0].queue_name(), "emails");
    assert_eq!(manifests[0].dev_command(), None);
    let spec = &manifests[0].spec;
    assert_eq!((spec.workers.per_pod, spec.handler.http.port), (10, 8080));
    assert_eq!(spec.handler.http.path, "/tasks");
    assert_eq!(spec.timeout.to_string(), "1m");
    assert_eq!(spec.cleanup.dead.to_string(), "7d");
    assert_eq!((spec.limits.backlog, spec.limits.payload_bytes), (1_000_000, 1_048_576));
    assert_eq!((spec.limits.max_delay.to_string().as_str(), spec.retry.max_snoozes), ("365d", None));
}

#[test]
fn every_field_is_read() {
    let text = include_str!("full.yaml");
    let manifests = parse(text).unwrap();
    let manifest = &manifests[0];
    assert_eq!((manifest.name.as_str(), manifest.queue_name()), ("mails", "emails"));
    assert_eq!(manifest.namespace.as_deref(), Some("shop"));
    assert_eq!(manifest.dev_command(), Some("python3 handler.py"));
    let spec = &manifest.spec;
    assert_eq!(spec.database.as_ref().unwrap().secret_ref.key, "uri");
    let ca = spec.database.as_ref().unwrap().ca_ref.as_ref().unwrap();
    assert_eq!((ca.kind.as_str(), ca.name.as_str(), ca.key.as_str()), ("ConfigMap", "shop-pg-ca", "ca.crt"));
    assert_eq!(spec.database.as_ref().unwrap().worker_secret_ref.as_ref().unwrap().key, "url");
    let limits = spec.worker.resources.limits.as_ref().unwrap();
    assert_eq!((limits["memory"].0.as_str(), limits["cpu"].0.as_str()), ("128Mi", "1"));
    assert_eq!(spec.rollout.max_surge, Surge::Percent(25));
    let canary = CanarySpec {
        share: Surge::Pods(2),
        min_runs: 9,
        min_time: Dur::from_secs(30),
        max_time: Dur::from_secs(3600),
        extra_failure_percent: 1,
        extra_duration_percent: 20,
    };
    assert_eq!(spec.rollout.canary, Some(canary));
    let autoscaling = spec.workers.autoscaling.as_ref().unwrap();
    assert_eq!((spec.workers.total, spec.workers.scaling, autoscaling.min), (40, Some(ScalingMode::Auto), 2));
    assert_eq!(Duration::from(autoscaling.wait_target), Duration::from_secs(7));
    let (initial, max) = (Dur::from_secs(1), Dur::from_secs(3600));
    assert_eq!(spec.retry.backoff, Backoff::Exponential { initial, factor: 3, max });
    assert_eq!(spec.retry.final_statuses, [400]);
    assert_eq!((spec.retry.max_snoozes, spec.limits.max_delay.to_string().as_str()), (Some(20), "30d"));
    assert!(spec.template.as_ref().unwrap().to_value().pointer("/spec/containers/0/image").is_some());
    assert!(spec.paused && spec.suspend_scaling);
    assert_eq!(manifest.line_of("spec.retry.final[0]"), 38);
    let written: TaskQueueSpec = serde_yaml::from_str(&serde_yaml::to_string(spec).unwrap()).unwrap();
    assert_eq!(&written, spec);
}

#[test]
fn other_kinds_and_empty_documents_are_skipped() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 1}]}\n";
    let queue = format!("{HEAD}metadata: {{ name: emails }}\nspec: {{ workers: {{ total: 3 }} }}\n");
    let text = format!("---\n# nothing\n---\n{service}---\n{queue}---\n");
    assert_eq!(parse(&text).unwrap().len(), 1);
    assert!(parse("").unwrap().is_empty());
    // Lines are counted through all documents.
    let wrong =
        format!("---\n{service}---\n{HEAD}metadata: {{ name: emails }}\nspec:\n  workers: {{ total: -1 }}\n");
    assert!(
        errors(&wrong).starts_with("q.yaml:11: spec.workers.total: is the number -1; "),
        "{}",
        errors(&wrong)
    );
}

/// Checks the speed: 3,000 documents took 23 s when each error was searched for from the beginning.
#[test]
fn a_file_of_thousands_of_wrong_documents_is_read_quickly() {
    let queue = format!("{HEAD}metadata: {{ name: Wrong }}\nspec: {{ workers: {{ total: 3 }} }}\n");
    let text = format!("# many\n---\n{}", vec![queue.as_str(); 3000].join("---\n"));
    let since = std::time::Instant::now();
    let errors = parse(&text).unwrap_err();
    // Each document also repeats the queue of the one before it.
    assert_eq!(errors.len(), 5999);
    assert_eq!((errors[0].line, errors[2999].line), (5, 2999 * 5 + 5));
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

#[test]
fn a_text_that_would_keep_the_parser_busy_is_refused() {
    let many = "---\na: 1\n".repeat(200_000);
    assert!(errors(&many).contains("the file has more than 10000 documents; split it"));
    for deep in ["[".repeat(100_000), "- ".repeat(100_000), format!("a: {}", "{a: ".repeat(100_000))] {
        assert_eq!(errors(&deep), "q.yaml:1: document: is nested more than 500 deep; reduce the nesting");
    }
    // As deep as a real template, with brackets inside a text.
    let text = format!("kind: ConfigMap\ndata: {{ a: '{}' }}\n", "[".repeat(400));
    assert_eq!(parse(&text), Ok(Vec::new()));
}

#[test]
fn unknown_names_with_our_prefix_are_refused() {
    let metadata = |metadata: &str| {
        format!("{HEAD}metadata:\n  name: emails\n  {metadata}\nspec: {{ workers: {{ total: 3 }} }}\n")
    };
    let known = "labels: { rowlock.dev/class: blue, team: a }\n  \
                 annotations: { rowlock.dev/adopt: c/a/b, other.dev/x: y }";
    assert_eq!(parse(&metadata(known)).unwrap()[0].labels["team"], "a");
    assert_eq!(
        errors(&metadata("annotations: { rowlock.dev/dev-comand: x }")),
        "q.yaml:5: metadata.annotations: `rowlock.dev/dev-comand` is unknown to this release; \
         did you mean `rowlock.dev/dev-command`?"
    );
    assert_eq!(
        errors(&metadata("labels: { rowlock.dev/priority: high }")),
        "q.yaml:5: metadata.labels: `rowlock.dev/priority` is unknown to this release; \
         remove it, or write one of: rowlock.dev/class"
    );
}

#[test]
fn an_error_of_serde_names_the_place_and_what_to_change() {
    let check = |spec: &str, expected: &str| assert_eq!(spec_errors(spec), expected, "{spec}");
    check(
        "  workers: {}\n",
        "q.yaml:5: spec.workers.total: is missing; \
         add it: a whole number from 0 to 10000, workers over all pods, such as `total: 10`",
    );
    check(
        "  paused: true\n",
        "q.yaml:4: spec.workers: is missing; \
         add it: a mapping with at least `total`, such as `workers: { total: 10 }`",
    );
    check(
        "  workers:\n    total: 1\n    perpod: 5\n",
        "q.yaml:7: spec.workers.perpod: is not a known field; did you mean `perPod`?",
    );
    check(
        "  workers:\n    total: 1\n    colour: 5\n",
        "q.yaml:7: spec.workers.colour: is not a known field; \
         remove it, or write one of: total, perPod, scaling, autoscaling, replicas",
    );
    check(
        "  workers:\n    total: ten\n",
        "q.yaml:6: spec.workers.total: is the string \"ten\"; \
         make it a whole number from 0 to 10000, workers over all pods, such as `total: 10`",
    );
    check(
        "  workers: { total: 1 }\n  timeout: 2 weeks\n",
        "q.yaml:6: spec.timeout: `2 weeks` is not a duration; \
         write whole numbers with units, such as 500ms, 15s, 1h30m or 7d",
    );
    check(
        "  workers: { total: 1 }\n  timeout: 60\n",
        "q.yaml:6: spec.timeout: `60` is not a duration; \
         write whole numbers with units, such as 500ms, 15s, 1h30m or 7d",
    );
    check(
        "  workers: { total: 1 }\n  paused: maybe\n",
        "q.yaml:6: spec.paused: is the string \"maybe\"; make it true or false",
    );
    check(
        "  workers: 5\n",
        "q.yaml:5: spec.workers: is the number 5; \
         make it a mapping with at least `total`, such as `workers: { total: 10 }`",
    );
    check(
        "  workers: { total: 1 }\n  retry:\n    jitterPercent: 300\n",
        "q.yaml:7: spec.retry.jitterPercent: is the number 300; make it a whole number from 0 to 100",
    );
    check(
        "  workers: { total: 1 }\n  workers: { total: 2 }\n",
        "q.yaml:5: spec.workers: is written twice; keep one of the two",
    );
}

#[test]
fn a_backoff_needs_exactly_one_form() {
    let check = |backoff: &str, expected: &str| {
        let spec = format!("  workers: {{ total: 1 }}\n  retry:\n    backoff:\n      {backoff}\n");
        assert_eq!(spec_errors(&spec), expected);
    };
    check(
        "linear: 10s",
        "q.yaml:8: spec.retry.backoff.linear: is not a known field; \
         remove it, or write one of: delays, exponential, fixed",
    );
    check("{}", "q.yaml:7: spec.retry.backoff: sets no backoff; set one of delays, exponential or fixed");
    check(
        "{ fixed: 1s, delays: [1s] }",
        "q.yaml:7: spec.retry.backoff: sets more than one backoff; keep one of delays, exponential or fixed",
    );
    check(
        "delays: [1s, 5x]",
        "q.yaml:8: spec.retry.backoff.delays[1]: `5x` is not a duration; \
         write whole numbers with units, such as 500ms, 15s, 1h30m or 7d",
    );
    check(
        "delays: []",
        "q.yaml:8: spec.retry.backoff.delays: is empty; write at least one delay, such as [15s]",
    );
    check(
        "exponential: { initial: 2h, max: 1h }",
        "q.yaml:8: spec.retry.backoff.exponential.max: is 1h, shorter than initial (2h); \
         make it at least as long as initial",
    );
}

#[test]
fn values_out_of_range_are_refused_all_at_once() {
    let spec = "
  workers:
    total: 10001
    perPod: 0
    autoscaling: { min: 20000, waitTarget: 0s }
  handler: { http: { port: 0, path: tasks } }
  retry:
    maxAttempts: 1001
    jitterPercent: 101
    final: [404, 200]
  timeout: 0s
  limits: { backlog: 0 }
  template: { spec: { containers: [{ name: main }] } }
";
    let expected = "
q.yaml:7: spec.workers.total: is 10001; \
make it a whole number from 0 to 10000, workers over all pods, such as `total: 10`
q.yaml:8: spec.workers.perPod: is 0; make it a whole number from 1 to 1000
q.yaml:9: spec.workers.autoscaling.min: is 20000, more than workers.total (10001); \
lower it, or raise workers.total
q.yaml:9: spec.workers.autoscaling.waitTarget: is zero; make it longer, such as 5s
q.yaml:10: spec.handler.http.port: is 0; make it a port from 1 to 65535
q.yaml:10: spec.handler.http.path: is `tasks`; write only a path, such as /tasks
q.yaml:17: spec.template.spec.containers: has no container `handler`; \
give this name to the container that runs the tasks
q.yaml:12: spec.retry.maxAttempts: is 1001; make it a whole number from 1 to 1000
q.yaml:13: spec.retry.jitterPercent: is 101; make it a whole number from 0 to 100
q.yaml:14: spec.retry.final[1]: is 200; use only statuses from 300 to 599
q.yaml:15: spec.timeout: is zero; make it longer, such as 60s
q.yaml:16: spec.limits.backlog: is 0; make it a number from 1 to 1000000000";
    assert_eq!(spec_errors(spec), expected.trim_start());
}

#[test]
fn names_must_fit_kubernetes_and_the_database() {
    let check = |name: &str, problem: &str| {
        let text = format!("{HEAD}metadata:\n  name: {name}\nspec: {{ workers: {{ total: 1 }} }}\n");
        let hint = "use at most 52 of a-z, 0-9 and `-`, not starting or ending with `-`";
        assert_eq!(errors(&text), format!("q.yaml:4: metadata.name: {problem}; {hint}"));
    };
    check("a.b", "has a dot");
    check("Emails", "has the character `E`");
    check("-a", "starts or ends with `-`");
    check("\"\"", "is empty");
    check(&"a".repeat(53), "has 53 characters");
}

#[test]
fn the_head_of_the_document_is_checked() {
    let check = |text: &str, expected: &str| assert_eq!(errors(text), expected);
    check(
        "kind: TaskQueue\napiVersion: rowlock.dev/v1\n",
        "q.yaml:2: apiVersion: is `rowlock.dev/v1`; write `apiVersion: rowlock.dev/v1alpha1`",
    );
    check("kind: TaskQueue\n", "q.yaml:1: apiVersion: is missing; write `apiVersion: rowlock.dev/v1alpha1`");
    check(
        "apiVersion: rowlock.dev/v1alpha1\nkind: Taskqueue\n",
        "q.yaml:2: kind: `Taskqueue` is not a kind of rowlock.dev; write `kind: TaskQueue`",
    );
    check("spec: {}\n", "q.yaml:1: kind: is missing; write `kind: TaskQueue`");
    check(
        &format!("{HEAD}spec: {{ workers: {{ total: 1 }} }}\n"),
        "q.yaml:1: metadata: is missing; add it: a mapping with at least a `name`",
    );
    check(
        &format!("{HEAD}metadata: {{ name: a }}\nspecs: {{ workers: {{ total: 1 }} }}\n"),
        "q.yaml:4: specs: is not a known field; did you mean `spec`?",
    );
}

#[test]
fn metadata_accepts_only_fields_of_kubernetes() {
    let check = |metadata: &str, expected: &str| {
        let text = format!("{HEAD}metadata:\n  name: a\n{metadata}spec: {{ workers: {{ total: 1 }} }}\n");
        assert_eq!(errors(&text), expected, "{metadata}");
    };
    check(
        "  annotation: { rowlock.dev/dev-command: ./handler }\n",
        "q.yaml:5: metadata.annotation: is not a known field; did you mean `annotations`?",
    );
    check(
        "  labels:\n    team: shop\n    team: other\n",
        "q.yaml:6: metadata.labels.team: is written twice; keep one of the two",
    );
    let printed = "  generation: 3\n  resourceVersion: '7'\n  uid: x\n  \
                   managedFields: [{}]\n  creationTimestamp: now\n";
    let text = format!("{HEAD}metadata:\n  name: a\n{printed}spec: {{ workers: {{ total: 1 }} }}\n");
    assert_eq!(parse(&text).unwrap().len(), 1);
}

#[test]
fn a_key_written_twice_in_the_template_is_refused() {
    let spec = "
  workers: { total: 1 }
  template:
    spec:
      containers:
        - name: handler
          image: one
          image: other
";
    assert_eq!(
        spec_errors(spec),
        "q.yaml:11: spec.template.spec.containers[0].image: is written twice; keep one of the two"
    );
}

#[test]
fn the_error_of_invalid_yaml_names_the_line() {
    let text = format!("{HEAD}metadata: {{ name: a }}\nspec:\n  workers: [1\n  timeout: 1s\n");
    let found = errors(&text);
    assert!(found.starts_with("q.yaml:6: document: is not valid YAML: "), "{found}");
    let found = errors("just some words\n");
    assert!(found.starts_with("q.yaml:1: document: "), "{found}");
}

#[test]
fn two_declarations_of_one_queue_are_refused() {
    let queue = |name: &str, spec: &str| {
        format!("{HEAD}metadata: {{ name: {name} }}\nspec:\n  workers: {{ total: 1 }}\n{spec}---\n")
    };
    let text = queue("emails", "") + &queue("mails", "  queueName: emails\n");
    assert_eq!(
        errors(&text),
        "q.yaml:12: spec.queueName: the queue `emails` is already declared at q.yaml:3; \
         give one of the two another name"
    );
    assert_eq!(parse(&(queue("a", "") + &queue("b", ""))).unwrap().len(), 2);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "\\PC*", tail in "[a-z:{}\\[\\],*& \\n-]{0,60}") {
        let _ = parse(&text);
        let _ = parse(&format!("{HEAD}{tail}"));
        let _ = parse(&format!("{HEAD}metadata: {{ name: a }}\nspec:\n  workers: {tail}"));
    }
}
