//! The vocabulary of a `TaskQueue`: spec, defaults, durations, the retry policy and the related names.
//!
//! This crate is pure: it uses serde and does no IO. The feature `kube` adds the `TaskQueue` as a custom
//! resource, with its status and its CRD. In reading order:
//!
//! * [`TaskQueueSpec`] and its parts: the fields of a manifest, with their defaults;
//! * [`PodTemplate`]: its pod template;
//! * [`Dur`]: durations as the API writes them (`90s`, `1h30m`);
//! * [`RetryPolicy`]: when a failed task is retried;
//! * [`Policy`]: the part of the spec that running instances get;
//! * [`parse_manifests`]: reads YAML and returns checked [`Manifest`]s or helpful errors;
//! * [`ConditionType`], [`ConditionReason`], [`EventReason`]: the names in its status and in its events;
//! * [`listen_address`]: the addresses that a listen address stands for;
//! * [`check_variables`]: finds misspelt environment variables;
//! * [`api`], [`env`](mod@env), [`annotations`], [`labels`], [`containers`]: names used by more than one
//!   crate.

#![warn(missing_docs)]

mod bounds;
mod conditions;
mod duration;
mod events;
mod field_error;
pub mod listen_address;
mod manifest;
mod names;
mod policy;
mod position;
#[cfg(feature = "kube")]
mod resource;
mod retry;
mod target;
mod task_queue;
mod template;
mod unique_keys;
mod validate;
mod variables;
mod worker_and_rollout;

pub use conditions::{ConditionReason, ConditionType};
pub use duration::{Dur, DurError};
pub use events::EventReason;
pub use field_error::{FieldError, ManifestError};
pub use manifest::{Manifest, check_set, parse_manifests};
pub use names::{annotations, api, containers, env, labels};
pub use policy::Policy;
#[cfg(feature = "kube")]
pub use resource::{
    BacklogStatus, CanaryStatus, DatabaseStatus, ScalingInputs, ScalingStatus, TaskQueueStatus,
    WorkersStatus, crd, crd_yaml,
};
pub use retry::{Backoff, MAX_RETRY_DELAY, RetryPolicy};
pub use target::{TargetApiVersion, TargetKind, TargetRef};
#[cfg(feature = "kube")]
pub use task_queue::TaskQueue;
pub use task_queue::{
    AutoscalingSpec, CaKind, CaRef, CleanupSpec, DatabaseSpec, HandlerSpec, HttpHandlerSpec, LimitsSpec,
    ScalingMode, ScalingPreference, SecretKeyRef, TaskQueueSpec, WorkersSpec,
};
pub use template::PodTemplate;
pub use validate::unknown_names;
pub use variables::{UnknownVariable, check_variables};
pub use worker_and_rollout::{CanarySpec, Quantity, ResourcesSpec, RolloutSpec, Surge, WorkerSpec};
