//! Which pods a scale-in ends, and when the number is lowered. No I/O; `backend/scale_in.rs` carries it out.
//!
//! The database chooses the pods that hold the fewest tasks (`queue/sql/drain_pods.sql`), and gives them no
//! more. They get the lowest deletion cost, by which Kubernetes ends them first. Then the number is lowered,
//! and the pods that went are compared with the chosen ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::kubernetes::api::kept::{Deployment, Pod, TEMPLATE_HASH};
use crate::kubernetes::pods::ended_pods::belongs_to;
use crate::kubernetes::pods::status::{has_ended, is_ready};

/// The annotation of a pod by which Kubernetes chooses among the ready pods of a `ReplicaSet`.
pub(crate) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The lowest cost that Kubernetes accepts, so no other pod has a lower one.
pub(crate) const LOWEST_COST: &str = "-2147483648";

/// How long a scale-in waits for the chosen pods to finish their tasks, and for the watch to show their
/// deletion costs. After that the number is lowered anyway: a pod finishes its tasks before it ends.
const LONGEST_DRAIN: Duration = Duration::from_secs(5);

/// How long a scale-in waits for a rollout, which replaces the pods that it would choose from. After that the
/// number is lowered without a choice: within half a minute, another queue may need the connections.
const LONGEST_ROLLOUT: Duration = Duration::from_secs(20);

/// How long after the number was lowered a pod that goes still counts. Kubernetes deletes pods within
/// seconds; a later one has gone for another reason.
const COMPARED_FOR: Duration = Duration::from_secs(30);

/// A pod that a scale-in may end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) uid: String,
    pub(crate) name: String,
    /// Kubernetes ends pods of a lower rank first, whatever their deletion cost.
    pub(crate) rank: i32,
    /// Its deletion cost, as the watch shows it.
    pub(crate) cost: Option<String>,
    /// The hash of the template that it was made from.
    template: String,
}

impl Candidate {
    /// The hash of the template that it was made from.
    pub(crate) fn template(&self) -> &str {
        &self.template
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.rank == READY
    }
}

/// The pods of a Deployment that count as its replicas.
pub(crate) fn candidates(pods: &[Arc<Pod>], deployment: &str) -> Vec<Candidate> {
    let candidate = |pod: &Arc<Pod>| {
        // Others may have the label of the TaskQueue, too.
        let of_deployment = belongs_to(pod).is_some_and(|(_, name)| name == deployment);
        let metadata = &pod.metadata;
        if !of_deployment || metadata.deletion_timestamp.is_some() || has_ended(pod) {
            return None;
        }
        let label = metadata.labels.get(TEMPLATE_HASH);
        let cost = metadata.annotations.get(DELETION_COST);
        Some(Candidate {
            uid: metadata.uid.clone()?,
            name: metadata.name.clone()?,
            rank: rank(pod),
            cost: cost.map(str::to_owned),
            template: label.unwrap_or_default().to_owned(),
        })
    };
    pods.iter().filter_map(candidate).collect()
}

/// The rank of a ready pod.
const READY: i32 = 3;

/// The order in which Kubernetes ends pods, before it compares their deletion costs: those without a node,
/// then pending ones, then those that are not ready.
fn rank(pod: &Pod) -> i32 {
    // The watch keeps the spec of pods that are not ready.
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    match phase {
        _ if is_ready(pod) => READY,
        _ if node.is_none() => 0,
        Some("Running") => 2,
        _ => 1,
    }
}

/// Whether pods of an older template are being replaced.
pub(crate) fn is_rolling_out(deployment: Option<&Deployment>, pods: &[Candidate]) -> bool {
    let templates: BTreeSet<&str> = pods.iter().map(|pod| pod.template.as_str()).collect();
    let replaces = |deployment: &Deployment| {
        let Some(status) = &deployment.status else { return false };
        let is_current = status.observed_generation >= deployment.metadata.generation;
        is_current && status.updated_replicas.unwrap_or_default() < status.replicas.unwrap_or_default()
    };
    1 < templates.len() || deployment.is_some_and(replaces)
}

/// A Deployment that gets another number of pods.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) current: u32,
    pub(crate) wanted: u32,
    /// How many pods count as its replicas.
    pub(crate) pods: usize,
    pub(crate) is_rolling_out: bool,
}

/// What to do with the wanted number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is written without a choice.
    Write,
    /// The current number stays until the rollout is over.
    AwaitRollout,
    /// That many pods go, and are chosen first.
    Choose(u32),
}

/// The scale-in of one Deployment.
#[derive(Debug, Default)]
pub(crate) struct ScaleIn {
    /// Since when pods are chosen for a lower number that is not written yet.
    pending: Option<Instant>,
    /// Since when a lower number waits for a rollout.
    awaits_rollout: Option<Instant>,
    /// When the operator last wrote a template. The watch may not show the rollout yet.
    pub(crate) template_written: Option<Instant>,
    /// The pods that got the lowest cost, with the cost that they had before.
    costs: BTreeMap<String, Option<String>>,
    /// Whether a cost could not be written at the last attempt, which is in the log.
    pub(crate) cost_failed: bool,
    lowered: Option<Lowered>,
}

/// A number that was lowered, and the pods that are not known to have gone yet.
#[derive(Debug)]
struct Lowered {
    at: Instant,
    to: u32,
    chosen: BTreeSet<String>,
    others: BTreeSet<String>,
    /// How many pods are still to go.
    missing: usize,
}

