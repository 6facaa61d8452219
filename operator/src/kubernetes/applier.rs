//! Instances as pods: the applier of a cluster, for the queues of one database.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use kube::{Api, Resource};
use rowlock_crds::{EventReason, TaskQueue};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::apply::{WriteError, bounded};
use super::build::{self, Owner};
use super::contest::{Contest, Found};
use super::events::{News, deployment_of};
use super::health::{is_ready, only_end};
use super::known::{
    Known, WATCH_DELAY, Written, foreign, has_template, is_our_change, is_owned, owner, turn_of,
};
use super::managed;
use super::outcome::Outcome;
use super::rollouts::{Place, turn};
use super::shared::Shared;
use super::watch::Namespace;
use super::worker::WorkerImage;
use crate::applier::{Applier, Intent};

/// How long a refusal holds before the same template is tried again: a policy may have changed.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// How often a write is tried at once beside others who write to the same object.
const TRIES: usize = 5;

/// So many queues are written at a time: a webhook that hangs for one holds up few others, and a new leader of hundreds is soon through. All else
/// that writes to an API server is bounded there.
const AT_ONCE: usize = 8;

/// The pods of all queues of one database.
pub(crate) struct Pods {
    shared: Arc<Shared>,
    namespace: Arc<Namespace>,
    image: WorkerImage,
    queues: BTreeMap<String, Known>,
}

impl Pods {
    pub(crate) fn new(shared: Arc<Shared>, namespace: Arc<Namespace>) -> Self {
        let image = shared.config.image();
        Self { shared, namespace, image, queues: BTreeMap::new() }
    }

    /// Whose the queues are from now on, by their names.
    pub(crate) fn set_owners(&mut self, task_queues: &BTreeMap<String, Arc<TaskQueue>>) {
        self.queues.retain(|queue, known| {
            task_queues.get(queue).is_some_and(|one| one.metadata.uid.as_ref() == Some(&known.owner.uid))
        });
        for (queue, one) in task_queues {
            let known = self.queues.entry(queue.clone()).or_insert_with(|| Known::of(one));
            known.owner = owner(one);
        }
    }

    /// What came of the last try.
    pub(crate) fn outcome(&self, queue: &str) -> Outcome {
        self.queues.get(queue).map_or(Outcome::NotTried, |known| known.outcome.clone())
    }

    /// Who else sets how many pods there are.
    pub(crate) fn contest(&self, queue: &str) -> Option<Contest> {
        self.queues.get(queue)?.contests.current().cloned()
    }

    fn stored(&self, owner: &Owner) -> Option<Arc<Deployment>> {
        self.namespace.deployments.get(&owner.namespace, &owner.name)
    }

