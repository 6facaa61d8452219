//! All writes to Kubernetes (but the Lease). Decides nothing, and writes nothing unless we lead.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};
use rowlock_crds::TaskQueue;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::build::MANAGER;
use super::election::{Leadership, REQUEST_TIMEOUT};
use super::managed::{RESTARTED_AT, without_strangers};

/// The longest note of an event that the API takes.
const LONGEST_NOTE: usize = 1000;

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("another replica leads")]
    NotLeading,
    #[error("the API server did not answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Late,
    #[error("{}", said(.0))]
    Api(#[from] kube::Error),
}

/// The server's own words, without our library's frame around them; else what went wrong, down to its cause.
pub(crate) fn said(error: &kube::Error) -> String {
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

/// The hand that writes.
#[derive(Clone)]
pub(crate) struct Hand {
    client: Client,
    leadership: Leadership,
    recorder: Recorder,
}

impl Hand {
    pub(crate) fn new(client: Client, leadership: Leadership, instance: &str) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(instance.to_owned()) };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, leadership, recorder }
    }

    /// Asks the server what it would make of an object; every unknown or doubled field is refused.
    pub(crate) async fn try_out<K: Resource<DynamicType = ()>>(
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

    /// Puts our pod template in place of one that others have written to, whole.
    ///
    /// Three steps, each of which may be the last: until the third a stranger is seen, and all begins anew.
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
        self.put::<K>(&live).await?;
        let mut applied = self.apply::<K>(object).await?;
        let entries = applied.metadata.managed_fields.take().unwrap_or_default();
        applied.metadata.managed_fields = Some(without_strangers(entries));
        self.put::<K>(&applied).await
    }

    /// Writes the status of a `TaskQueue`.
    pub(crate) async fn status(&self, namespace: &str, name: &str, status: &Value) -> Result<(), WriteError> {
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
    pub(crate) async fn event(&self, about: &ObjectReference, warning: bool, reason: &str, note: &str) {
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(note.chars().take(LONGEST_NOTE).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.bounded(self.recorder.publish(&event, about)).await {
            tracing::debug!(%error, "an event was not written");
        }
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
