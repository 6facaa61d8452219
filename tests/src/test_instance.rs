//! An instance played by a test: its leases, watermarks and calls.

use std::time::Duration;

use rowlock_queue::{
    Claimed, Db, Heartbeat, HeartbeatReply, InstanceId, Joined, Outcome, Runs, Settled, Settlement, Token,
    Watermarks, claim, heartbeat, join, settle,
};

/// An instance of the queue `mail`.
#[derive(Debug)]
pub struct TestInstance {
    /// The pool for its calls.
    pub db: Db,
    /// The answer to its join.
    pub joined: Joined,
    /// Its watermarks: where claims start.
    pub watermarks: Watermarks,
}

impl TestInstance {
    /// Joins with a capacity of a hundred slots.
    ///
    /// # Panics
    /// If that fails.
    pub async fn join(db: &Db, name: &str) -> Self {
        let joined = join(db, "mail", name, 100).await.expect("an instance joins");
        let watermarks = joined.watermarks.clone();
        Self { db: db.clone(), joined, watermarks }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> InstanceId {
        self.joined.instance
    }

    /// Claims and moves its watermarks as a worker does.
    ///
    /// # Panics
    /// If that fails.
    pub async fn claim(&mut self, want: u32) -> Claimed {
        let claimed =
            claim(&self.db, self.id(), want, &self.watermarks, Token::random()).await.expect("a claim");
        self.watermarks.advance(&claimed.watermark_observation);
        claimed
    }

    /// Settles all claimed tasks with the same outcome.
    ///
    /// # Panics
    /// If that fails.
    pub async fn settle(&self, claimed: &Claimed, outcome: &Outcome) -> Vec<Settled> {
        settle(&self.db, self.id(), &settlements(claimed, outcome)).await.expect("a settlement")
    }

    /// Sends a heartbeat: it holds and wants this many tasks, under allocation 0.
    ///
    /// # Panics
    /// If that fails.
    pub async fn heartbeat(&self, held: u32, wants: u32) -> HeartbeatReply {
        heartbeat(&self.db, &self.says(held, wants)).await.expect("a heartbeat")
    }

    /// Sends a heartbeat that reports a free slot.
    ///
    /// # Panics
    /// If that fails.
    pub async fn sleep(&self) -> HeartbeatReply {
        heartbeat(&self.db, &Heartbeat { idle: true, ..self.says(0, 1) }).await.expect("a heartbeat")
    }

    /// The content of its heartbeat.
    #[must_use]
    pub fn says(&self, held: u32, wants: u32) -> Heartbeat<'_> {
        Heartbeat {
            instance: self.id(),
            held,
            wants,
            allocated: 0,
            acknowledged: 0,
            watermarks: &self.watermarks,
            idle: false,
            runs: Runs::default(),
        }
    }

    /// Claims nothing repeatedly until its claims start above `k`.
    pub async fn claim_past(&mut self, k: i64) {
        while self.watermarks.as_slice().iter().any(|watermark| *watermark <= k) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            // In an empty queue the watermark moves only with the newest k.
            self.claim(1).await;
        }
    }
}

/// Settlements with the same outcome for all claimed tasks.
#[must_use]
pub fn settlements(claimed: &Claimed, outcome: &Outcome) -> Vec<Settlement> {
    let Some(token) = claimed.token else { return Vec::new() };
    let settle = |task: &rowlock_queue::Claim| Settlement { token, task: task.id, outcome: outcome.clone() };
    claimed.tasks.iter().map(settle).collect()
}