    async fn apply_queue(&self, known: &mut Known, intent: &Intent<'_>) -> Result<Outcome, WriteError> {
        let mut object = build::deployment(&known.owner, intent.manifest, intent.pods, &self.image);
        let stored = self.stored(&known.owner);
        let (seen, replicas) = match known.newest(stored.as_deref()) {
            Some((metadata, replicas)) => (Some(metadata), replicas),
            // Not ours by its labels, or not there: only the server knows.
            None => (self.look::<Deployment>(&known.owner).await?, 0),
        };
        if let Some(outcome) = foreign(seen.as_ref(), "Deployment", &known.owner) {
            return Ok(outcome);
        }
        let strangers = seen.as_ref().and_then(|seen| seen.managed_fields.as_deref()).map(managed::strangers);
        let strangers = strangers.unwrap_or_default();
        let leaves = self.leaves_replicas(known, intent, seen.as_ref(), replicas).await;
        if let Some(live) = seen.as_ref().filter(|_| strangers.is_empty()) {
            let needs_turn = replicas > 0 && is_our_change(live, &object);
            if needs_turn && !self.may_roll_out(&known.owner) {
                self.scale(known, intent, replicas, leaves).await?;
                return Ok(self.waits());
            }
            let turn = if needs_turn { Some(turn(stored.as_deref())) } else { turn_of(live, &object) };
            if let Some(turn) = turn {
                build::mark_turn(&mut object, turn);
            }
        }
        let is_there = || seen.as_ref().is_some_and(|live| has_template(live, &object));
        if known.good.is_none() && strangers.is_empty() && is_there() {
            // The server took it once: nobody asks again after every change of the leader.
            known.good = Some(object["spec"]["template"].to_string());
        }
        let mut outcome = Outcome::Done;
        if let Some(said) = self.refused(known, &object).await? {
            outcome = Outcome::Refused(said);
            self.shared.withdraw(&place(&known.owner));
            // What the queue runs already is scaled on as it is.
            let Some(good) = known.good.clone() else {
                if seen.is_some() {
                    self.scale(known, intent, replicas, leaves).await?;
                }
                return Ok(outcome);
            };
            object["spec"]["template"] = serde_json::from_str(&good).unwrap_or_default();
            // Not of this generation, then: it would look as if only we had changed it since.
            build::mark_made_from(&mut object, seen.as_ref());
        }
        let done = known.deployment.as_ref().is_some_and(|written| {
            if leaves {
                written.is_but_for_replicas(&object, seen.as_ref(), replicas)
            } else {
                written.is(&object, seen.as_ref())
            }
        });
        if !strangers.is_empty() || !done {
            let applied = self.write(known, &mut object, &strangers, leaves).await?;
            if !matches!(outcome, Outcome::Refused(_)) {
                known.good = Some(object["spec"]["template"].to_string());
            }
            known.deployment = Some(Written::new(&object, applied));
            known.wrote(intent.pods, leaves);
        } else if let (true, Some(written), Some(seen)) = (leaves, &mut known.deployment, seen) {
            (written.metadata, written.replicas) = (seen, replicas);
        }
        self.apply_budget(known).await?;
        Ok(outcome)
    }

    fn may_roll_out(&self, owner: &Owner) -> bool {
        self.shared.may_roll_out(&place(owner))
    }

    /// The Deployment, with as many pods as others have said, where that is theirs to say.
    async fn write(
        &self,
        known: &Known,
        object: &mut Value,
        strangers: &[String],
        leaves: bool,
    ) -> Result<DynamicObject, WriteError> {
        for _ in 1..TRIES {
            let written = self.write_once(known, object, strangers, leaves).await;
            match written {
                Err(WriteError::Api(kube::Error::Api(status))) if leaves && status.code == 409 => (),
                answer => return answer,
            }
        }
        self.write_once(known, object, strangers, leaves).await
    }

    async fn write_once(
        &self,
        known: &Known,
        object: &mut Value,
        strangers: &[String],
        leaves: bool,
    ) -> Result<DynamicObject, WriteError> {
        let live = if leaves || !strangers.is_empty() { self.live(&known.owner).await? } else { None };
        if let Some(live) = live.as_ref().filter(|_| leaves) {
            // Read just now, and written only if that is still so: nobody's change in between is lost.
            object["spec"]["replicas"] = live.data["spec"]["replicas"].clone();
            object["metadata"]["resourceVersion"] = live.metadata.resource_version.clone().into();
        }
        match live.filter(|_| !strangers.is_empty()) {
            Some(live) => self.restore(known, live, object, strangers).await,
            None => self.shared.hand.apply::<Deployment>(object).await,
        }
    }

