//! Scales the Deployment of `spec.targetRef`, and changes nothing else of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment as ApiDeployment;

use super::scale_in::Numbers;
use super::{DesiredPods, LastApplied, Live, Outcome, PodBackend, WriteError};
use crate::kubernetes::deployment::last_applied::AppliedObject;
use crate::kubernetes::deployment::target;

/// How often the API server is asked for a target that the watch does not show. When the target gets its
/// label, the watch shows it at once.
const UNSEEN_INTERVAL: Duration = Duration::from_secs(30);

impl PodBackend {
    pub(in crate::kubernetes::deployment) async fn scale_target(
        &self,
        last: &mut LastApplied,
        desired: &DesiredPods<'_>,
    ) -> Result<Outcome, WriteError> {
        let Some(stored) = self.stored(last) else {
            return self.unseen_target(last).await;
        };
        last.unseen_target = None;
        let outcome = target::check(&stored, desired.manifest);
        if !matches!(outcome, Outcome::Done | Outcome::Mismatch(_)) {
            return Ok(outcome);
        }
        let pods = last.pods(desired, Some(&stored));
        let newest = last.newest(Some(&stored));
        let live = newest.map(|(metadata, replicas)| Live::of(Some(Arc::clone(metadata)), Some(replicas)));
        let live = live.unwrap_or_default();
        let leaves_replicas = self.leaves_replicas(last, desired, &live).await;
        let numbers = Numbers { current: live.replicas, wanted: pods, leaves_replicas };
        let pods = self.prepare_scale_in(last, Some(&stored), numbers, false).await;
        if !leaves_replicas {
            if live.replicas != pods
                && let Some(outcome) = self.set_scale(last, pods).await?
            {
                return Ok(outcome);
            }
            last.note_written(pods);
        }
        Ok(outcome)
    }

    /// Sets the scale. The watch may lag, so this first asks whether the operator still may, and the write
    /// conflicts with any change since then. Returns why it may not.
    async fn set_scale(&self, last: &mut LastApplied, pods: u32) -> Result<Option<Outcome>, WriteError> {
        let name = last.deployment_name();
        let found = self.read::<ApiDeployment>(&last.owner.namespace, name).await?;
        let Some(mut metadata) = found.clone().filter(|found| last.may_scale(found)) else {
            return Ok(Some(target::unseen(found.as_ref(), name, &last.owner.name)));
        };
        if self.context.writer.set_scale::<ApiDeployment>(&metadata, pods).await? {
            // Nothing else can have changed.
            metadata.generation = metadata.generation.map(|generation| generation + 1);
        }
        let (hash, metadata) = (String::new(), Arc::new(metadata));
        last.deployment = Some(AppliedObject { hash, metadata, replicas: pods, at: Instant::now() });
        Ok(None)
    }

    async fn unseen_target(&self, last: &mut LastApplied) -> Result<Outcome, WriteError> {
        let known = last.unseen_target.as_ref().filter(|(at, _)| at.elapsed() < UNSEEN_INTERVAL);
        if let Some((_, outcome)) = known {
            return Ok(outcome.clone());
        }
        let name = last.deployment_name();
        let found = self.read::<ApiDeployment>(&last.owner.namespace, name).await?;
        let outcome = target::unseen(found.as_ref(), name, &last.owner.name);
        last.unseen_target = Some((Instant::now(), outcome.clone()));
        Ok(outcome)
    }
}
