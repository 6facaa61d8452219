use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::SignedDuration;
use rowlock_crds::{labels, parse_manifests};
use rowlock_plan::Runs;
use serde_json::Value;

use super::*;
use crate::kubernetes::api::kept::Pod;
use crate::kubernetes::deployment::scale_in::candidates;

const CANARY: &str = "rollout: { canary: {} }";

fn manifest(image: &str, more: &str) -> Manifest {
    let text = format!(
        "{{ apiVersion: rowlock.dev/v1alpha1, kind: TaskQueue, metadata: {{ name: emails }}, spec: {{ \
         workers: {{ total: 40 }}, {more}, \
         template: {{ spec: {{ containers: [{{ name: handler, image: {image} }}] }} }} }} }}"
    );
    parse_manifests("file".as_ref(), &text).unwrap().remove(0)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_secs(seconds)
}

fn pods(all: &[(&str, &str, bool)]) -> Vec<Candidate> {
    let pod = |(name, template, ready): &(&str, &str, bool)| {
        let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "uid": "r", "controller": true,
            "name": format!("emails-{template}") });
        let labels = json!({ "pod-template-hash": template, labels::TASK_QUEUE: "emails" });
        let metadata = json!({ "name": name, "uid": name, "labels": labels, "ownerReferences": [owner] });
        let status = json!({ "conditions": [
            { "type": "Ready", "status": if *ready { "True" } else { "False" } }
        ] });
        Arc::new(serde_json::from_value::<Pod>(json!({ "metadata": metadata, "status": status })).unwrap())
    };
    candidates(&all.iter().map(pod).collect::<Vec<_>>(), "emails")
}

/// The live Deployment with the old template `old`, and this canary.
fn live(old: &Manifest, record: Option<&CanaryRecord>) -> Metadata {
    let mut annotations = json!({ annotations::TEMPLATE_SOURCE: TemplateSource::of(&old.spec).text() });
    if let Some(record) = record {
        annotations[annotations::CANARY] = Value::from(record.text());
    }
    Metadata::from(serde_json::from_value::<ObjectMeta>(json!({ "annotations": annotations })).unwrap())
}

fn begun(manifest: &Manifest, before: Option<&CanaryRecord>, all: &[(&str, &str, bool)]) -> CanaryRecord {
    begin(manifest, before, &pods(all), false, at(0)).expect("old pods are ready")
}

#[test]
fn the_annotations_say_how_far_a_canary_is() {
    let (old, new) = (manifest("a:1", CANARY), manifest("a:2", CANARY));
    let running = begun(&new, None, &[("p", "h1", true)]);
    let mut failed = running.clone();
    failed.fail("it fails".to_owned(), (std::iter::empty(), &Compared::default()));
    let known =
        |manifest: &Manifest, record: Option<&CanaryRecord>| known(Some(&live(&old, record)), manifest);
    assert_eq!(known(&old, None), Known::None, "nothing has changed");
    assert_eq!(known(&new, None), Known::Changed { before: None });
    assert_eq!(known(&manifest("a:2", "paused: false"), None), Known::None, "no canary is asked for");
    assert_eq!(known(&new, Some(&running)), Known::Running(running.clone()));
    assert_eq!(known(&new, Some(&failed)), Known::Failed(failed.clone()));
    // Other changes of the TaskQueue do not matter to either.
    let more = manifest("a:2", &format!("{CANARY}, paused: true, cleanup: {{ dead: 1d }}"));
    assert_eq!(known(&more, Some(&running)), Known::Running(running.clone()));
    assert_eq!(known(&more, Some(&failed)), Known::Failed(failed.clone()));
    // A third template, and the first one again.
    let third = manifest("a:3", CANARY);
    assert_eq!(known(&third, Some(&running)), Known::Changed { before: Some(running.clone()) });
    assert_eq!(known(&third, Some(&failed)), Known::Changed { before: Some(failed.clone()) });
    assert_eq!(known(&old, Some(&running)), Known::None);
    // Other terms try the same template again; a running canary goes on with them.
    let terms = manifest("a:2", "rollout: { canary: { extraFailurePercent: 90 } }");
    assert_eq!(known(&terms, Some(&failed)), Known::Changed { before: Some(failed) });
    assert_eq!(known(&terms, Some(&running)), Known::Running(running));
    let nonsense = serde_json::from_value::<ObjectMeta>(json!({ "annotations": {
        annotations::TEMPLATE_SOURCE: "{", annotations::CANARY: "[]"
    } }));
    assert_eq!(super::known(Some(&nonsense.unwrap().into()), &new), Known::None);
    assert_eq!(super::known(None, &new), Known::None);
}

