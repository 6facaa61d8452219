//! A `TaskQueue` as the API server sent it, whether or not this release can read it.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use rowlock_crds::TaskQueue;
use serde::{Deserialize, Deserializer};

/// Shared with all who read it: its pod template has many parts, and each copy takes some KiB.
#[derive(Debug, Clone)]
pub(crate) struct ReceivedTaskQueue(pub(crate) Result<Arc<TaskQueue>, InvalidObject>);

impl ReceivedTaskQueue {
    /// Without the field managers.
    pub(crate) fn trimmed(mut self) -> Self {
        self.meta_mut().managed_fields = None;
        self
    }
}

impl<'de> Deserialize<'de> for ReceivedTaskQueue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DeserializeGuard::deserialize(deserializer).map(|DeserializeGuard(one)| Self(one.map(Arc::new)))
    }
}

impl Resource for ReceivedTaskQueue {
    type DynamicType = <TaskQueue as Resource>::DynamicType;
    type Scope = <TaskQueue as Resource>::Scope;

    fn kind(of: &Self::DynamicType) -> Cow<'_, str> {
        TaskQueue::kind(of)
    }

    fn group(of: &Self::DynamicType) -> Cow<'_, str> {
        TaskQueue::group(of)
    }

    fn version(of: &Self::DynamicType) -> Cow<'_, str> {
        TaskQueue::version(of)
    }

    fn plural(of: &Self::DynamicType) -> Cow<'_, str> {
        TaskQueue::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|unreadable| &unreadable.metadata, |one| &one.metadata)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(one) => &mut Arc::make_mut(one).metadata,
            Err(unreadable) => &mut unreadable.metadata,
        }
    }
}
