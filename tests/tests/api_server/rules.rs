//! Manifests that are refused when they are applied, and the messages. `rowlock dev` refuses the same ones.

use std::path::Path;
use std::time::Duration;

use rowlock_crds::{Dur, MAX_RETRY_DELAY, parse_manifests};

use crate::kubectl::{kubectl_with, namespace, ok};
use crate::table::{Case, manifest, table};

/// The errors of Rust, one line each.
fn rust(manifest: &str) -> String {
    let errors = parse_manifests(Path::new("q.yaml"), manifest).err().unwrap_or_default();
    let lines: Vec<String> = errors.iter().map(|error| error.error.to_string()).collect();
    lines.join("\n")
}

/// The API server's errors for the manifests that it refuses, in order, and the number that it accepts.
fn api(manifests: &[String]) -> (Vec<String>, usize) {
    let message = kubectl_with(&["create", "--dry-run=server", "-f", "-"], &manifests.join("---\n"));
    let refusals = message.err.lines().map(bare).collect();
    (refusals, message.out.lines().filter(|line| line.contains(" created ")).count())
}

/// An error without the text that kubectl adds, and without the note about unchecked rules.
fn bare(line: &str) -> String {
    const NOTE: &str = ", <nil>: Invalid value: null: some validation rules were not checked because the \
        object \
                        was invalid; correct the existing errors to complete validation]";
    let around = ["is invalid: ", "cannot be handled as a TaskQueue: "];
    let text = around.iter().find_map(|around| line.split_once(around)).map_or(line, |(_, text)| text);
    text.replace(NOTE, "]")
}

/// The API server's errors according to the table.
fn expected(case: &Case, message: &str) -> String {
    let lines: Vec<&str> = case.api.lines().collect();
    // kubectl puts brackets around several errors, and around one with the note.
    if lines.len() > 1 || message.starts_with('[') {
        format!("[{}]", lines.join(", "))
    } else {
        lines.concat()
    }
}

fn assert_refused(cases: &[Case]) {
    let manifests: Vec<String> = cases.iter().map(Case::manifest).collect();
    let (refusals, accepted) = api(&manifests);
    for ((case, manifest), message) in cases.iter().zip(&manifests).zip(&refusals) {
        assert_eq!(*message, expected(case, message), "{manifest}");
    }
    assert_eq!((refusals.len(), accepted), (cases.len(), 0));
}

fn assert_accepted(manifests: &[String]) {
    assert_eq!(api(manifests), (Vec::new(), manifests.len()));
}

#[test]
fn dev_and_cluster_accept_the_same_manifests() {
    let manifests: Vec<String> = table().accepted.iter().map(|spec| manifest(spec)).collect();
    for manifest in &manifests {
        assert_eq!(rust(manifest), "", "{manifest}");
    }
    assert_accepted(&manifests);
}

#[test]
fn an_error_says_what_to_change_in_dev_and_cluster() {
    let cases = table().refused;
    for case in &cases {
        assert_eq!(rust(&case.manifest()), case.rust, "{}", case.manifest());
    }
    assert_refused(&cases);
}

#[test]
fn a_cluster_requires_fields_that_dev_provides() {
    let cases = table().cluster;
    for case in &cases {
        assert_eq!(rust(&case.manifest()), "", "{}", case.manifest());
    }
    assert_refused(&cases);
}

#[test]
fn dev_refuses_manifests_that_kubernetes_would_repair() {
    let cases = table().dev;
    for case in &cases {
        assert_eq!(rust(&case.manifest()), case.rust, "{}", case.manifest());
    }
    assert_accepted(&cases.iter().map(Case::manifest).collect::<Vec<_>>());
}

#[test]
fn the_manifests_of_the_documentation_are_accepted() {
    let page = include_str!("../../../docs/kubernetes.md");
    let block = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(rust(block), "");
    // Its namespace need not exist.
    let block = block.replace("  namespace: shop\n", "");
    let full = include_str!("../../../crds/tests/contract/full.yaml").replace("  namespace: shop\n", "");
    assert_accepted(&[block, full]);
}

