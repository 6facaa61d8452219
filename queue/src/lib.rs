//! Tables and verbs: the only crate that talks to Postgres. One verb per file; the verbs themselves are SQL functions in
//! `migrations/`, so that any client can enqueue and plans are pinned where it matters.
//!
//! In reading order: [`Db`] and [`Error`], [`Db::migrate`], [`declare`], [`enqueue`], then what an instance does ([`join`],
//! [`beat`], [`claim`], [`fetch`], [`settle`], [`drain`], [`leave`]), the caretakers ([`Caretaker`]), and what people ask.

mod beat;
mod bell;
mod care;
mod claim;
mod connect;
mod db;
mod declare;
mod enqueue;
mod error;
mod fetch;
mod identity;
mod ids;
mod instance;
mod lows;
mod maintenance;
mod migrate;
mod mutex;
mod overview;
mod partitions;
mod people;
mod pool;
mod reach;
mod rights;
mod settle;
mod stats;
mod story;
mod sweep;
mod tenants;
mod text;

pub use beat::{Beat, BeatIn, beat};
pub use bell::{Bell, keep_bell, listen};
pub use care::{CareReport, Caretaker};
pub use claim::{CLAIM_MAX, Claim, Claimed, claim, claim_again};
pub use connect::{Access, Connect, UrlTrust};
pub use db::{BEAT, Db, LEASE, STATEMENT_TIMEOUT};
pub use declare::{Declaration, NOT_THE_OWNER, adopt, declare, policy};
pub use enqueue::{EnqueueOptions, enqueue, enqueue_many};
pub use error::Error;
pub use fetch::{TaskBody, blames_a_row, fetch};
pub use identity::{Identity, identity};
pub use ids::{InstanceId, QueueId, TaskId, Token};
pub use instance::{Joined, drain, hand_back_strays, join, leave};
pub use lows::{Lows, LowsSeen};
pub use maintenance::maintain;
pub use migrate::{MigrateReport, SCHEMA_VERSION};
pub use mutex::{Duty, LockHolder, lock_holders};
pub use overview::{ConnectionLimit, Declared, Overview, overview};
pub use partitions::{PartitionStats, extend_partitions, partition_stats};
pub use people::{Audit, Cancelled, audit, cancel, delete_queue, redrive, redrive_dead};
pub use reach::Reach;
pub use rights::may_work;
pub use settle::{Outcome, SETTLE_MAX, Settled, Settlement, settle};
pub use stats::{QueueStats, queue_stats};
pub use story::{Failure, Story, TaskLine, list, story};
pub use sweep::Noted;
pub use tenants::{Tenant, Tenants};

/// What every verb answers.
pub type Result<T> = std::result::Result<T, Error>;
