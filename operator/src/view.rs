//! What one step saw and decided.

use crate::connection_limit::Limit;
use rowlock_plan::Decision;
use rowlock_queue::{Error, QueueStats};
use std::sync::Arc;

/// All queues, in the order of their names.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub queues: Vec<QueueView>,
    /// Why nothing is known about the database, when so.
    pub problem: Option<Arc<Error>>,
    /// When the server that was last seen was started, in microseconds since 1970.
    pub started_at: Option<i64>,
}

/// One queue.
#[derive(Debug, Clone)]
pub struct QueueView {
    pub name: String,
    /// Why the database does not take it as it is declared, when so.
    pub refused: Option<Arc<Error>>,
    /// Whose it is by the database.
    pub owner: Option<String>,
    /// What the database said; `None` when it said nothing.
    pub stats: Option<QueueStats>,
    /// Instances that run or start.
    pub instances: u32,
    pub decision: Decision,
    /// What limits the connections of its database, where that is known.
    pub limit: Option<Limit>,
    /// Where each instance's metrics are, by its name.
    pub metrics: Vec<(String, String)>,
}
