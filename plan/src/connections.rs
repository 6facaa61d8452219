//! The connections of a database, as far as they limit pods.

/// What an instance may hold; the worker keeps to the same number.
pub const CONNECTIONS_PER_POD: u32 = 2;

/// The least that is left to all others: a psql, a migration, a backup, the additional pod of a rollout.
const LEAST_RESERVE: u32 = 5;

/// One in this many of all connections is left to others.
const RESERVED_SHARE: u32 = 10;

/// The connections of a database, as far as they limit pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// The most connections that there may be.
    pub limit: u32,
    /// The most that others than our pods held lately: pods that are yet to start must leave them this many.
    pub others: u32,
    /// How many others held at every moment lately: pods that already hold connections must leave them this
    /// many. At most `others`.
    pub others_steady: u32,
    /// Our pods beyond those that are asked for: they terminate, or a rollout has made one more.
    pub leaving: u32,
}

impl Connections {
    /// What is left to others, whatever the tasks ask for.
    #[must_use]
    pub fn reserve(&self) -> u32 {
        (self.limit / RESERVED_SHARE).max(LEAST_RESERVE)
    }

    /// Pods that there may be, the leaving ones among them. One at least: where it cannot connect, its state
    /// says so.
    #[must_use]
    pub fn pods(&self) -> u32 {
        self.beside(self.others)
    }

    /// Pods that may stay, of those that hold their connections: a peak of others' connections is no reason
    /// to end them.
    #[must_use]
    pub fn pods_kept(&self) -> u32 {
        self.beside(self.others_steady.min(self.others))
    }

    fn beside(&self, others: u32) -> u32 {
        let free = self.limit.saturating_sub(others).saturating_sub(self.reserve());
        (free / CONNECTIONS_PER_POD).max(1)
    }
}
