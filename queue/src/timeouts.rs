//! The times on which all parts of this crate depend.

use std::time::Duration;

/// How often an instance sends a heartbeat. A heartbeat inserts one small row, so once a second is cheap, and
/// a changed allocation arrives within two heartbeats. The reply tells whether tasks are available, so the
/// heartbeat is also the poll; a NOTIFY is only a hint.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How long an instance keeps its claimed tasks after its last heartbeat. It is long enough for a restart of
/// Postgres or a pause of the machine, and short enough that a task starts again soon after its node has
/// died.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// The limit of a single statement. It is longer than a stalled checkpoint, and a third of a lease.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
