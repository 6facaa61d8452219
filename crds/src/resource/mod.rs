//! The `TaskQueue` as a custom resource: its status, its CRD, and the validation rules. With these rules the
//! API server refuses what [`Manifest::validate`](crate::Manifest::validate) refuses.

mod cel;
mod crd;
mod rules;
mod schema;
mod status;

pub use crd::{crd, crd_yaml};
pub(crate) use schema::{ca_kind, pod_template, scaling_mode, target_api_version, target_kind};
pub use status::{
    BacklogStatus, CanaryStatus, DatabaseStatus, ScalingInputs, ScalingStatus, TaskQueueStatus, WorkersStatus,
};
