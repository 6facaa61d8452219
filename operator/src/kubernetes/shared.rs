//! What all loops of the operator share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::DeserializeGuard;
use kube::{Client, ResourceExt};
use rowlock_crds::{ConditionType, TaskQueue, TaskQueueStatus, labels};
use serde_json::json;
use tokio::sync::watch;

use super::apply::{Hand, WriteError};
use super::config::Config;
use super::database::{Source, Trouble};
use super::election::Leadership;
use super::watch::Followed;
use crate::view::View;

pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) config: Config,
    pub(crate) hand: Hand,
    pub(crate) leadership: Leadership,
    /// The cluster's own name for itself: queues belong to a cluster, a namespace and a `TaskQueue`.
    pub(crate) cluster: String,
    pub(crate) task_queues: Followed<DeserializeGuard<TaskQueue>>,
    /// Told of each change of a `TaskQueue`.
    pub(crate) changed: watch::Sender<()>,
    views: Mutex<BTreeMap<Source, View>>,
}

/// A `TaskQueue` that this release cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) generation: Option<i64>,
    pub(crate) error: String,
}

impl Shared {
    pub(crate) fn new(
        client: Client,
        config: Config,
        hand: Hand,
        leadership: Leadership,
        cluster: String,
    ) -> Self {
        let changed = watch::Sender::new(());
        let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let api = match &said(&config.namespace) {
            Some(namespace) => kube::Api::namespaced(client.clone(), namespace),
            None => kube::Api::all(client.clone()),
        };
        let selector = match said(&config.class) {
            Some(class) => format!("{}={class}", labels::CLASS),
            None => format!("!{}", labels::CLASS),
        };
        let task_queues = Followed::start(api, &selector, &changed);
        Self { client, config, hand, leadership, cluster, task_queues, changed, views: Mutex::default() }
    }

    /// Those that this release can read and that are not being deleted.
    pub(crate) fn readable(&self) -> Vec<Arc<TaskQueue>> {
        let all = self.task_queues.all();
        let readable = all.iter().filter_map(|one| one.0.as_ref().ok());
        readable.filter(|one| one.metadata.deletion_timestamp.is_none()).cloned().map(Arc::new).collect()
    }

    pub(crate) fn unread(&self) -> Vec<Unread> {
        let all = self.task_queues.all();
        let unread = all.iter().filter_map(|one| one.0.as_ref().err());
        unread
            .map(|one| Unread {
                namespace: one.metadata.namespace.clone().unwrap_or_default(),
                name: one.metadata.name.clone().unwrap_or_default(),
                generation: one.metadata.generation,
                error: one.error.clone(),
            })
            .collect()
    }

    pub(crate) fn queues_of(&self, of: &Source) -> Vec<Arc<TaskQueue>> {
        let mut all = self.readable();
        all.retain(|one| Source::of(one).as_ref() == Some(of));
        all
    }

    /// For the metrics.
    pub(crate) fn show(&self, source: &Source, view: Option<&View>) {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        match view {
            Some(view) => drop(views.insert(source.clone(), view.clone())),
            None => drop(views.remove(source)),
        }
    }

    /// What was last seen, by namespace.
    pub(crate) fn views(&self) -> Vec<(String, View)> {
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.iter().map(|(source, view)| (source.namespace.clone(), view.clone())).collect()
    }

    pub(crate) async fn write_status(
        &self,
        one: &TaskQueue,
        status: &TaskQueueStatus,
    ) -> Result<(), WriteError> {
        let namespace = one.namespace().unwrap_or_default();
        self.hand.status(&namespace, &one.name_any(), &json!(status)).await
    }

    /// Events for what people want to hear of.
    pub(crate) async fn tell(
        &self,
        about: &ObjectReference,
        before: &TaskQueueStatus,
        after: &TaskQueueStatus,
        trouble: Option<&Trouble>,
    ) {
        for type_ in [ConditionType::Ready, ConditionType::Stalled, ConditionType::HandlerHealthy] {
            let of = |status: &TaskQueueStatus| {
                let found = status.conditions.iter().find(|one| one.type_ == type_.as_str());
                found.map(|one| (one.status.clone(), one.reason.clone()))
            };
            let (Some(now), then) = (of(after), of(before)) else { continue };
            if then.as_ref() == Some(&now) {
                continue;
            }
            match (type_, now.0.as_str(), trouble) {
                (ConditionType::Ready, "True", _) => {
                    self.hand.event(about, false, "Ready", "tasks are done as they come").await;
                }
                (ConditionType::Stalled, "True", Some(trouble))
                | (ConditionType::HandlerHealthy, "False", Some(trouble)) => {
                    self.hand.event(about, true, &now.1, &trouble.message).await;
                }
                _ => (),
            }
        }
    }
}
