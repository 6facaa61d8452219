//! Why there are fewer pods than the tasks, or an external autoscaler, ask for. No I/O.

use std::time::Duration;

use rowlock_crds::{ConditionReason as Reason, ConditionType as Type, ScalingMode};
use rowlock_plan::Reason as ScalingReason;

use super::{NewCondition, StatusInputs, condition};
use crate::shortage::{Asked, Shortage};
use crate::view::QueueView;

/// How long tasks may wait for the first pod with external scaling: autoscalers check every 15 to 30 s.
const EXTERNAL_WAKE_UP_GRACE: Duration = Duration::from_mins(1);

/// Why no pod is wanted, though the queue is not idle.
pub(super) fn without_pods(inputs: &StatusInputs<'_>, view: &QueueView) -> Option<NewCondition> {
    let stats = view.stats.as_ref();
    let waiting = stats.map_or(0, |stats| stats.available);
    let oldest = stats.and_then(|stats| stats.oldest_available_seconds).unwrap_or_default();
    let not = |reason: Reason, message: &str| Some(condition(Type::Ready, Some(false), reason, message));
    let (namespace, name) = inputs.place;
    match view.decision.reason {
        _ if 0 < view.decision.pods_desired => None,
        _ if inputs.spec.workers.total == 0 => not(Reason::Total, "workers.total is 0: no task starts"),
        ScalingReason::Connections => {
            let shortage = view.shortage.as_ref().map(Shortage::to_string).unwrap_or_default();
            let message = format!("no pod runs, because the database has no connections left: {shortage}");
            not(Reason::Connections, &message)
        }
        ScalingReason::Total => not(Reason::Total, "no pod runs: raise workers.total"),
        // Without waiting tasks, zero pods may be intended.
        ScalingReason::Suspended if 0 < waiting => {
            let (field, deployment) = ("spec.suspendScaling", inputs.deployment_name());
            let message = format!(
                "tasks wait and no pod runs, while {field} leaves scaling to you: kubectl scale \
                 deployment/{deployment} -n {namespace} --replicas=1, or remove {field}"
            );
            not(Reason::Suspended, &message)
        }
        ScalingReason::External if EXTERNAL_WAKE_UP_GRACE.as_secs_f64() <= oldest => {
            let message = format!(
                "tasks wait and no pod runs, because workers.scaling is External and workers.replicas is 0: \
                 kubectl scale taskqueue/{name} -n {namespace} --replicas=1, or check your autoscaler"
            );
            not(Reason::External, &message)
        }
        ScalingReason::Unknown => Some(condition(
            Type::Ready,
            None,
            Reason::NotObserved,
            "the operator cannot read the queue's statistics",
        )),
        _ => None,
    }
}

pub(super) fn limited(inputs: &StatusInputs<'_>) -> NewCondition {
    let Some(view) = inputs.view else {
        return condition(Type::ScalingLimited, None, Reason::NotObserved, "not observed yet");
    };
    let external = external_replicas(inputs);
    let is = |reason: Reason, message: &str| condition(Type::ScalingLimited, Some(true), reason, message);
    match view.decision.reason {
        ScalingReason::Total => is(Reason::Total, &by_total(inputs)),
        ScalingReason::Connections => is(Reason::Connections, &by_connections(inputs, view)),
        ScalingReason::Unknown => {
            let message = "the operator cannot read the queue's statistics";
            condition(Type::ScalingLimited, None, Reason::NotObserved, message)
        }
        ScalingReason::NotStarting => {
            let reason = inputs.health.problem.as_ref().map_or(Reason::Progressing, |problem| problem.reason);
            is(
                reason,
                &format!("{}. The operator keeps one until a handler starts", pods_asked(inputs, view)),
            )
        }
        ScalingReason::Failing => is(Reason::Failing, &by_failures(inputs, view)),
        ScalingReason::Stalled => not_limited("the number of pods stays as it is: see Stalled"),
        ScalingReason::Suspended if external.is_some_and(|replicas| replicas != view.instances) => {
            let (asks, there) = (slots_asked(inputs), view.instances);
            is(Reason::Suspended, &format!("{asks}, but spec.suspendScaling keeps {there}: remove it"))
        }
        _ if external.is_some() => not_limited("as many pods as workers.replicas asks for"),
        ScalingReason::External => {
            not_limited("workers.replicas is not set yet: keeping the current pods, at least one")
        }
        _ => not_limited(&format!("as many slots as the tasks need{}", leftover(inputs))),
    }
}

