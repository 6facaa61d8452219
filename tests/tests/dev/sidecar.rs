//! `rowlock sidecar`, and `rowlock dev` with the same manifest.

use crate::harness::Home;

const DATABASE: &str = "database: { secretRef: { name: shop-pg } }";

/// A folder whose queue names the Deployment `shop`.
fn home() -> Home {
    let home = Home::new();
    home.edit("spec:\n", &format!("spec:\n  targetRef: {{ name: shop }}\n  {DATABASE}\n"));
    home
}

#[test]
fn the_printed_patch_is_yaml_and_says_how_to_apply_it() {
    let home = home();
    let text = home.ok(&["sidecar", "-f", "mail.yaml", "--image", "registry/worker:7"]);
    assert!(text.contains("kubectl patch deployment shop --patch-file FILE"), "{text}");
    let patch: serde_json::Value = serde_yaml::from_str(&text).unwrap();
    assert_eq!(patch, home.json(&["sidecar", "-f", "mail.yaml", "--image", "registry/worker:7"]));
    assert_eq!(patch["metadata"]["labels"]["rowlock.dev/task-queue"], "mail");
    let pod = &patch["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "registry/worker:7");
    assert_eq!(pod["terminationGracePeriodSeconds"], 65);
    assert_eq!(pod["volumes"][0]["secret"]["secretName"], "shop-pg");
}

#[test]
fn a_manifest_without_a_target_or_a_database_is_a_usage_error_that_says_what_to_add() {
    let home = home();
    home.edit(DATABASE, "");
    let answer = home.run(&["sidecar", "-f", "mail.yaml"]);
    assert_eq!(answer.code, 2, "{answer:?}");
    assert!(answer.err.contains("spec.database is missing"), "{answer:?}");
    home.edit("targetRef: { name: shop }", "");
    let answer = home.run(&["sidecar", "-f", "mail.yaml"]);
    assert_eq!(answer.code, 2, "{answer:?}");
    assert!(
        answer.err.contains("spec.targetRef is missing") && answer.err.contains("add `targetRef"),
        "{answer:?}"
    );
}

#[test]
fn dev_runs_the_queue_and_says_that_nothing_scales_the_deployment() {
    let home = home();
    let output = home.dev().stop();
    let says = "in a cluster, this queue scales the Deployment shop; here nothing does";
    assert!(output.contains(says), "{output}");
}
