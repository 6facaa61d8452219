//! Handlers that have ended in pods that go on, as the kubelet reports. A worker sees only that the port of
//! its handler is closed. `controller/handler_ends.rs` sends the ends to the database. No I/O.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use rowlock_crds::containers;

use crate::kubernetes::api::kept::Pod;
use crate::kubernetes::pods::ended_pods::{belongs_to, how_it_ended};
use crate::kubernetes::pods::recent::{Noted, RecentByNamespace};
use crate::kubernetes::pods::status::{has_ended, name, since, statuses};

/// Older ends are not noted: the database adds the reason only to the errors of the last minute.
const RECENT: Duration = Duration::from_mins(1);

/// How long an end is remembered. Each event of its pod reports it again.
const REMEMBERED_FOR: Duration = Duration::from_mins(5);

/// When the reason is sent to the database, after the operator has seen the end. A worker writes the errors
/// of its tasks about as soon as the kubelet reports the end; the second time is for one that took longer.
const SENT_AFTER: [Duration; 2] = [Duration::ZERO, Duration::from_secs(5)];

/// The end of a handler of a `TaskQueue`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HandlerEnd {
    pub(crate) uid: String,
    pub(crate) pod: String,
    pub(crate) task_queue: String,
    /// The Deployment whose `ReplicaSet` the pod belongs to.
    pub(crate) deployment: String,
    /// The reason and the exit code, such as `OOMKilled, exit code 137`.
    pub(crate) how: String,
    /// The container, and when it ended: tells one end from the next.
    container: (String, Timestamp),
}

/// The last ends of handlers.
#[derive(Debug)]
pub(crate) struct HandlerEnds(RecentByNamespace<HandlerEnd>);

impl Default for HandlerEnds {
    fn default() -> Self {
        Self(RecentByNamespace::new(REMEMBERED_FOR))
    }
}

impl HandlerEnds {
    /// Remembers the end of the pod's handler, if it has ended lately. A later one replaces it.
    pub(crate) fn note(&self, pod: &Pod, now: Instant, time: Timestamp) {
        let Some((namespace, end)) = pod.metadata.namespace.clone().zip(last_end(pod, time)) else { return };
        let container = end.container.clone();
        self.0.note(namespace, end.uid.clone(), end, |known| known.container == container, now);
    }

    /// At most `most` ends in this namespace whose reasons are due to be sent, each with the value that `of`
    /// returns. Ends for which it returns `None` are skipped.
    pub(crate) fn pending<T>(
        &self,
        namespace: &str,
        of: impl Fn(&HandlerEnd) -> Option<T>,
        most: usize,
        now: Instant,
    ) -> Vec<(HandlerEnd, T)> {
        let is_due = |noted: &Noted<HandlerEnd>| {
            SENT_AFTER.get(noted.sent).is_some_and(|after| now.duration_since(noted.at) >= *after)
        };
        self.0.pending(namespace, is_due, of, most)
    }

    /// The reason of this end was sent. `is_done`: it need not be sent again.
    pub(crate) fn sent(&self, namespace: &str, end: &HandlerEnd, is_done: bool) {
        self.0.change(namespace, &end.uid, |noted| {
            if noted.value.container == end.container {
                noted.sent = if is_done { SENT_AFTER.len() } else { noted.sent + 1 };
            }
        });
    }
}

