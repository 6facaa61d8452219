//! A canary in the status and in the conditions of its `TaskQueue`: pure.

use rowlock_crds::{CanaryStatus, ConditionReason};

use crate::kubernetes::deployment::canary::CanaryView;
use crate::kubernetes::problem::Problem;
use crate::kubernetes::sanitize::sanitize;
use crate::kubernetes::status::conditions::StatusInputs;
use crate::kubernetes::status::scaling::rounded;

pub(super) fn canary(view: &CanaryView) -> CanaryStatus {
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let runs = view.seen.unwrap_or_default().new;
    let whole = |count: u64| rounded(i64::try_from(count).unwrap_or(i64::MAX));
    CanaryStatus {
        state: if view.record.is_running() { "Running" } else { "Failed" }.to_owned(),
        since: Some(view.record.since.clone()),
        pods: number(view.pods),
        ready: number(view.ready),
        runs: whole(runs.completed.saturating_add(runs.failed)),
        failed: whole(runs.failed),
    }
}

/// The new template ran worse than the old one. The old pods go on, and only a change of the `TaskQueue`
/// helps.
pub(super) fn failed(inputs: &StatusInputs<'_>) -> Option<Problem> {
    let is_known = inputs.problem.is_none() && inputs.view.is_some_and(|view| view.refused.is_none());
    let why = inputs.canary?.record.failed.as_ref().filter(|_| is_known)?;
    Some(Problem::new(ConditionReason::CanaryFailed, sanitize(why)))
}

/// How far a running canary is.
pub(super) fn running(inputs: &StatusInputs<'_>) -> Option<String> {
    let view = inputs.canary.filter(|view| view.record.is_running())?;
    let terms = inputs.spec.rollout.canary.as_ref()?;
    let CanaryView { pods, ready, .. } = view;
    let seen = view.seen.unwrap_or_default();
    let runs = seen.new.completed.saturating_add(seen.new.failed);
    let slow = inputs.health.slow.as_ref().map_or_else(String::new, |slow| format!(": {slow}"));
    if *ready == 0 {
        return Some(format!("canary: waiting for the first pod with the new template{slow}"));
    }
    Some(format!(
        "canary: {ready} of {pods} pods with the new template are ready and have ended {} of {} runs; the \
         others follow after {} at least and {} at most",
        runs.min(terms.min_runs),
        terms.min_runs,
        terms.min_time,
        terms.max_time
    ))
}
