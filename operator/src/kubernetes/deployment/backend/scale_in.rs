//! Lowers the number of pods: chooses those that go, waits until they hold no task, and compares them with
//! those that went.

use std::collections::BTreeSet;
use std::time::Instant;

use futures_util::future::join_all;
use rowlock_queue::{DrainPods, DrainingPod, drain_pods};

use super::{CONCURRENT_WRITES, LastApplied, PodBackend, WATCH_DELAY, WriteError};
use crate::kubernetes::api::kept::Deployment;
use crate::kubernetes::deployment::scale_in::{Candidate, Change, Step, candidates, is_rolling_out};
use crate::kubernetes::desired::owner_name;

/// The number of pods.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    pub(super) current: u32,
    pub(super) wanted: u32,
    /// Others set it, so no pods are chosen.
    pub(super) leaves_replicas: bool,
}

impl PodBackend {
    /// How many pods to write: the wanted number, or the current one while the pods that go are prepared.
    pub(super) async fn prepare_scale_in(
        &self,
        last: &mut LastApplied,
        stored: Option<&Deployment>,
        Numbers { current, wanted, leaves_replicas }: Numbers,
        writes_template: bool,
    ) -> u32 {
        let now = Instant::now();
        if leaves_replicas || writes_template {
            // All pods of an older template go.
            last.scale_in.template_written = writes_template.then_some(now);
            if last.scale_in.is_waiting() {
                let pods = self.candidates(last);
                self.undo_scale_in(last, &pods).await;
            }
            last.scale_in.note_no_change();
            return wanted;
        }
        if current <= wanted && !last.scale_in.has_to_undo(wanted) {
            // Most passes.
            last.scale_in.note_no_change();
            return wanted;
        }
        let pods = self.candidates(last);
        let written = last.scale_in.template_written;
        let is_rolling_out = !last.has_canary()
            && (written.is_some_and(|at| now.duration_since(at) < WATCH_DELAY)
                || is_rolling_out(stored, &pods));
        let change = Change { current, wanted, pods: pods.len(), is_rolling_out };
        match last.scale_in.next(change, now) {
            Step::Choose(most) if self.choose(last, &pods, (most, wanted), now).await => wanted,
            Step::Choose(_) => current,
            step => {
                if wanted == 0 {
                    last.scale_in.clear();
                } else if last.scale_in.has_to_undo(wanted) {
                    self.undo_scale_in(last, &pods).await;
                }
                if step == Step::Write { wanted } else { current }
            }
        }
    }

    /// Counts the pods that went since the number was lowered.
    pub(in crate::kubernetes::deployment) async fn compare_scale_in(&self, last: &mut LastApplied) {
        if !last.scale_in.is_lowered() {
            return;
        }
        let pods = self.candidates(last);
        let (gone, chosen_stay) = last.scale_in.compare(&pods, Instant::now());
        self.context.scale_ins.note(&last.owner.namespace, &last.queue, gone);
        if chosen_stay {
            self.undo_scale_in(last, &pods).await;
        }
    }

    /// The pods that count as replicas. Those of a canary come beside them.
    fn candidates(&self, last: &LastApplied) -> Vec<Candidate> {
        let mut pods = candidates(&self.namespace.pods_of(&last.owner.name), last.deployment_name());
        if let Some(canary) = last.canary.as_ref().filter(|canary| canary.record.is_running()) {
            pods.retain(|pod| canary.record.is_old(pod.template()));
        }
        pods
    }

