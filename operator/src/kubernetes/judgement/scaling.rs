//! Why there are not as many pods as the tasks, or whoever scales from outside, ask for: pure.

use std::time::Duration;

use rowlock_crds::{ConditionReason as Reason, ConditionType as Type, ScalingMode};
use rowlock_plan::Reason as Settled;

use super::{Seen, Verdict, verdict};
use crate::limit::Limit;
use crate::view::QueueView;

/// For so long tasks may wait for the first pod of whoever scales from outside: autoscalers look every 15 to
/// 30 s.
const OTHERS_WAKE_WITHIN: Duration = Duration::from_mins(1);

/// Why there shall be no pod at all, other than that there is nothing to do.
pub(super) fn without_pods(seen: &Seen<'_>, view: &QueueView) -> Option<Verdict> {
    let stats = view.stats.as_ref();
    let waiting = stats.map_or(0, |stats| stats.available);
    let oldest = stats.and_then(|stats| stats.oldest_available_seconds).unwrap_or_default();
    let not = |reason: Reason, message: &str| Some(verdict(Type::Ready, Some(false), reason, message));
    let (namespace, name) = seen.place;
    match view.decision.reason {
        _ if 0 < view.decision.pods_desired => None,
        _ if seen.spec.workers.total == 0 => not(Reason::Total, "no task starts while workers.total is 0"),
        Settled::Connections => {
            let limit = view.limit.as_ref().map(Limit::to_string).unwrap_or_default();
            let message = format!("no pod runs, since the database has no connections for it: {limit}");
            not(Reason::Connections, &message)
        }
        Settled::Total => not(Reason::Total, "no pod runs: raise workers.total"),
        // Where nothing waits, whoever scales instead of us may have its reasons.
        Settled::Suspended if 0 < waiting => {
            let field = "spec.suspendScaling";
            let message = format!(
                "tasks wait and no pod runs, while {field} leaves that to you: kubectl scale \
                deployment/{name} -n {namespace} --replicas=1, or take {field} away"
            );
            not(Reason::Suspended, &message)
        }
        Settled::External if OTHERS_WAKE_WITHIN.as_secs_f64() <= oldest => {
            let message = format!(
                "tasks wait and no pod runs, since workers.scaling is External and workers.replicas is 0: \
                kubectl scale taskqueue/{name} -n {namespace} --replicas=1, or see why your autoscaler does not"
            );
            not(Reason::External, &message)
        }
        Settled::Unknown => {
            Some(verdict(Type::Ready, None, Reason::NotObserved, "nothing is known about the tasks"))
        }
        _ => None,
    }
}

pub(super) fn limited(seen: &Seen<'_>) -> Verdict {
    let Some(view) = seen.view else {
        return verdict(Type::ScalingLimited, None, Reason::NotObserved, "not looked at yet");
    };
    let workers = &seen.spec.workers;
    let external = workers.replicas.filter(|_| workers.scaling() == ScalingMode::External);
    let asks = external.map_or_else(
        || "more workers would help".to_owned(),
        |replicas| format!("workers.replicas asks for {replicas} pods"),
    );
    let is = |reason: Reason, message: &str| verdict(Type::ScalingLimited, Some(true), reason, message);
    match view.decision.reason {
        Settled::Total if seen.health.ready == 0 => is(
            Reason::Total,
            "workers.total is reached, but no pod is ready: see Ready and HandlerHealthy first",
        ),
        Settled::Total if external.is_some() => {
            let (total, pods) = (workers.total, workers.total.div_ceil(workers.per_pod.max(1)));
            let message = format!(
                "{asks}, and workers.total ({total}) is enough for {pods}: raise workers.total, or \
                ask for fewer"
            );
            is(Reason::Total, &message)
        }
        Settled::Total => is(Reason::Total, "more workers would help: raise workers.total"),
        Settled::Connections => {
            let limit = view.limit.as_ref().map(Limit::to_string).unwrap_or_default();
            is(Reason::Connections, &format!("{asks}, but the database has no connections for them: {limit}"))
        }
        Settled::Unknown => {
            let message = "nothing is known about the tasks";
            verdict(Type::ScalingLimited, None, Reason::NotObserved, message)
        }
        Settled::Faltering => {
            let reason = seen.health.trouble.as_ref().map_or(Reason::Progressing, |trouble| trouble.reason);
            is(reason, &format!("{asks}, but one pod is tried until its handler runs"))
        }
        Settled::Suspended if external.is_some_and(|replicas| replicas != view.instances) => {
            let there = view.instances;
            is(Reason::Suspended, &format!("{asks}, but spec.suspendScaling leaves {there}: take it away"))
        }
        decided => {
            let message = match (external, decided) {
                (Some(_), _) => "as many pods as workers.replicas says",
                (None, Settled::External) => {
                    "nobody has set workers.replicas yet: the pods that there are, one at least"
                }
                _ => "as many workers as the tasks ask for",
            };
            verdict(Type::ScalingLimited, Some(false), Reason::NotLimited, message)
        }
    }
}

/// Whether another field manager sets how many pods the Deployment has.
pub(super) fn contested(seen: &Seen<'_>) -> Verdict {
    let not = |reason: Reason, message: &str| verdict(Type::Contested, Some(false), reason, message);
    match seen.contest {
        _ if seen.view.is_none() => verdict(Type::Contested, None, Reason::NotObserved, "not looked at yet"),
        Some(contest) => {
            verdict(Type::Contested, Some(true), Reason::ForeignFieldManager, &contest.to_string())
        }
        None if seen.spec.suspend_scaling => not(
            Reason::Suspended,
            "spec.suspendScaling leaves the number of pods of the Deployment to others",
        ),
        None => not(Reason::Succeeded, "only the operator sets the number of pods of the Deployment"),
    }
}
