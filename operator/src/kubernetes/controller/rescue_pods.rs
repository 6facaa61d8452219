//! Ends the leases of pods that have ended, so that their tasks need not wait for a whole lease. The pods
//! come from `pods/ended_pods.rs`.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, ResourceExt};
use rowlock_crds::{EventReason, TaskQueue};
use rowlock_queue::{Db, Error, rescue_pod};

use crate::kubernetes::api::events::NewEvent;
use crate::kubernetes::api::objects::NamespaceWatch;
use crate::kubernetes::context::Context;
use crate::kubernetes::controller::Queues;
use crate::kubernetes::deployment::last_applied::LastApplied;
use crate::kubernetes::desired::owner;
use crate::kubernetes::pods::ended_pods::EndedPod;

/// The most pods in one pass, with a short statement each. The next pass follows within a second.
const MOST_PODS: usize = 20;

/// How long they may take in one pass. A database that does not answer must not delay what the pass does
/// next: it finds out, and says so in the status.
const LONGEST: Duration = Duration::from_secs(1);

/// Ends the leases of the pods of `queues` that have ended.
pub(super) async fn rescue_pods(context: &Context, namespace: &NamespaceWatch, db: &Db, queues: &Queues) {
    let (ended_pods, began) = (&namespace.objects.ended_pods, Instant::now());
    for (pod, (queue, one)) in pending(namespace, queues, began) {
        if began.elapsed() >= LONGEST {
            return;
        }
        let ended = rowlock_queue::EndedPod {
            queue: queue.clone(),
            owner: owner(one, &context.cluster),
            uid: pod.uid.clone(),
            how: pod.how.clone(),
        };
        match rescue_pod(db, &ended).await {
            Ok(tasks) => {
                ended_pods.done(namespace.name(), &pod.uid);
                if let Some(tasks) = tasks {
                    report(context, one, &pod, tasks).await;
                }
            }
            // A statement of its instance is still in progress, or the database is away: the next pass tries
            // again.
            Err(error) if error.is_transient() => tracing::debug!(pod = pod.name, %error, "not rescued yet"),
            Err(error) => {
                ended_pods.done(namespace.name(), &pod.uid);
                warn(one, &pod, &error);
            }
        }
    }
}

/// The pods that have ended, with their queues and `TaskQueues`.
fn pending<'a>(
    namespace: &NamespaceWatch,
    queues: &'a Queues,
    now: Instant,
) -> Vec<(EndedPod, (&'a String, &'a TaskQueue))> {
    // Most passes find no such pod.
    let task_queues = LazyCell::new(|| by_name(queues));
    let of = |pod: &EndedPod| {
        let (queue, one) = *task_queues.get(&pod.task_queue)?;
        is_of(namespace, &pod.deployment, one).then_some((queue, one))
    };
    namespace.objects.ended_pods.pending(namespace.name(), of, MOST_PODS, now)
}

/// The queues and their `TaskQueues`, by the names of these.
pub(super) fn by_name(queues: &Queues) -> BTreeMap<String, (&String, &TaskQueue)> {
    queues.iter().map(|(queue, one)| (one.name_any(), (queue, &**one))).collect()
}

/// Whether a pod's Deployment is the one of this `TaskQueue`: its own, or that of `targetRef`.
pub(super) fn is_of(namespace: &NamespaceWatch, pods_deployment: &str, one: &TaskQueue) -> bool {
    let last = LastApplied::of(one);
    let deployment = namespace.deployment(pods_deployment);
    pods_deployment == last.deployment_name()
        && deployment.is_some_and(|deployment| last.may_scale(&deployment.metadata))
}

fn warn(one: &TaskQueue, pod: &EndedPod, error: &Error) {
    let (namespace, pod) = (one.namespace().unwrap_or_default(), &pod.name);
    tracing::warn!(
        namespace,
        pod,
        %error,
        "cannot end the leases of an ended pod early; its tasks wait until the leases expire"
    );
}

async fn report(context: &Context, one: &TaskQueue, pod: &EndedPod, tasks: u64) {
    let namespace = one.namespace().unwrap_or_default();
    let (name, how) = (&pod.name, &pod.how);
    tracing::warn!(namespace, pod = name, how, tasks, "took back the tasks of a pod that has ended");
    context.rescues.note(tasks);
    if tasks == 0 {
        return;
    }
    let related = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(namespace),
        name: Some(name.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    };
    let note = format!(
        "pod {name} has ended ({how}); its running tasks, {tasks} of them, were taken back without waiting \
         for their leases"
    );
    let (reason, action) = (EventReason::PodEnded.as_str(), EventReason::PodEnded.action());
    let regarding = one.object_ref(&());
    let new_event =
        NewEvent { regarding: &regarding, related: Some(related), warning: true, reason, action, note };
    context.writer.publish_event(&new_event).await;
}