#[test]
fn the_old_template_can_be_made_again() {
    let old = manifest("a:1", "timeout: 5m, handler: { http: { port: 9000 } }");
    let new = manifest("a:2", &format!("{CANARY}, paused: true"));
    let made = old_manifest(Some(&live(&old, None)), &new).unwrap();
    assert_eq!(made.spec.template, old.spec.template);
    assert_eq!((made.spec.timeout, made.spec.handler.http.port), (old.spec.timeout, 9000));
    // The rest is as it is now.
    assert!(made.spec.paused && made.spec.rollout.canary.is_some());
    assert_eq!(old_manifest(None, &new), None);
}

#[test]
fn a_template_that_is_too_long_is_not_kept() {
    let long = manifest(&"x".repeat(70_000), CANARY);
    assert_eq!(TemplateSource::of(&long.spec).text(), None);
}

#[test]
fn a_canary_needs_a_ready_pod_to_be_compared_with() {
    let new = manifest("a:2", CANARY);
    let begins = |all: &[_]| begin(&new, None, &pods(all), false, at(0)).is_some();
    assert!(!begins(&[]));
    assert!(!begins(&[("p", "h1", false)]));
    assert!(begins(&[("p", "h1", false), ("q", "h1", true)]));
    // Without the database no pod is ready.
    assert!(begin(&new, None, &pods(&[("p", "h1", false)]), true, at(0)).is_some());
    assert!(begin(&new, None, &pods(&[]), true, at(0)).is_none());
    assert!(
        begin(&manifest("a:2", "paused: false"), None, &pods(&[("p", "h1", true)]), false, at(0)).is_none()
    );
}

#[test]
fn the_pods_of_an_abandoned_canary_are_neither_old_nor_new() {
    let (second, third) = (manifest("a:2", CANARY), manifest("a:3", CANARY));
    let first = begun(&second, None, &[("p", "h1", true)]);
    assert!(first.is_old("h1") && first.is_new("h2") && !first.is_old("h2"));
    let next = begun(&third, Some(&first), &[("p", "h1", true), ("c", "h2", true)]);
    assert!(next.is_old("h1") && next.is_new("h3"));
    assert!(!next.is_old("h2") && !next.is_new("h2"));
    // Only they would be left: nothing to compare with.
    assert!(begin(&third, Some(&first), &pods(&[("c", "h2", true)]), false, at(0)).is_none());
    // After a failed one, a release of the operator may have replaced the old pods.
    let mut failed = first;
    let seen = ["h1", "h2"].map(str::to_owned).into_iter();
    failed.fail("it fails".to_owned(), (seen, &Compared::default()));
    let next = begun(&third, Some(&failed), &[("p", "h4", true), ("c", "h2", true)]);
    assert!(next.is_old("h4") && !next.is_old("h2") && !next.is_new("h2"));
}

#[test]
fn runs_are_added_up_every_two_minutes() {
    let mut record = begun(&manifest("a:2", CANARY), None, &[("p", "h1", true)]);
    let window = |new: u64, old: u64| {
        let runs = |completed| Runs { completed, ..Runs::default() };
        Compared { new: runs(new), old: runs(old) }
    };
    let count = |record: &mut CanaryRecord, new, old, counts, seconds| {
        // The next leader reads it from the annotation.
        *record = CanaryRecord::parse(&record.text()).unwrap();
        let (watched, total) = record.count(window(new, old), counts, at(seconds));
        (watched.as_secs(), total.new.completed, total.old.completed)
    };
    assert_eq!(count(&mut record, 0, 100, false, 30), (0, 0, 100), "no pod of it is ready");
    assert_eq!(record.unready_for(at(30)), Duration::from_secs(30));
    assert_eq!(count(&mut record, 0, 100, true, 40), (0, 0, 100));
    assert_eq!(record.unready_for(at(50)), Duration::ZERO);
    assert_eq!(count(&mut record, 5, 110, true, 100), (60, 5, 110));
    assert_eq!(count(&mut record, 10, 120, true, 160), (120, 10, 120));
    // The window goes on; its runs count again when it is a new one.
    assert_eq!(count(&mut record, 12, 130, true, 220), (180, 10, 120));
    assert_eq!(count(&mut record, 11, 125, true, 280), (240, 21, 245));
    // A paused queue does not count, and neither does the time without a leader.
    assert_eq!(count(&mut record, 3, 3, false, 400), (240, 21, 245));
    assert_eq!(count(&mut record, 3, 3, true, 460), (300, 21, 245));
    assert_eq!(count(&mut record, 1, 2, true, 9000), (360, 22, 247));
}
