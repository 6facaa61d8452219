//! All writes to Kubernetes except for the Lease. It writes only while this replica leads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use rowlock_crds::TaskQueue;
use rowlock_crds::api::FIELD_MANAGER;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::kubernetes::api::events::{NewEvent, RecentEvents};
use crate::kubernetes::api::field_managers::{RESTARTED_AT, without_foreign_managers};
use crate::kubernetes::api::kept::Metadata;
use crate::kubernetes::api::leader_election::{Leadership, REQUEST_TIMEOUT};
use crate::kubernetes::deployment::scale_in::DELETION_COST;

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("another replica leads")]
    NotLeading,
    #[error("the API server did not answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Late,
    #[error("{}", detail(.0))]
    Api(#[from] kube::Error),
}

impl WriteError {
    /// Whether the operator lacks the rights.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 403)
    }

    /// Whether another writer has changed the object since it was read.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 409)
    }

    /// Why the server rejects the object itself. `None` if rights are missing, or a retry may help.
    pub(crate) fn rejection(&self) -> Option<String> {
        let Self::Api(kube::Error::Api(status)) = self else { return None };
        let message = &status.message;
        let is_rejected = match status.code {
            400 | 422 => true,
            // RBAC names the verb; policies and admission plugins name the object.
            403 => !message.contains("cannot patch resource") && !message.contains("cannot create resource"),
            // The server answers this to a field that its schema does not have.
            500 => message.contains("failed to create typed patch object"),
            _ => false,
        };
        is_rejected.then(|| message.clone())
    }
}

/// The server's message alone, or the error with its causes.
pub(crate) fn detail(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    let mut causes = vec![error.to_string()];
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        // Some errors already contain the text of their cause.
        if causes.last().is_none_or(|last| !last.ends_with(&text)) {
            causes.push(text);
        }
        next = cause.source();
    }
    causes.join(": ")
}

/// Writes while this replica leads.
#[derive(Clone)]
pub(crate) struct Writer {
    client: Client,
    leadership: Leadership,
    /// The reporting instance of events.
    instance: String,
    recent_events: Arc<Mutex<RecentEvents>>,
}

impl Writer {
    pub(crate) fn new(client: Client, leadership: Leadership, instance: &str) -> Self {
        Self { client, leadership, instance: instance.to_owned(), recent_events: Arc::default() }
    }

    /// A dry run of an apply. The server rejects unknown and duplicate fields.
    pub(crate) async fn dry_run<K: Resource<DynamicType = ()>>(
        &self,
        object: &Value,
    ) -> Result<(), WriteError> {
        let params = params().dry_run().validation_strict();
        self.patch::<K>(object, &params).await.map(drop)
    }

    /// Applies an object, and takes over its fields from other field managers.
    pub(crate) async fn apply<K: Resource<DynamicType = ()>>(
        &self,
        object: &Value,
    ) -> Result<DynamicObject, WriteError> {
        self.patch::<K>(object, &params().validation_strict()).await
    }

    /// Changes the number of pods of a Deployment, and nothing else.
    pub(crate) async fn scale(
        &self,
        namespace: &str,
        name: &str,
        replicas: u32,
    ) -> Result<DynamicObject, WriteError> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        self.bounded(self.api::<Deployment>(namespace).patch(name, &params, &patch)).await
    }

    /// Sets the scale of an object; a conflict if it has changed since it was read. Returns whether this has
    /// changed it.
    pub(crate) async fn set_scale<K: Resource<DynamicType = ()>>(
        &self,
        read: &Metadata,
        replicas: u32,
    ) -> Result<bool, WriteError> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        // A merge patch: the API server has no server-side apply for the scale of custom resources.
        let metadata = json!({ "resourceVersion": read.resource_version });
        let patch = Patch::Merge(json!({ "metadata": metadata, "spec": { "replicas": replicas } }));
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let api = self.api::<K>(&text(&read.namespace));
        let scale = self.bounded(api.patch_scale(&text(&read.name), &params, &patch)).await?;
        Ok(scale.metadata.resource_version != read.resource_version)
    }

    /// Sets the deletion cost of a pod; `None` removes it. A conflict if another pod has this name by now.
    pub(crate) async fn set_deletion_cost(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        cost: Option<&str>,
    ) -> Result<(), WriteError> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let metadata = json!({ "uid": uid, "annotations": { DELETION_COST: cost } });
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        self.bounded(self.api::<Pod>(namespace).patch(name, &params, &patch)).await.map(drop)
    }

    /// Replaces the whole pod template, where foreign field managers have changed it.
    ///
    /// It takes three writes. If one fails, the foreign field manager is still visible, and the next pass
    /// starts again.
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
        // With the resourceVersion, a change in between is a conflict.
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

    /// Publishes an event. A failure is only logged: events are not essential.
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
                // The API server deletes events after an hour.
                Err(WriteError::Api(kube::Error::Api(status))) if status.code == 404 => {
                    self.recent_events().forget(new_event);
                }
                answer => return answer.map(drop),
            }
        }
        let name = format!(
            "{}.{:x}",
            new_event.regarding.name.as_deref().unwrap_or(FIELD_MANAGER),
            time.as_nanosecond()
        );
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
            reporting_controller: Some(FIELD_MANAGER.to_owned()),
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
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
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

/// A request with the time limit of all requests.
pub(crate) async fn bounded<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, WriteError> {
    Ok(timeout(REQUEST_TIMEOUT, request).await.map_err(|_| WriteError::Late)??)
}

fn params() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn a_rejected_object_is_distinguished_from_missing_rights_and_transient_errors() {
        let table = [
            (422, "Deployment.apps \"x\" is invalid: image: Required value", true),
            (
                403,
                "deployments.apps \"x\" is forbidden: User \"y\" cannot patch resource \"deployments\"",
                false,
            ),
            (403, "admission webhook \"policy\" denied the request: no latest tags", true),
            (409, "the object has been modified", false),
            (
                500,
                "failed to create typed patch object (shop/x; apps/v1, Kind=Deployment): .spec.x: field not \
                 declared",
                true,
            ),
            (500, "etcdserver: request timed out", false),
        ];
        for (code, message, expected) in table {
            let status = Status { code, message: message.to_owned(), ..Status::default() };
            let error = WriteError::Api(kube::Error::Api(Box::new(status)));
            assert_eq!(error.rejection().is_some(), expected, "{message}");
        }
    }
}
