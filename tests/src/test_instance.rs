//! An instance as a test plays it: what it holds, where its claims start, and its verbs.

use std::time::Duration;

use rowlock_queue::{
    Claimed, Db, Heartbeat, HeartbeatReply, InstanceId, Joined, Outcome, Settled, Settlement, Token,
    Watermarks, claim, heartbeat, join, settle,
};

/// An instance of the queue `mail`.
#[derive(Debug)]
pub struct TestInstance {
    /// What its verbs run on.
    pub db: Db,
    /// What it started with.
    pub joined: Joined,
    /// From where it claims.
    pub watermarks: Watermarks,
}

impl TestInstance {
    /// Joins with room for a hundred workers.
    ///
    /// # Panics
    /// If that fails.
    pub async fn join(db: &Db, name: &str) -> Self {
        let joined = join(db, "mail", name, 100).await.expect("an instance joins");
        let watermarks = joined.watermarks.clone();
        Self { db: db.clone(), joined, watermarks }
    }

    /// Which.
    #[must_use]
    pub fn id(&self) -> InstanceId {
        self.joined.instance
    }

    /// Claims, and moves its watermark as a worker does.
    ///
    /// # Panics
    /// If that fails.
    pub async fn claim(&mut self, want: u32) -> Claimed {
        let claimed =
            claim(&self.db, self.id(), want, &self.watermarks, Token::random()).await.expect("a claim");
        self.watermarks.advance(&claimed.watermark_observation);
        claimed
    }

    /// The same outcome for all that was claimed.
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

    /// Sends a heartbeat, having had a worker free.
    ///
    /// # Panics
    /// If that fails.
    pub async fn sleep(&self) -> HeartbeatReply {
        heartbeat(&self.db, &Heartbeat { idle: true, ..self.says(0, 1) }).await.expect("a heartbeat")
    }

    /// What it says with a heartbeat.
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
            service_millis: None,
        }
    }

    /// Claims nothing again and again until its claims start above `k`.
    pub async fn walk_past(&mut self, k: i64) {
        while self.watermarks.as_slice().iter().any(|watermark| *watermark <= k) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            // An empty queue moves on only with the newest k.
            self.claim(1).await;
        }
    }
}

/// The same outcome for all that was claimed, as `settle` takes it.
#[must_use]
pub fn settlements(claimed: &Claimed, outcome: &Outcome) -> Vec<Settlement> {
    let Some(token) = claimed.token else { return Vec::new() };
    let settle = |task: &rowlock_queue::Claim| Settlement { token, task: task.id, outcome: outcome.clone() };
    claimed.tasks.iter().map(settle).collect()
}
