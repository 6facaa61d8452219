//! The part of a `TaskQueue` that its pods are made from. A Deployment keeps that of the old template. So the
//! old pods can be made again, also by a newer release with another worker image.

use rowlock_crds::{DatabaseSpec, Dur, HandlerSpec, PodTemplate, TaskQueueSpec, WorkerSpec};
use serde::{Deserialize, Serialize};

use crate::kubernetes::deployment::build::hash;

/// A longer text is not kept: all annotations of an object together may have 256 KiB, and the Deployment's
/// `ReplicaSets` have copies.
const LONGEST: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TemplateSource {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    database: Option<DatabaseSpec>,
    per_pod: u32,
    handler: HandlerSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template: Option<PodTemplate>,
    worker: WorkerSpec,
    timeout: Dur,
}

impl TemplateSource {
    pub(crate) fn of(spec: &TaskQueueSpec) -> Self {
        Self {
            database: spec.database.clone(),
            per_pod: spec.workers.per_pod,
            handler: spec.handler.clone(),
            template: spec.template.clone(),
            worker: spec.worker.clone(),
            timeout: spec.timeout,
        }
    }

    /// `None`: somebody has changed the annotation, or a newer release has written it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The text of the annotation; `None`: it is too long.
    pub(crate) fn text(&self) -> Option<String> {
        serde_json::to_string(self).ok().filter(|text| text.len() <= LONGEST)
    }

    pub(crate) fn hash(&self) -> String {
        hash(&serde_json::to_string(self).unwrap_or_default())
    }

    pub(crate) fn put_into(self, spec: &mut TaskQueueSpec) {
        let Self { database, per_pod, handler, template, worker, timeout } = self;
        (spec.database, spec.workers.per_pod) = (database, per_pod);
        (spec.handler, spec.template, spec.worker, spec.timeout) = (handler, template, worker, timeout);
    }
}