/// KEDA does not run here: like a `HorizontalPodAutoscaler`, it reads and writes the scale subresource.
#[test]
fn the_autoscalers_of_the_documentation_scale_its_task_queue() {
    let page = include_str!("../../../docs/kubernetes.md");
    let section = page.split("## Who scales").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let blocks: Vec<&str> = section.split("\n```").skip(1).step_by(2).collect();
    let bodies: Vec<&str> = blocks.iter().map(|block| block.split_once('\n').unwrap().1).collect();
    let [queue, hpa, keda] = bodies[..] else { panic!("{blocks:?}") };
    assert_eq!(rust(queue), "");
    let read = |text: &str| serde_yaml::from_str::<serde_json::Value>(text).unwrap();
    let (queue, hpa, keda) = (read(queue), read(hpa), read(keda));
    let namespace = namespace("autoscalers");
    ok(&["create", "-n", &namespace, "-f", "-"], &queue.to_string());
    ok(&["create", "-n", &namespace, "-f", "-"], &hpa.to_string());
    for autoscaler in [hpa, keda] {
        let target = &autoscaler["spec"]["scaleTargetRef"];
        let names = (&target["apiVersion"], &target["kind"], &target["name"]);
        assert_eq!(names, (&queue["apiVersion"], &queue["kind"], &queue["metadata"]["name"]));
    }
    let scale = format!("/apis/rowlock.dev/v1alpha1/namespaces/{namespace}/taskqueues/emails/scale");
    ok(&["scale", "tq/emails", "-n", &namespace, "--replicas=1"], "");
    let read = ok(&["get", "--raw", &scale], "").replace("\"replicas\":1", "\"replicas\":4");
    ok(&["replace", "--raw", &scale, "-f", "-"], &read);
    assert!(ok(&["get", "--raw", &scale], "").contains("\"replicas\":4"));
}

#[test]
fn lists_and_strings_have_the_same_limits_in_dev_and_cluster() {
    let list = |item: &str, count: usize| vec![item; count].join(", ");
    let containers = |count: usize| {
        let others: Vec<String> = (1..count).map(|index| format!("{{ name: c{index} }}")).collect();
        format!("template: {{ spec: {{ containers: [{{ name: handler }}, {}] }} }}", others.join(", "))
    };
    let delays = |count| format!("retry: {{ backoff: {{ delays: [{}] }} }}", list("365d", count));
    let statuses = |count| format!("retry: {{ final: [{}] }}", list("404", count));
    let path = |length: usize| format!("handler: {{ http: {{ path: /{} }} }}", "p".repeat(length - 1));
    let secret = |length: usize| format!("database: {{ secretRef: {{ name: {} }} }}", "s".repeat(length));
    let at =
        [containers(100), delays(100), statuses(300), path(1024), secret(253)].map(|spec| manifest(&spec));
    for manifest in &at {
        assert_eq!(rust(manifest), "");
    }
    assert_accepted(&at);
    let past =
        [containers(101), delays(101), statuses(301), path(1025), secret(254)].map(|spec| manifest(&spec));
    for manifest in &past {
        assert_ne!(rust(manifest), "");
    }
    let (refusals, accepted) = api(&past);
    assert_eq!((refusals.len(), accepted), (5, 0));
    for (message, why) in refusals.iter().zip(["Too many", "Too many", "Too many", "Too long", "Too long"]) {
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn dev_and_cluster_accept_the_same_durations() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..5 {
        let texts: Vec<String> = std::iter::repeat_with(|| any_duration(&mut random)).take(100).collect();
        let spec = format!("retry: {{ backoff: {{ delays: {texts:?} }} }}");
        let (refusals, _) = api(&[manifest(&spec)]);
        for (index, text) in texts.iter().enumerate() {
            let sound = text.parse::<Dur>().is_ok_and(|dur| Duration::from(dur) <= MAX_RETRY_DELAY);
            let blamed = refusals.concat().contains(&format!("spec.retry.backoff.delays[{index}]: "));
            assert_ne!(sound, blamed, "{text:?} (seed {seed})");
        }
    }
}

/// One to four parts, most of them valid, at most 32 characters, about half of them within the limit.
fn any_duration(random: &mut fastrand::Rng) -> String {
    let mut text = String::new();
    for _ in 0..random.usize(1..=4) {
        let unit = *random.choice(["ms", "s", "m", "h", "d", "d", "", "w", "sm"].iter()).unwrap();
        let digits = random.usize(0..=13);
        let number: String = std::iter::repeat_with(|| random.digit(10)).take(digits).collect();
        let part = if random.u8(..) < 128 { format!("{}{unit}", random.u32(0..400)) } else { number + unit };
        if text.len() + part.len() <= 32 {
            text += &part;
        }
    }
    text
}
