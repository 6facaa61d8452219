//! All writes to Kubernetes (but the Lease). Decides nothing, and writes nothing unless we lead.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use rowlock_crds::TaskQueue;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::kubernetes::api::events::{NewEvent, RecentEvents};
use crate::kubernetes::api::leader_election::{Leadership, REQUEST_TIMEOUT};
use crate::kubernetes::deployment::build::MANAGER;
use crate::kubernetes::deployment::field_managers::{RESTARTED_AT, without_foreign_managers};

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("another replica leads")]
    NotLeading,
    #[error("the API server did not answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Late,
    #[error("{}", detail(.0))]
    Api(#[from] kube::Error),
}

/// The server's own words, without our library's frame around them; else what went wrong, down to its cause.
pub(crate) fn detail(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    let mut causes = vec![error.to_string()];
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        // Some repeat their cause themselves.
        if causes.last().is_none_or(|last| !last.ends_with(&text)) {
            causes.push(text);
        }
        next = cause.source();
    }
    causes.join(": ")
}

/// Writes, while this replica leads.
#[derive(Clone)]
pub(crate) struct Writer {
    client: Client,
    leadership: Leadership,
    /// Of these events.
    instance: String,
    recent_events: Arc<Mutex<RecentEvents>>,
}

impl Writer {
    pub(crate) fn new(client: Client, leadership: Leadership, instance: &str) -> Self {
        Self { client, leadership, instance: instance.to_owned(), recent_events: Arc::default() }
    }

    /// Asks the server what it would make of an object; every unknown or doubled field is refused.
    pub(crate) async fn dry_run<K: Resource<DynamicType = ()>>(
        &self,
        object: &Value,
    ) -> Result<(), WriteError> {
        let params = params().dry_run().validation_strict();
        self.patch::<K>(object, &params).await.map(drop)
    }

    /// Makes an object so, whoever else had a say in our fields.
    pub(crate) async fn apply<K: Resource<DynamicType = ()>>(
        &self,
        object: &Value,
    ) -> Result<DynamicObject, WriteError> {
        self.patch::<K>(object, &params().validation_strict()).await
    }

    /// Changes how many pods a Deployment has, and nothing else.
    pub(crate) async fn scale(
        &self,
        namespace: &str,
        name: &str,
        replicas: u32,
    ) -> Result<DynamicObject, WriteError> {
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        self.bounded(self.api::<Deployment>(namespace).patch(name, &params, &patch)).await
    }

    /// Sets the scale of a `TaskQueue`, unless somebody has changed it since it was read.
    pub(crate) async fn scale_task_queue(&self, read: &TaskQueue, replicas: u32) -> Result<(), WriteError> {
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        // Not by an apply, which the API server does not know for the scale of custom resources.
        let metadata = json!({ "resourceVersion": read.resource_version() });
        let patch = Patch::Merge(json!({ "metadata": metadata, "spec": { "replicas": replicas } }));
        let api: Api<TaskQueue> = Api::namespaced(self.client.clone(), &read.namespace().unwrap_or_default());
        self.bounded(api.patch_scale(&read.name_any(), &params, &patch)).await.map(drop)
    }

    /// Puts our pod template in place of one that others have written to, whole.
    ///
    /// Three steps, each of which may be the last: until the third a foreign field manager is seen, and all begins anew.
    pub(crate) async fn replace_template<K: Resource<DynamicType = ()>>(
        &self,
        mut live: DynamicObject,
        object: &Value,
    ) -> Result<DynamicObject, WriteError> {
        let mut template = object["spec"]["template"].clone();
        let restarted = &live.data["spec"]["template"]["metadata"]["annotations"][RESTARTED_AT];
        if restarted.is_string() {
            template["metadata"]["annotations"][RESTARTED_AT] = restarted.clone();
        }
        live.data["spec"]["template"] = template;
        // With its resourceVersion: who changes it meanwhile is seen first.
        let put = self.put::<K>(&live).await?;
        let mut object = object.clone();
        if object["metadata"]["resourceVersion"].is_string() {
            object["metadata"]["resourceVersion"] = put.resource_version().into();
        }
        let mut applied = self.apply::<K>(&object).await?;
        let entries = applied.metadata.managed_fields.take().unwrap_or_default();
        applied.metadata.managed_fields = Some(without_foreign_managers(entries));
        self.put::<K>(&applied).await
    }