    /// Chooses the pods that go. Returns whether the number can be lowered now.
    async fn choose(
        &self,
        last: &mut LastApplied,
        pods: &[Candidate],
        (most, wanted): (u32, u32),
        now: Instant,
    ) -> bool {
        let chosen = match self.drain(last, pods, most).await {
            Ok(chosen) if !chosen.is_empty() => chosen,
            // The queue in the database has another owner, or the answer is not one of Rowlock.
            Ok(_) => return last.scale_in.gives_up(false, now),
            Err(error) => {
                let queue = &last.queue;
                tracing::warn!(queue, %error, "the pods that a scale-in ends cannot be chosen");
                return last.scale_in.gives_up(error.is_transient(), now);
            }
        };
        let held = chosen.iter().map(|pod| pod.held).fold(0, u32::saturating_add);
        let chosen: BTreeSet<String> = chosen.into_iter().map(|pod| pod.uid).collect();
        self.write_costs(last, pods, &chosen).await;
        let may_lower = last.scale_in.may_lower(pods, &chosen, held, now);
        if may_lower {
            tracing::debug!(queue = last.queue, pods = chosen.len(), held, "the chosen pods go");
            last.scale_in.lower(pods, chosen, wanted, now);
        }
        may_lower
    }

    /// Removes the marks and the costs of pods that stay.
    async fn undo_scale_in(&self, last: &mut LastApplied, pods: &[Candidate]) {
        // If it fails, the marks lapse within 30 s.
        if let Err(error) = self.drain(last, pods, 0).await {
            tracing::debug!(queue = last.queue, %error, "the marks of a scale-in are not removed");
        }
        self.write_costs(last, pods, &BTreeSet::new()).await;
        last.scale_in.clear();
    }

    pub(super) async fn drain(
        &self,
        last: &LastApplied,
        pods: &[Candidate],
        most: u32,
    ) -> Result<Vec<DrainingPod>, rowlock_queue::Error> {
        let owner = &last.owner;
        let drain = DrainPods {
            queue: last.queue.clone(),
            owner: owner_name(&self.context.cluster, &owner.namespace, &owner.name),
            pods: pods.iter().map(|pod| (pod.uid.clone(), pod.rank)).collect(),
            most,
        };
        let mut chosen = drain_pods(&self.db, &drain).await?;
        // A database may answer anything.
        let uids: BTreeSet<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
        chosen.retain(|pod| uids.contains(pod.uid.as_str()));
        chosen.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        Ok(chosen)
    }

    /// Gives the chosen pods the lowest deletion cost, and the others the one that they had before. If the
    /// API server does not answer, the rest are not tried: that must not delay the pass for each pod. If it
    /// refuses one pod, as a webhook does, the others are written.
    async fn write_costs(&self, last: &mut LastApplied, pods: &[Candidate], chosen: &BTreeSet<String>) {
        let namespace = last.owner.namespace.clone();
        let mut refused = None;
        for some in last.scale_in.cost_changes(pods, chosen).chunks(CONCURRENT_WRITES) {
            let writes = some.iter().map(|(pod, cost)| {
                self.context.writer.set_deletion_cost(&namespace, &pod.name, &pod.uid, cost.as_deref())
            });
            let mut unanswered = false;
            for ((pod, cost), written) in some.iter().zip(join_all(writes).await) {
                match written {
                    Ok(()) => last.scale_in.note_cost(pod, cost.as_deref()),
                    Err(error) if is_gone(&error) => (),
                    Err(error) => {
                        unanswered |= !is_refusal(&error);
                        _ = refused.get_or_insert((pod.name.clone(), error));
                    }
                }
            }
            if unanswered {
                break;
            }
        }
        let queue = &last.queue;
        match refused {
            // A pass is two seconds long, and tries again.
            Some((pod, error)) if !std::mem::replace(&mut last.scale_in.cost_failed, true) => {
                tracing::warn!(namespace, queue, pod, %error, "the deletion cost of the pod is not written");
            }
            Some((pod, error)) => {
                tracing::debug!(namespace, queue, pod, %error, "the deletion cost of the pod is not written");
            }
            None => last.scale_in.cost_failed = false,
        }
    }
}

/// Whether the API server has answered, and refuses this write.
fn is_refusal(error: &WriteError) -> bool {
    matches!(error, WriteError::Api(kube::Error::Api(status))
        if (400..500).contains(&status.code) && status.code != 429)
}

/// Whether the pod has gone since the watch showed it.
fn is_gone(error: &WriteError) -> bool {
    error.is_conflict() || matches!(error, WriteError::Api(kube::Error::Api(status)) if status.code == 404)
}
