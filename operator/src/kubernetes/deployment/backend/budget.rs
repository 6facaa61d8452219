//! Applies the `PodDisruptionBudget` of a queue.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::{AppliedObject, LastApplied, PodBackend, WATCH_DELAY, WriteError, build, foreign};

impl PodBackend {
    pub(super) async fn apply_budget(&self, last: &mut LastApplied) -> Result<(), WriteError> {
        let mut stored = self.namespace.budget(&last.owner.name).map(|one| one.metadata.clone());
        if stored.is_none() && last.budget.is_none() {
            stored = self.read::<PodDisruptionBudget>(&last.owner.namespace, &last.owner.name).await?;
        }
        if foreign(stored.as_ref(), "PodDisruptionBudget", &last.owner).is_some() {
            return Ok(());
        }
        let object = build::budget(&last.owner, &self.image);
        let done = last.budget.as_ref().is_some_and(|applied| {
            let unseen = applied.at.elapsed() < WATCH_DELAY && applied.hash == build::hash_of(&object);
            unseen || applied.matches(&object, stored.as_ref())
        });
        if !done {
            let applied = self.context.writer.apply::<PodDisruptionBudget>(&object).await?;
            last.budget = Some(AppliedObject::new(&object, applied));
        }
        Ok(())
    }
}