    async fn live(&self, owner: &Owner) -> Result<Option<DynamicObject>, WriteError> {
        let resource = kube::api::ApiResource::erase::<Deployment>(&());
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.shared.client.clone(), &owner.namespace, &resource);
        bounded(api.get_opt(&owner.name)).await
    }

    /// Whether the number of pods is left as others have set it: because that is theirs to say, or for now.
    /// Tells people of those who set it though it is not.
    async fn leaves_replicas(
        &self,
        known: &mut Known,
        intent: &Intent<'_>,
        seen: Option<&ObjectMeta>,
        replicas: u32,
    ) -> bool {
        if intent.manifest.spec.suspend_scaling {
            known.contests.leave();
            return true;
        }
        let entries = seen.and_then(|seen| seen.managed_fields.as_deref());
        let managers = entries.map(managed::scalers).unwrap_or_default();
        let found = Found { replicas, wanted: intent.pods, managers, made_from: &known.owner.generation };
        if let Some(note) = known.contests.observe(found, Instant::now()) {
            self.tell(known, EventReason::ReplicasRestored, note).await;
        }
        known.contests.waits(Instant::now())
    }

    /// The pods stay what they are, but not how many, unless that is left to others.
    async fn scale(
        &self,
        known: &mut Known,
        intent: &Intent<'_>,
        replicas: u32,
        leaves: bool,
    ) -> Result<(), WriteError> {
        if intent.pods != replicas && !leaves {
            let Owner { namespace, name, .. } = &known.owner;
            let scaled = self.shared.hand.scale(namespace, name, intent.pods).await?;
            known.deployment = Some(Written::new(&Value::Null, scaled));
            known.wrote(intent.pods, leaves);
        }
        Ok(())
    }

    fn waits(&self) -> Outcome {
        let at_once = self.shared.config.rollouts_at_once;
        Outcome::Waiting(format!(
            "the operator brings other pods (a new release, or another worker image or resources), for {at_once} queues at a time: waiting until \
             others have theirs"
        ))
    }

    /// What the server says against the template, which is asked only of a new one.
    async fn refused(&self, known: &mut Known, object: &Value) -> Result<Option<String>, WriteError> {
        let template = object["spec"]["template"].to_string();
        if known.good.as_ref() == Some(&template) {
            known.tried = None;
            return Ok(None);
        }
        // What a policy asks for may be a label.
        let asked = format!("{}{template}", object["metadata"]["labels"]);
        if let Some((tried, Some(said), at)) = &known.tried
            && *tried == asked
            && at.elapsed() < TRY_AGAIN
        {
            return Ok(Some(said.clone()));
        }
        let said = match self.shared.hand.try_out::<Deployment>(object).await {
            Ok(()) => None,
            Err(error) => Some(error.refusal().ok_or(error)?),
        };
        known.tried = Some((asked, said.clone(), Instant::now()));
        Ok(said)
    }

    async fn restore(
        &self,
        known: &Known,
        live: DynamicObject,
        object: &Value,
        strangers: &[String],
    ) -> Result<DynamicObject, WriteError> {
        let who = strangers.join(", ");
        let note = format!(
            "{who} had changed the pod template of the Deployment: it is put back to what the TaskQueue says"
        );
        // First: of the steps that follow the last may be refused for a moment, and by then nobody is seen to have been there.
        self.tell(known, EventReason::TemplateRestored, note).await;
        self.shared.hand.replace_template::<Deployment>(live, object).await
    }

    /// A warning about the Deployment.
    async fn tell(&self, known: &Known, reason: EventReason, note: String) {
        let related = Some(deployment_of(&known.about));
        let (reason, action) = (reason.as_str(), reason.action());
        let news = News { about: &known.about, related, warning: true, reason, action, note };
        self.shared.hand.event(&news).await;
    }

    async fn apply_budget(&self, known: &mut Known) -> Result<(), WriteError> {
        let Owner { namespace, name, .. } = &known.owner;
        let mut stored = self.namespace.budgets.get(namespace, name).map(|one| one.metadata.clone());
        if stored.is_none() && known.budget.is_none() {
            stored = self.look::<PodDisruptionBudget>(&known.owner).await?;
        }
        if foreign(stored.as_ref(), "PodDisruptionBudget", &known.owner).is_some() {
            return Ok(());
        }
        let object = build::budget(&known.owner, &self.image);
        let done = known.budget.as_ref().is_some_and(|written| {
            let unseen = written.at.elapsed() < WATCH_DELAY && written.hash == build::hash_of(&object);
            unseen || written.is(&object, stored.as_ref())
        });
        if !done {
            let applied = self.shared.hand.apply::<PodDisruptionBudget>(&object).await?;
            known.budget = Some(Written::new(&object, applied));
        }
        Ok(())
    }

    /// Asks the server itself: the watch sees only what has our labels.
    async fn look<K>(&self, owner: &Owner) -> Result<Option<ObjectMeta>, WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    {
        let api: Api<K> = Api::namespaced(self.shared.client.clone(), &owner.namespace);
        Ok(bounded(api.get_metadata_opt(&owner.name)).await?.map(|found| found.metadata))
    }
}

