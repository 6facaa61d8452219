//! An instance as a test plays it: what it holds, where its claims start, and its verbs.

use std::time::Duration;

use rowlock_queue::{
    Beat, BeatIn, Claimed, Db, InstanceId, Joined, Lows, Outcome, Settled, Settlement, Token, beat, claim,
    join, settle,
};

/// An instance of the queue `mail`.
#[derive(Debug)]
pub struct Member {
    /// What its verbs run on.
    pub db: Db,
    /// What it started with.
    pub joined: Joined,
    /// From where it claims.
    pub lows: Lows,
}

impl Member {
    /// Joins with room for a hundred workers.
    ///
    /// # Panics
    /// If that fails.
    pub async fn join(db: &Db, name: &str) -> Self {
        let joined = join(db, "mail", name, 100).await.expect("an instance joins");
        let lows = joined.lows.clone();
        Self { db: db.clone(), joined, lows }
    }

    /// Which.
    #[must_use]
    pub fn id(&self) -> InstanceId {
        self.joined.instance
    }

    /// Claims, and moves its low as a worker does.
    ///
    /// # Panics
    /// If that fails.
    pub async fn claim(&mut self, want: u32) -> Claimed {
        let claimed = claim(&self.db, self.id(), want, &self.lows, Token::random()).await.expect("a claim");
        self.lows.advance(&claimed.lows_seen);
        claimed
    }

    /// The same outcome for all that was claimed.
    ///
    /// # Panics
    /// If that fails.
    pub async fn settle(&self, claimed: &Claimed, outcome: &Outcome) -> Vec<Settled> {
        settle(&self.db, self.id(), &settlements(claimed, outcome)).await.expect("a settlement")
    }

    /// Beats: holds and wants so many, keeps to allocation 0.
    ///
    /// # Panics
    /// If that fails.
    pub async fn beat(&self, held: u32, wants: u32) -> Beat {
        beat(&self.db, &self.says(held, wants)).await.expect("a beat")
    }

    /// Beats, having had a worker free.
    ///
    /// # Panics
    /// If that fails.
    pub async fn sleep(&self) -> Beat {
        beat(&self.db, &BeatIn { sleeps: true, ..self.says(0, 1) }).await.expect("a beat")
    }

    /// What it says with a beat.
    #[must_use]
    pub fn says(&self, held: u32, wants: u32) -> BeatIn<'_> {
        BeatIn {
            instance: self.id(),
            held,
            wants,
            allocated: 0,
            acknowledged: 0,
            lows: &self.lows,
            sleeps: false,
            service_millis: None,
        }
    }

    /// Claims nothing again and again until its claims start above `k`.
    pub async fn walk_past(&mut self, k: i64) {
        while self.lows.as_slice().iter().any(|low| *low <= k) {
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