/// The last end of the handler in a pod that goes on, if it was lately.
fn last_end(pod: &Pod, time: Timestamp) -> Option<HandlerEnd> {
    // The end of the whole pod ends its leases: see `ended_pods`.
    if has_ended(pod) {
        return None;
    }
    let handler = statuses(pod).find(|status| status.name == containers::HANDLER)?;
    let mut states = [&handler.state, &handler.last_state].into_iter();
    let terminated = states.find_map(|state| state.as_ref()?.terminated.as_ref())?;
    let finished = terminated.finished_at.as_ref()?.0;
    if since(finished, time) >= RECENT {
        return None;
    }
    let (task_queue, deployment) = belongs_to(pod)?;
    Some(HandlerEnd {
        uid: pod.metadata.uid.clone()?,
        pod: name(pod).to_owned(),
        task_queue: task_queue.to_owned(),
        deployment: deployment.to_owned(),
        how: how_it_ended(terminated)?,
        container: (terminated.container_id.clone().unwrap_or_default(), finished),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kubernetes::pods::recent::MOST_REMEMBERED;

    const TIME: &str = "2026-01-01T00:00:30Z";

    fn time() -> Timestamp {
        TIME.parse().unwrap()
    }

    fn ended(container: &str, reason: &str, at: &str) -> Value {
        json!({ "terminated": {
            "exitCode": 137, "reason": reason, "finishedAt": at, "containerID": container,
            "message": "a secret"
        } })
    }

    /// A pod whose handler has this state, and had that one before.
    fn pod(phase: &str, state: &Value, last_state: &Value) -> Pod {
        let handler = json!({
            "name": "handler", "image": "i", "imageID": "i", "ready": false, "restartCount": 1,
            "state": state, "lastState": last_state
        });
        let pod = json!({
            "metadata": {
                "name": "emails-7d9f-x", "namespace": "shop", "uid": "u1",
                "labels": { "rowlock.dev/task-queue": "emails", "pod-template-hash": "7d9f" },
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "emails-7d9f", "uid": "r1",
                    "controller": true
                }],
            },
            "status": { "phase": phase, "initContainerStatuses": [handler] },
        });
        serde_json::from_value(pod).unwrap()
    }

    fn running() -> Value {
        json!({ "running": {} })
    }

    fn pending(ends: &HandlerEnds, now: Instant) -> Vec<HandlerEnd> {
        ends.pending("shop", |_| Some(()), 9, now).into_iter().map(|(end, ())| end).collect()
    }

    #[test]
    fn a_reason_is_sent_once_if_errors_were_found_and_twice_if_not() {
        let (ends, now) = (HandlerEnds::default(), Instant::now());
        let first = pod("Running", &running(), &ended("c1", "OOMKilled", "2026-01-01T00:00:28Z"));
        let later = |seconds: u64| now + Duration::from_secs(seconds);
        ends.note(&first, now, time());
        let found = pending(&ends, now);
        assert_eq!(found[0].how, "OOMKilled, exit code 137");
        ends.sent("shop", &found[0], false);
        // Each later event of the pod reports the same end.
        ends.note(&first, later(4), time());
        assert_eq!(pending(&ends, later(4)), []);
        assert_eq!(pending(&ends, later(5)), found);
        ends.sent("shop", &found[0], false);
        assert_eq!(pending(&ends, later(60)), []);
        let second = pod("Running", &ended("c2", "Error", "2026-01-01T00:00:29Z"), &Value::Null);
        ends.note(&second, later(9), time());
        ends.sent("shop", &found[0], true);
        let found = pending(&ends, later(9));
        assert_eq!(found[0].how, "Error, exit code 137", "the answer for the first end says nothing of it");
        ends.sent("shop", &found[0], true);
        assert_eq!(pending(&ends, later(60)), []);
    }

    #[test]
    fn only_recent_ends_that_the_kubelet_has_seen_count() {
        let oom = ended("c1", "OOMKilled", "2026-01-01T00:00:28Z");
        let old = ended("c1", "OOMKilled", "2025-12-31T23:59:00Z");
        let lost = ended("c1", "ContainerStatusUnknown", "2026-01-01T00:00:28Z");
        let table = [
            (pod("Running", &running(), &oom), true),
            (pod("Running", &json!({ "waiting": { "reason": "CrashLoopBackOff" } }), &oom), true),
            (pod("Running", &oom, &old), true),
            (pod("Running", &running(), &old), false),
            (pod("Running", &running(), &lost), false),
            (pod("Running", &running(), &Value::Null), false),
            (pod("Failed", &oom, &Value::Null), false),
        ];
        for (number, (pod, expected)) in table.iter().enumerate() {
            let ends = HandlerEnds::default();
            ends.note(pod, Instant::now(), time());
            assert_eq!(pending(&ends, Instant::now()).len(), usize::from(*expected), "case {number}");
        }
        let mut strange = pod("Running", &running(), &oom);
        strange.metadata.owner_references = None;
        let ends = HandlerEnds::default();
        ends.note(&strange, Instant::now(), time());
        assert_eq!(pending(&ends, Instant::now()), [], "anybody may have made it");
    }

    #[test]
    fn no_more_than_a_thousand_pods_are_remembered_for_five_minutes() {
        let (ends, now) = (HandlerEnds::default(), Instant::now());
        let note = |number: usize, now: Instant| {
            let mut pod = pod("Running", &running(), &ended("c", "Error", "2026-01-01T00:00:28Z"));
            pod.metadata.uid = Some(format!("u{number}"));
            ends.note(&pod, now, time());
        };
        (0..MOST_REMEMBERED + 5).for_each(|number| note(number, now));
        assert_eq!(ends.pending("shop", |_| Some(()), usize::MAX, now).len(), MOST_REMEMBERED);
        note(7000, now + REMEMBERED_FOR);
        assert_eq!(ends.pending("shop", |_| Some(()), usize::MAX, now + REMEMBERED_FOR).len(), 1);
    }
}
