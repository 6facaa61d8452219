//! Queues whose objects are as they should be. A pass skips them until something changes: to build the
//! objects again and to compare them takes most of its time.

use std::sync::Arc;

use crate::backend::DesiredPods;
use crate::kubernetes::api::kept::{Budget, Deployment};
use crate::kubernetes::api::writer::WriteError;
use crate::kubernetes::deployment::apply_result::Outcome;
use crate::kubernetes::deployment::backend::PodBackend;
use crate::kubernetes::deployment::last_applied::LastApplied;

/// The objects as the watches show them, and the number of pods that they were compared with. A `TaskQueue`
/// that changes has another owner, which forgets this.
pub(crate) struct Settled {
    deployment: Arc<Deployment>,
    budget: Arc<Budget>,
    pods: u32,
}

impl Settled {
    fn holds(&self, desired: &DesiredPods<'_>, seen: &Seen) -> bool {
        let same = |(deployment, budget): (&Arc<Deployment>, &Arc<Budget>)| {
            Arc::ptr_eq(deployment, &self.deployment) && Arc::ptr_eq(budget, &self.budget)
        };
        let seen = seen.0.as_ref().zip(seen.1.as_ref());
        self.pods == desired.pods && !desired.keeps && seen.is_some_and(same)
    }
}

/// The objects of a queue when a pass began. The store has another object after each change.
struct Seen(Option<Arc<Deployment>>, Option<Arc<Budget>>);

impl PodBackend {
    /// Makes the objects of a queue what they should be, unless they have been since the last pass.
    pub(super) async fn apply_queue(
        &self,
        last: &mut LastApplied,
        desired: &DesiredPods<'_>,
    ) -> Result<Outcome, WriteError> {
        self.compare_scale_in(last).await;
        if last.target.is_some() {
            return self.scale_target(last, desired).await;
        }
        let seen = Seen(self.stored(last), self.namespace.budget(&last.owner.name));
        if last.settled.as_ref().is_some_and(|settled| settled.holds(desired, &seen)) {
            return Ok(Outcome::Done);
        }
        last.settled = None;
        // They are never closed.
        let _permits = (self.namespace.writes.acquire().await, self.context.writes.acquire().await);
        let outcome = self.apply_objects(last, desired, seen.0.clone()).await?;
        // What others do to the number of pods also depends on time, and so do scale-ins and canaries.
        let is_calm = last.foreign_scaling.is_calm() && !last.scale_in.is_waiting() && !last.has_canary();
        if outcome == Outcome::Done && !desired.keeps && is_calm {
            let seen = seen.0.zip(seen.1);
            if let Some((deployment, _)) = &seen {
                last.share_metadata(deployment);
            }
            last.settled =
                seen.map(|(deployment, budget)| Settled { deployment, budget, pods: desired.pods });
        }
        Ok(outcome)
    }
}
