//! The tables and SQL functions of Rowlock. Only this crate talks to Postgres.
//!
//! The verbs (enqueue, claim and so on) are SQL functions in `sql/`, over the tables of `migrations/`, so
//! that any client can enqueue. Most files of `sql/` have a Rust file of the same name here, which calls
//! their functions.
//!
//! In reading order: [`Db`] and [`Error`], [`Db::migrate`], [`declare()`], [`enqueue()`], then what an
//! instance does ([`join`], [`heartbeat()`], [`claim()`], [`fetch()`], [`settle()`], [`drain`], [`leave`]),
//! maintenance ([`Maintainer`]), and administration ([`list_tasks()`], [`describe_task`], [`retry()`],
//! [`cancel()`]).

#![warn(missing_docs)]

mod arrivals;
mod audit;
mod cancel;
mod claim;
mod connect;
mod database_error;
mod db;
mod declare;
mod delete_queue;
mod drain_pods;
mod enqueue;
mod enqueue_many;
mod error;
mod fetch;
mod foreign_text;
mod heartbeat;
mod host_policy;
mod identity;
mod ids;
mod inspect;
mod instances;
mod list_tasks;
mod maintenance;
mod migrate;
mod mutex;
mod notify;
mod overview;
mod partitions;
mod permissions;
mod pod_runs;
mod pool;
mod release;
mod rescue_pod;
mod retention;
mod retry;
mod runs;
mod scaling_decisions;
mod settle;
mod sql_files;
mod statistics;
mod suspects;
mod task_state;
mod tenant_limits;
mod timeouts;
mod watermark_sweep;
mod watermarks;

pub use arrivals::{ARRIVALS_READ_MOST, Arrivals, arrivals};
pub use audit::{Audit, audit};
pub use cancel::{Cancelled, cancel};
pub use claim::{CLAIM_MAX, Claim, Claimed, claim, claim_again, claim_with_payloads};
pub use connect::{Access, Connect, UrlTrust};
pub use db::Db;
pub use declare::{Declaration, LONGEST_OWNER, NOT_THE_OWNER, adopt, declare, is_owner};
pub use delete_queue::delete_queue;
pub use drain_pods::{DrainPods, DrainingPod, drain_pods};
pub use enqueue::{EnqueueOptions, enqueue};
pub use enqueue_many::enqueue_many;
pub use error::Error;
pub use fetch::{FetchedTask, ProducerTrace, fetch, is_row_error};
pub use heartbeat::{Heartbeat, HeartbeatReply, heartbeat};
pub use host_policy::HostPolicy;
pub use identity::{Identity, identity};
pub use ids::{InstanceId, QueueId, TaskId, Token};
pub use inspect::{TaskDetails, TaskError, describe_task};
pub use instances::{Joined, drain, join, join_in_pod, leave, policy};
pub use list_tasks::{TaskSummary, list_tasks};
pub use maintenance::{Maintainer, MaintenancePass, MaintenanceReport};
pub use migrate::{MigrateReport, SCHEMA_VERSION};
pub use mutex::{ExclusiveOperation, LockHolder, lock_holders};
pub use notify::{Listener, listen, request_notify};
pub use overview::{ConnectionLimit, Declared, HORIZON_KINDS, HorizonHolder, Overview, overview};
pub use partitions::{PartitionStats, extend_partitions, partition_stats};
pub use permissions::has_worker_permission;
pub use pod_runs::{ComparedPods, pod_runs};
pub use release::release_unknown_leases;
pub use rescue_pod::{EndedPod, rescue_pod};
pub use retention::maintain_partitions;
pub use retry::{retry, retry_all_dead};
pub use runs::Runs;
pub use scaling_decisions::{
    DecidedAt, RECORD_MOST, ScalingDecision, ScalingFigures, ScalingRecord, record_scaling_decisions,
    scaling_decisions,
};
pub use settle::{Outcome, SETTLE_MAX, Settled, Settlement, settle};
pub use statistics::{ARRIVAL_SECONDS, QueueStats, queue_stats};
pub use suspects::{EndedHandler, claim_suspect, name_handler_end};
pub use task_state::{TaskState, UnknownState};
pub use tenant_limits::{Tenant, Tenants};
pub use timeouts::{HEARTBEAT_INTERVAL, LEASE_DURATION, STATEMENT_TIMEOUT};
pub use watermark_sweep::HorizonNote;
pub use watermarks::{WatermarkObservation, Watermarks};

/// The result of every verb.
pub type Result<T> = std::result::Result<T, Error>;
