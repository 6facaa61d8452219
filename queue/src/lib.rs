//! Tables and verbs: the only crate that talks to Postgres. One verb per file; the verbs themselves are SQL functions in
//! `sql/`, over the tables of `migrations/`, so that any client can enqueue and plans are pinned where it matters.
//!
//! In reading order: [`Db`] and [`Error`], [`Db::migrate`], [`declare`], [`enqueue`], then what an instance does ([`join`],
//! [`heartbeat`], [`claim`], [`fetch`], [`settle`], [`drain`], [`leave`]), the maintainers ([`Maintainer`]), and what people ask.

mod admin;
mod claim;
mod connect;
mod db;
mod declare;
mod enqueue;
mod error;
mod fetch;
mod functions;
mod heartbeat;
mod host_policy;
mod identity;
mod ids;
mod inspect;
mod instance;
mod maintenance;
mod migrate;
mod mutex;
mod notify;
mod overview;
mod partition_maintenance;
mod partitions;
mod permissions;
mod pool;
mod settle;
mod statistics;
mod tenants;
mod text;
mod watermark;
mod watermark_sweep;

pub use admin::{Audit, Cancelled, audit, cancel, delete_queue, retry, retry_all_dead};
pub use claim::{CLAIM_MAX, Claim, Claimed, claim, claim_again};
pub use connect::{Access, Connect, UrlTrust};
pub use db::{Db, HEARTBEAT_INTERVAL, LEASE_DURATION, STATEMENT_TIMEOUT};
pub use declare::{Declaration, NOT_THE_OWNER, adopt, declare, policy};
pub use enqueue::{EnqueueOptions, enqueue, enqueue_many};
pub use error::Error;
pub use fetch::{FetchedTask, fetch, is_row_error};
pub use heartbeat::{Heartbeat, HeartbeatReply, heartbeat};
pub use host_policy::HostPolicy;
pub use identity::{Identity, identity};
pub use ids::{InstanceId, QueueId, TaskId, Token};
pub use inspect::{TaskDetails, TaskError, TaskSummary, describe_task, list_tasks};
pub use instance::{Joined, drain, join, leave, release_unknown_leases};
pub use maintenance::{Maintainer, MaintenanceReport};
pub use migrate::{MigrateReport, SCHEMA_VERSION};
pub use mutex::{ExclusiveOperation, LockHolder, lock_holders};
pub use notify::{Listener, listen, request_notify};
pub use overview::{ConnectionLimit, Declared, Overview, overview};
pub use partition_maintenance::maintain_partitions;
pub use partitions::{PartitionStats, extend_partitions, partition_stats};
pub use permissions::has_worker_permission;
pub use settle::{Outcome, SETTLE_MAX, Settled, Settlement, settle};
pub use statistics::{QueueStats, queue_stats};
pub use tenants::{Tenant, Tenants};
pub use watermark::{WatermarkObservation, Watermarks};
pub use watermark_sweep::HorizonNote;

/// What every verb answers.
pub type Result<T> = std::result::Result<T, Error>;