fn place(owner: &Owner) -> Place {
    (owner.namespace.clone(), owner.name.clone())
}

impl Applier for Pods {
    fn instances(&self, queue: &str) -> u32 {
        let Some(known) = self.queues.get(queue) else { return 0 };
        let seen = known.newest(self.stored(&known.owner).as_deref());
        seen.filter(|(metadata, _)| is_owned(metadata, &known.owner)).map_or(0, |(_, replicas)| replicas)
    }

    fn ready(&self, queue: &str) -> u32 {
        let Some(known) = self.queues.get(queue) else { return 0 };
        let pods = self.namespace.pods_of(&known.owner.name);
        u32::try_from(pods.iter().filter(|pod| is_ready(pod)).count()).unwrap_or(u32::MAX)
    }

    fn age(&self, queue: &str) -> Duration {
        let Some(known) = self.queues.get(queue) else { return Duration::ZERO };
        let pods = self.namespace.pods_of(&known.owner.name);
        let oldest =
            pods.iter().filter_map(|pod| pod.metadata.creation_timestamp.as_ref()).map(|made| made.0).min();
        oldest.map_or(Duration::ZERO, |made| {
            Duration::try_from(Timestamp::now().duration_since(made)).unwrap_or_default()
        })
    }

    fn leaving(&self) -> u32 {
        let beyond = |(queue, known): (&String, &Known)| {
            let (staying, terminating) = self.namespace.count_pods(&known.owner.name);
            terminating + staying.saturating_sub(self.instances(queue))
        };
        self.queues.iter().map(beyond).sum()
    }

    fn falters(&mut self, queue: &str) -> bool {
        let Some(known) = self.queues.get_mut(queue) else { return false };
        let pods = self.namespace.pods_of(&known.owner.name);
        known.proved = !pods.is_empty() && (known.proved || pods.iter().any(|pod| is_ready(pod)));
        known.faltering = !known.proved && only_end(&pods, known.faltering, Timestamp::now());
        known.faltering
    }

    fn metrics_addresses(&self, _queue: &str) -> Vec<(String, String)> {
        // Prometheus finds pods by itself.
        Vec::new()
    }

    async fn apply(&mut self, intents: &[Intent<'_>]) {
        let mut queues = std::mem::take(&mut self.queues);
        let by_name: BTreeMap<&str, &Intent<'_>> =
            intents.iter().map(|intent| (intent.manifest.queue_name(), intent)).collect();
        let (this, by_name) = (&*self, &by_name);
        let each = queues.iter_mut().filter_map(|(name, known)| Some((known, *by_name.get(name.as_str())?)));
        let apply = async |(known, intent): (&mut Known, &Intent<'_>)| {
            known.outcome = this.apply_queue(known, intent).await.unwrap_or_else(|error| Outcome::of(&error));
        };
        futures_util::stream::iter(each).for_each_concurrent(AT_ONCE, apply).await;
        self.queues = queues;
    }

    /// The pods outlive the operator.
    async fn drain(&mut self) {}

    async fn end_now(&mut self) {}
}
