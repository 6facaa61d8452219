//! The `TaskQueue` as a custom resource: its status, its CRD, and the rules by which the API server refuses
//! what [`Manifest::validate`](crate::Manifest::validate) refuses.

mod cel;
mod crd;
mod rules;
mod schema;
mod status;

pub use crd::{crd, crd_yaml};
pub(crate) use schema::{ca_kind, pod_template, scaling_mode};
pub use status::{BacklogStatus, DatabaseStatus, ScalingStatus, TaskQueueStatus, WorkersStatus};
