//! Applies the `PodDisruptionBudget` of a queue.

use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::{AppliedObject, LastApplied, PodBackend, WATCH_DELAY, WriteError, build, foreign};

impl PodBackend {
    pub(super) async fn apply_budget(&self, last: &mut LastApplied) -> Result<(), WriteError> {
        let watched = self.namespace.budget(&last.owner.name);
        let mut read = None;
        if watched.is_none() && last.budget.is_none() {
            read = self.read::<PodDisruptionBudget>(&last.owner.namespace, &last.owner.name).await?;
        }
        let stored = watched.as_ref().map(|one| &one.metadata).or(read.as_ref());
        if foreign(stored, "PodDisruptionBudget", &last.owner).is_some() {
            return Ok(());
        }
        let object = build::budget(&last.owner, &self.image);
        let done = last.budget.as_ref().is_some_and(|applied| {
            let unseen = applied.at.elapsed() < WATCH_DELAY && applied.hash == build::hash_of(&object);
            unseen || applied.matches(&object, stored)
        });
        if !done {
            let applied = self.context.writer.apply::<PodDisruptionBudget>(&object).await?;
            let mut applied = AppliedObject::new(&object, applied);
            applied.metadata = Arc::new(applied.metadata.identity());
            last.budget = Some(applied);
        }
        Ok(())
    }
}
