//! The times that every part of this crate agrees on.

use std::time::Duration;

/// How often an instance sends a heartbeat. A heartbeat is one small append, so once a second is cheap, and a
/// changed allocation arrives within two heartbeats. The reply says whether tasks are available, so the
/// heartbeat is also the poll: a NOTIFY is only a hint.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How long an instance owns what it claimed after its last heartbeat: long enough for a restart of Postgres
/// or a pause of the machine, short enough that a task starts again soon after its node died.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// The limit of a single statement: longer than a stalled checkpoint, and a third of a lease.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