/// The number of pods that somebody else has set, with external scaling.
fn external_replicas(inputs: &StatusInputs<'_>) -> Option<u32> {
    let workers = &inputs.spec.workers;
    workers.replicas.filter(|_| workers.scaling() == ScalingMode::External)
}

/// What is asked for: a clause.
fn slots_asked(inputs: &StatusInputs<'_>) -> String {
    match external_replicas(inputs) {
        Some(replicas) => format!("workers.replicas asks for {replicas} pods"),
        None => "more slots are needed".to_owned(),
    }
}

/// The same in pods, as far as `workers.total` goes.
fn pods_asked(inputs: &StatusInputs<'_>, view: &QueueView) -> String {
    if external_replicas(inputs).is_some() {
        return slots_asked(inputs);
    }
    let workers = &inputs.spec.workers;
    let pods = view.decision.demand.unwrap_or(workers.total).div_ceil(workers.per_pod.max(1));
    format!("{pods} pods are needed")
}

fn by_total(inputs: &StatusInputs<'_>) -> String {
    let workers = &inputs.spec.workers;
    let total = workers.total;
    if inputs.health.ready == 0 {
        return "workers.total is reached, but no pod is ready: see Ready and HandlerHealthy first"
            .to_owned();
    }
    if external_replicas(inputs).is_none() {
        return format!("more than {total} slots are needed: raise workers.total");
    }
    let (asks, pods) = (slots_asked(inputs), total.div_ceil(workers.per_pod.max(1)));
    format!("{asks}, and workers.total ({total}) allows {pods}: raise workers.total, or ask for fewer pods")
}

fn by_failures(inputs: &StatusInputs<'_>, view: &QueueView) -> String {
    let (asks, queue) = (slots_asked(inputs), &view.name);
    format!(
        "{asks}, but nearly all runs fail: no pods are added until some complete. See the errors with \
         `rowlock tasks --state retryable --queue {queue}` and `rowlock task ID`, or the handler's log"
    )
}

/// How many pods are asked for and given, and who holds the others.
fn by_connections(inputs: &StatusInputs<'_>, view: &QueueView) -> String {
    let who = external_replicas(inputs).map_or("the queue", |_| "workers.replicas");
    let Some(shortage) = &view.shortage else { return "the database has no connections left".to_owned() };
    let Asked { wanted, given, .. } = shortage.asked;
    format!(
        "{who} asks for {wanted} pods and gets {given}, because the database has no connections left: \
         {shortage}"
    )
}

fn not_limited(message: &str) -> NewCondition {
    condition(Type::ScalingLimited, Some(false), Reason::NotLimited, message)
}

/// Names a number of pods that has no effect any more. It would make the API server refuse this `TaskQueue`
/// where it is created again, such as from a backup.
fn leftover(inputs: &StatusInputs<'_>) -> String {
    let workers = &inputs.spec.workers;
    let Some(replicas) = workers.replicas.filter(|_| workers.scaling() != ScalingMode::External) else {
        return String::new();
    };
    let (namespace, name) = inputs.place;
    format!(
        ". workers.replicas ({replicas}) is left over from scaling External and has no effect. Remove it \
         before you create this TaskQueue elsewhere: kubectl patch taskqueue {name} -n {namespace} \
         --type=merge -p '{{\"spec\":{{\"workers\":{{\"replicas\":null}}}}}}'"
    )
}

/// Whether another field manager sets the number of pods of the Deployment.
pub(super) fn contested(inputs: &StatusInputs<'_>) -> NewCondition {
    let not = |reason: Reason, message: &str| condition(Type::Contested, Some(false), reason, message);
    match inputs.foreign_scaling {
        _ if inputs.view.is_none() => {
            condition(Type::Contested, None, Reason::NotObserved, "not observed yet")
        }
        Some(foreign_scaling) => {
            let mut message = foreign_scaling.to_string();
            if inputs.spec.target_ref.is_some() {
                message.push_str(", or remove `replicas` from the manifest of the Deployment");
            }
            condition(Type::Contested, Some(true), Reason::ForeignFieldManager, &message)
        }
        None if inputs.spec.suspend_scaling => not(
            Reason::Suspended,
            "spec.suspendScaling leaves the number of pods of the Deployment to others",
        ),
        None => not(Reason::Succeeded, "only the operator sets the number of pods of the Deployment"),
    }
}
