//! The words of a `TaskQueue`: spec, defaults, durations, the retry policy and the names around them.
//!
//! Pure: serde and nothing that could do IO. In reading order:
//!
//! * [`TaskQueueSpec`] and its parts: what a manifest may say, with the defaults;
//! * [`Dur`]: durations as the API writes them (`90s`, `1h30m`);
//! * [`RetryPolicy`]: when a failed task is tried again;
//! * [`Policy`]: what of the spec is handed to the running instances;
//! * [`parse_manifests`]: YAML in, checked [`Manifest`]s or helpful errors out;
//! * [`api`], [`env`](mod@env), [`annotations`], [`containers`]: names used by more than one crate.

mod duration;
mod explain;
mod locate;
mod manifest;
mod names;
mod once;
mod policy;
mod retry;
mod task_queue;
mod validate;

pub use duration::{Dur, DurError};
pub use explain::{FieldError, ManifestError};
pub use manifest::{Manifest, check_set, parse_manifests};
pub use names::{annotations, api, containers, env};
pub use policy::Policy;
pub use retry::{Backoff, MAX_RETRY_DELAY, RetryPolicy};
pub use task_queue::{
    AutoscalingSpec, CleanupSpec, DatabaseSpec, HandlerSpec, HttpHandlerSpec, LimitsSpec, SecretKeyRef,
    TaskQueueSpec, WorkersSpec,
};
