//! The pods of a queue that the cluster has no room for. No I/O.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::kubernetes::api::kept::{Deployment, Pod};
use crate::kubernetes::pods::status::{condition, has_ended, since};

/// How long to wait for room on a node: longer than autoscalers usually take to add a node. As long as
/// [`share`](rowlock_plan::share) waits for a first pod.
const PATIENCE: Duration = Duration::from_mins(3);

/// How many of the `wanted` pods no node fits, or the API server refuses to create, and have not for minutes.
/// The times are those of the conditions, so that a new leader knows them too.
pub(crate) fn unplaced(
    pods: &[Arc<Pod>],
    deployment: Option<&Deployment>,
    wanted: u32,
    now: Timestamp,
) -> u32 {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let there = pods.iter().filter(|pod| !has_ended(pod));
    let refused =
        if refuses(deployment, now) { wanted.saturating_sub(count(there.clone().count())) } else { 0 };
    refused.saturating_add(count(there.filter(|pod| fits_no_node(pod, now)).count()))
}

fn fits_no_node(pod: &Pod, now: Timestamp) -> bool {
    condition(pod, "PodScheduled").is_some_and(|scheduled| {
        scheduled.status == "False" && scheduled.since.is_some_and(|then| since(then, now) >= PATIENCE)
    })
}

/// Whether the API server refuses to create pods of the Deployment, because of a quota or a policy.
fn refuses(deployment: Option<&Deployment>, now: Timestamp) -> bool {
    let status = deployment.and_then(|deployment| deployment.status.as_ref());
    status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|one| {
        let since = one.last_transition_time.as_ref().map(|then| since(then.0, now));
        one.type_ == "ReplicaFailure" && one.status == "True" && since.is_some_and(|since| since >= PATIENCE)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Three minutes after `EARLY`.
    const NOW: &str = "2026-01-01T00:04:00Z";
    const EARLY: &str = "2026-01-01T00:01:00Z";
    const LATE: &str = "2026-01-01T00:01:01Z";

    fn pod(phase: &str, scheduled: &str, since: &str) -> Arc<Pod> {
        let condition = json!({
            "type": "PodScheduled", "status": scheduled, "reason": "Unschedulable",
            "lastTransitionTime": since
        });
        let pod = json!({ "status": { "phase": phase, "conditions": [condition] } });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn deployment(failure: &str, since: &str) -> Deployment {
        let condition = json!({ "type": "ReplicaFailure", "status": failure, "lastTransitionTime": since });
        serde_json::from_value(json!({ "status": { "conditions": [condition] } })).unwrap()
    }

    fn check(pods: &[Arc<Pod>], deployment: Option<&Deployment>, expected: u32) {
        assert_eq!(unplaced(pods, deployment, 5, NOW.parse().unwrap()), expected);
    }

    #[test]
    fn pods_that_fit_no_node_for_minutes_are_counted() {
        check(&[], None, 0);
        check(&[pod("Pending", "False", EARLY), pod("Pending", "False", LATE)], None, 1);
        check(&[pod("Running", "True", EARLY), pod("Failed", "False", EARLY)], None, 0);
    }

    #[test]
    fn pods_that_the_api_server_refuses_for_minutes_are_counted() {
        let there = [pod("Running", "True", EARLY), pod("Pending", "False", EARLY)];
        check(&there, Some(&deployment("True", EARLY)), 4);
        check(&there, Some(&deployment("True", LATE)), 1);
        check(&there, Some(&deployment("False", EARLY)), 1);
        let many = vec![pod("Running", "True", EARLY); 7];
        check(&many, Some(&deployment("True", EARLY)), 0);
    }
}