    /// Writes the status of a `TaskQueue`.
    pub(crate) async fn write_status(
        &self,
        namespace: &str,
        name: &str,
        status: &Value,
    ) -> Result<(), WriteError> {
        let object = json!({
            "apiVersion": rowlock_crds::api::API_VERSION,
            "kind": rowlock_crds::api::KIND,
            "metadata": { "name": name },
            "status": status,
        });
        let api = self.api::<TaskQueue>(namespace);
        let patch = Patch::Apply(&object);
        self.bounded(api.patch_status(name, &params(), &patch)).await.map(drop)
    }

    /// Tells people of a change. An event that cannot be written is not worth a failure.
    pub(crate) async fn publish_event(&self, new_event: &NewEvent<'_>) {
        if let Err(error) = self.try_publish(new_event).await {
            tracing::debug!(%error, "an event was not written");
        }
    }

    async fn try_publish(&self, new_event: &NewEvent<'_>) -> Result<(), WriteError> {
        let time = Timestamp::now();
        let api: Api<Event> = Api::namespaced(
            self.client.clone(),
            new_event.regarding.namespace.as_deref().unwrap_or("default"),
        );
        let again = self.recent_events().count_again(new_event, Instant::now());
        if let Some((name, count)) = again {
            let series = json!({ "series": { "count": count, "lastObservedTime": MicroTime(time) } });
            let patch = Patch::Merge(&series);
            match self.bounded(api.patch(&name, &PatchParams::default(), &patch)).await {
                // Events go after an hour.
                Err(WriteError::Api(kube::Error::Api(status))) if status.code == 404 => {
                    self.recent_events().forget(new_event);
                }
                answer => return answer.map(drop),
            }
        }
        let name =
            format!("{}.{:x}", new_event.regarding.name.as_deref().unwrap_or(MANAGER), time.as_nanosecond());
        let type_ = if new_event.warning { "Warning" } else { "Normal" };
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: new_event.regarding.namespace.clone(),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(time)),
            regarding: Some(new_event.regarding.clone()),
            related: new_event.related.clone(),
            type_: Some(type_.to_owned()),
            reason: Some(new_event.reason.to_owned()),
            action: Some(new_event.action.to_owned()),
            note: Some(new_event.short_note()),
            reporting_controller: Some(MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        };
        self.bounded(api.create(&PostParams::default(), &event)).await?;
        self.recent_events().insert(new_event, name, Instant::now());
        Ok(())
    }

    fn recent_events(&self) -> MutexGuard<'_, RecentEvents> {
        self.recent_events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn patch<K: Resource<DynamicType = ()>>(
        &self,
        object: &Value,
        params: &PatchParams,
    ) -> Result<DynamicObject, WriteError> {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let api = self.api::<K>(text("namespace"));
        self.bounded(api.patch(text("name"), params, &Patch::Apply(object))).await
    }

    async fn put<K: Resource<DynamicType = ()>>(
        &self,
        object: &DynamicObject,
    ) -> Result<DynamicObject, WriteError> {
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let api = self.api::<K>(&object.namespace().unwrap_or_default());
        self.bounded(api.replace(&object.name_any(), &params, object)).await
    }

    fn api<K: Resource<DynamicType = ()>>(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &ApiResource::erase::<K>(&()))
    }

    async fn bounded<T>(&self, write: impl Future<Output = kube::Result<T>>) -> Result<T, WriteError> {
        if !self.leadership.may_write() {
            return Err(WriteError::NotLeading);
        }
        bounded(write).await
    }
}

/// A request, for as long as one may take.
pub(crate) async fn bounded<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, WriteError> {
    Ok(timeout(REQUEST_TIMEOUT, request).await.map_err(|_| WriteError::Late)??)
}

fn params() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}
