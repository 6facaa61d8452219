//! Sends to the database why handlers ended, so that the errors of their tasks say so. The ends come from
//! `pods/handler_ends.rs`.

use std::cell::LazyCell;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use rowlock_queue::{Db, EndedHandler, name_handler_end};

use crate::kubernetes::api::objects::NamespaceWatch;
use crate::kubernetes::context::Context;
use crate::kubernetes::controller::Queues;
use crate::kubernetes::controller::rescue_pods::{by_name, is_of};
use crate::kubernetes::desired::owner;
use crate::kubernetes::pods::handler_ends::HandlerEnd;

/// The most ends in one pass, with a short statement each. The next pass follows within seconds.
const MOST_ENDS: usize = 20;

/// How long they may take in one pass: see [`rescue_pods`](super::rescue_pods).
const LONGEST: Duration = Duration::from_secs(1);

/// Sends why the handlers of `queues` have ended. There is no statement unless one has.
pub(super) async fn name_handler_ends(
    context: &Context,
    namespace: &NamespaceWatch,
    db: &Db,
    queues: &Queues,
) {
    let (ends, began) = (&namespace.objects.handler_ends, Instant::now());
    // Most passes find no such end.
    let task_queues = LazyCell::new(|| by_name(queues));
    let of = |end: &HandlerEnd| {
        let (queue, one) = *task_queues.get(&end.task_queue)?;
        is_of(namespace, &end.deployment, one).then_some((queue, one))
    };
    for (end, (queue, one)) in ends.pending(namespace.name(), of, MOST_ENDS, began) {
        if began.elapsed() >= LONGEST {
            return;
        }
        let ended = EndedHandler {
            queue: queue.clone(),
            owner: owner(one, &context.cluster),
            uid: end.uid.clone(),
            how: end.how.clone(),
        };
        match name_handler_end(db, &ended).await {
            Ok(errors) => ends.sent(namespace.name(), &end, 0 < errors),
            // The database is away: the next pass tries again.
            Err(error) if error.is_transient() => tracing::debug!(pod = end.pod, %error, "not sent yet"),
            Err(error) => {
                ends.sent(namespace.name(), &end, true);
                let (namespace, pod) = (one.namespace().unwrap_or_default(), &end.pod);
                tracing::warn!(namespace, pod, %error, "errors of tasks do not say why the handler ended");
            }
        }
    }
}
