//! How the connections of a database limit its pods.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rowlock_plan::{CONNECTIONS_PER_POD, Connections, Highest};

/// What others held at most in so long counts as theirs: who connects and goes again must not have pods go and come.
const WINDOW: Duration = Duration::from_mins(5);

/// The tightest limit on connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// What sets it.
    pub of: Arc<str>,
    pub connections: Connections,
}

/// What is known of it. Kept while the database does not answer.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    others: Highest,
    current: Option<Limit>,
}

impl Limits {
    /// `instances` live in this database for others than us. `None`: there is no limit that we know of.
    pub(crate) fn note(&mut self, seen: Option<rowlock_queue::Connections>, instances: i64, now: Duration) {
        self.current = seen.map(|seen| {
            let instances = u32::try_from(instances).unwrap_or_default();
            let others = seen.others.saturating_add(instances.saturating_mul(CONNECTIONS_PER_POD));
            let others = self.others.note(now, others, WINDOW);
            Limit {
                of: seen.limit_of.into(),
                connections: Connections { limit: seen.limit, others, leaving: 0 },
            }
        });
    }

    /// Our pods that are on their way out.
    pub(crate) fn set_leaving(&mut self, leaving: u32) {
        if let Some(limit) = &mut self.current {
            limit.connections.leaving = leaving;
        }
    }

    pub(crate) fn current(&self) -> Option<&Limit> {
        self.current.as_ref()
    }
}

/// For people: what there is, who has it, and what to do.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, connections } = self;
        let (limit, others) = (connections.limit, connections.others);
        write!(
            f,
            "{of} lets {limit} in, others hold {others} of them, {} are kept free: enough for {} pods of {CONNECTIONS_PER_POD} connections \
             each, over all queues of the database. Raise {of}, or have fewer pods do more: raise workers.perPod",
            connections.reserve(),
            connections.pods(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(others: u32) -> rowlock_queue::Connections {
        rowlock_queue::Connections { limit_of: "max_connections".into(), limit: 100, others }
    }

    #[test]
    fn what_others_held_counts_for_a_while() {
        let mut limits = Limits::default();
        let check = |limits: &Limits, others: u32| {
            assert_eq!(limits.current().map(|limit| limit.connections.others), Some(others));
        };
        let at = Duration::from_secs;
        limits.note(Some(seen(20)), 0, at(0));
        limits.note(Some(seen(50)), 3, at(10));
        check(&limits, 56);
        limits.note(Some(seen(20)), 0, at(300));
        check(&limits, 56);
        limits.note(Some(seen(30)), 0, at(311));
        check(&limits, 30);
        limits.note(None, 0, at(312));
        assert_eq!(limits.current(), None);
    }

    #[test]
    fn a_limit_explains_itself() {
        let mut limits = Limits::default();
        limits.note(Some(seen(60)), 0, Duration::ZERO);
        assert_eq!(
            limits.current().map(Limit::to_string).unwrap_or_default(),
            "max_connections lets 100 in, others hold 60 of them, 10 are kept free: enough for 15 pods of 2 connections each, over all \
             queues of the database. Raise max_connections, or have fewer pods do more: raise workers.perPod"
        );
    }
}
