//! The words of a `TaskQueue`: spec, defaults, durations, the retry policy and the names around them.
//!
//! Pure: serde and nothing that could do IO. With the feature `kube` the `TaskQueue` as a custom resource,
//! its status and its CRD. In reading order:
//!
//! * [`TaskQueueSpec`] and its parts: what a manifest may say, with the defaults;
//! * [`Dur`]: durations as the API writes them (`90s`, `1h30m`);
//! * [`RetryPolicy`]: when a failed task is tried again;
//! * [`Policy`]: what of the spec is handed to the running instances;
//! * [`parse_manifests`]: YAML in, checked [`Manifest`]s or helpful errors out;
//! * [`ConditionType`], [`ConditionReason`], [`EventReason`]: the words of its status and of its events;
//! * [`listen_address`]: what an address to listen on means;
//! * [`check_variables`]: environment variables that are misspelt;
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
mod pods;
mod policy;
mod position;
#[cfg(feature = "kube")]
mod resource;
mod retry;
mod task_queue;
mod template;
mod unique_keys;
mod validate;
mod variables;

pub use conditions::{ConditionReason, ConditionType};
pub use duration::{Dur, DurError};
pub use events::EventReason;
pub use field_error::{FieldError, ManifestError};
pub use manifest::{Manifest, check_set, parse_manifests};
pub use names::{annotations, api, containers, env, labels};
pub use pods::{Quantity, ResourcesSpec, RolloutSpec, Surge, WorkerSpec};
pub use policy::Policy;
#[cfg(feature = "kube")]
pub use resource::{
    BacklogStatus, DatabaseStatus, ScalingStatus, TaskQueueStatus, WorkersStatus, crd, crd_yaml,
};
pub use retry::{Backoff, MAX_RETRY_DELAY, RetryPolicy};
#[cfg(feature = "kube")]
pub use task_queue::TaskQueue;
pub use task_queue::{
    AutoscalingSpec, CaKind, CaRef, CleanupSpec, DatabaseSpec, HandlerSpec, HttpHandlerSpec, LimitsSpec,
    ScalingMode, SecretKeyRef, TaskQueueSpec, WorkersSpec,
};
pub use validate::unknown_names;
pub use variables::{UnknownVariable, check_variables};