/// How many pods went: chosen ones, and others.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) chosen: usize,
    pub(crate) others: usize,
}

impl ScaleIn {
    /// Whether a lower number waits to be written.
    pub(crate) fn is_waiting(&self) -> bool {
        self.pending.is_some() || self.awaits_rollout.is_some()
    }

    /// The number of pods does not change.
    pub(crate) fn note_no_change(&mut self) {
        self.awaits_rollout = None;
    }

    /// Whether pods may have marks or costs that this number of pods does not need.
    pub(crate) fn has_to_undo(&self, wanted: u32) -> bool {
        self.pending.is_some() || self.lowered.as_ref().is_some_and(|lowered| lowered.to < wanted)
    }

    pub(crate) fn next(&mut self, change: Change, now: Instant) -> Step {
        let Change { current, wanted, pods, is_rolling_out } = change;
        // A scale to zero ends all pods.
        if current <= wanted || wanted == 0 {
            self.awaits_rollout = None;
            return Step::Write;
        }
        if is_rolling_out {
            let since = *self.awaits_rollout.get_or_insert(now);
            let is_over = LONGEST_ROLLOUT <= now.duration_since(since);
            return if is_over { Step::Write } else { Step::AwaitRollout };
        }
        self.awaits_rollout = None;
        let most = u32::try_from(pods).unwrap_or(u32::MAX).saturating_sub(wanted);
        if most == 0 { Step::Write } else { Step::Choose(most) }
    }

    /// The pods whose cost must change so that the chosen ones have the lowest, and the cost that each gets.
    pub(crate) fn cost_changes<'a>(
        &self,
        pods: &'a [Candidate],
        chosen: &BTreeSet<String>,
    ) -> Vec<(&'a Candidate, Option<String>)> {
        let change = |pod: &'a Candidate| {
            let before = self.costs.get(&pod.uid);
            let is_lowest = pod.cost.as_deref() == Some(LOWEST_COST);
            match (chosen.contains(&pod.uid), before) {
                (true, None) if !is_lowest => Some((pod, Some(LOWEST_COST.to_owned()))),
                (false, Some(before)) => Some((pod, before.clone())),
                // Left by another leader.
                (false, None) if is_lowest => Some((pod, None)),
                _ => None,
            }
        };
        pods.iter().filter_map(change).collect()
    }

    /// The cost of a pod was written.
    pub(crate) fn note_cost(&mut self, pod: &Candidate, cost: Option<&str>) {
        if cost == Some(LOWEST_COST) {
            self.costs.insert(pod.uid.clone(), pod.cost.clone());
        } else {
            self.costs.remove(&pod.uid);
        }
    }

    /// After a look at the chosen pods, which hold `held` tasks: whether the number can be lowered.
    pub(crate) fn may_lower(
        &mut self,
        pods: &[Candidate],
        chosen: &BTreeSet<String>,
        held: u32,
        now: Instant,
    ) -> bool {
        let since = *self.pending.get_or_insert(now);
        // A pod that was chosen before and still has the lowest cost would go in place of a chosen one.
        let have_costs =
            pods.iter().all(|pod| chosen.contains(&pod.uid) == (pod.cost.as_deref() == Some(LOWEST_COST)));
        (held == 0 && have_costs) || LONGEST_DRAIN <= now.duration_since(since)
    }

    /// The database could not choose: whether the number is lowered without a choice.
    pub(crate) fn gives_up(&mut self, may_pass: bool, now: Instant) -> bool {
        let since = *self.pending.get_or_insert(now);
        !may_pass || LONGEST_DRAIN <= now.duration_since(since)
    }

    /// The number is lowered now.
    pub(crate) fn lower(&mut self, pods: &[Candidate], chosen: BTreeSet<String>, to: u32, now: Instant) {
        let uids = pods.iter().map(|pod| pod.uid.clone());
        let others = uids.filter(|uid| !chosen.contains(uid)).collect();
        let missing = chosen.len();
        self.lowered = Some(Lowered { at: now, to, chosen, others, missing });
        self.pending = None;
    }

    pub(crate) fn is_lowered(&self) -> bool {
        self.lowered.is_some()
    }

    /// Compares the pods that are gone by now with the chosen ones. Returns those that were not gone before,
    /// and whether chosen pods stay because others went instead.
    pub(crate) fn compare(&mut self, pods: &[Candidate], now: Instant) -> (Gone, bool) {
        let Some(lowered) = &mut self.lowered else { return (Gone::default(), false) };
        let left: BTreeSet<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
        let mut take = |all: &mut BTreeSet<String>| {
            let before = all.len();
            all.retain(|uid| left.contains(uid.as_str()));
            let gone = (before - all.len()).min(lowered.missing);
            lowered.missing -= gone;
            gone
        };
        // Of more pods than were to go, some have gone for another reason.
        let gone = Gone { chosen: take(&mut lowered.chosen), others: take(&mut lowered.others) };
        let is_over = lowered.missing == 0 || COMPARED_FOR <= now.duration_since(lowered.at);
        if !is_over {
            return (gone, false);
        }
        let stay = !lowered.chosen.is_empty();
        self.lowered = None;
        self.costs.retain(|uid, _| left.contains(uid.as_str()));
        (gone, stay && self.pending.is_none())
    }

    /// No pod is chosen any more.
    pub(crate) fn clear(&mut self) {
        (self.pending, self.lowered) = (None, None);
        self.costs.clear();
    }
}

#[cfg(test)]
mod tests;
