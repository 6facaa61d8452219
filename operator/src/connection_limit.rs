//! Which limit on connections holds, and what others use of it.

use std::time::Duration;

use rowlock_plan::{CONNECTIONS_PER_POD, Connections, SlidingMax};
use rowlock_queue::ConnectionLimit;

/// How far back the connections in use by others are remembered. Their highest number in this time limits new
/// pods. Their lowest number decides whether pods stop: short-lived connections must not make pods stop and
/// start again.
const WINDOW: Duration = Duration::from_mins(5);

/// The connections of a poller: one polls, one listens, and one is for everything else.
const CONNECTIONS_PER_POLLER: u32 = 3;

/// The names of limits. Another name from a server is not repeated in messages: it could look like an
/// instruction to the user.
const NAMES: [&str; 3] =
    ["max_connections", "the connection limit of the database", "the connection limit of the role"];

/// The tightest limit on connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Its name, for messages.
    pub of: &'static str,
    /// Whether it applies only to the user that the operator connects as.
    pub is_own: bool,
    /// The connections that the limit allows, and who uses them.
    pub connections: Connections,
    /// Connections of operators now; those of a shared poller count as others.
    pub operators: u32,
    /// Connections of workers in this database now.
    pub workers: u32,
}

/// The current limit, and how many connections others use. Kept while the database does not answer.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// The highest number of connections in use by others.
    others: SlidingMax,
    /// The highest `u32::MAX - others`, which gives the lowest number in use by others.
    free: SlidingMax,
    /// When others were first counted. For one [`WINDOW`] their lowest number is unknown, and counts as zero.
    since: Option<Duration>,
    current: Option<Limit>,
}

impl Limits {
    /// Takes the tightest of the limits that apply to `user`. `instances`: how many instances of other
    /// operators run in this database. `is_shared`: the controllers share a poller, and only the poller keeps
    /// its connections open.
    pub(crate) fn note(
        &mut self,
        limits: &[ConnectionLimit],
        user: Option<&str>,
        instances: u32,
        is_shared: bool,
        now: Duration,
    ) {
        let holds = |limit: &&ConnectionLimit| limit.user.is_none() || limit.user.as_deref() == user;
        let free = |limit: &&ConnectionLimit| i64::from(limit.limit) - i64::from(limit.others);
        let tightest = limits.iter().filter(holds).min_by_key(free);
        self.current = tightest.map(|seen| {
            // Other namespaces and other clusters have their own pollers.
            let pollers = (seen.operators / CONNECTIONS_PER_POLLER).max(1);
            let operators =
                if is_shared { pollers.saturating_mul(CONNECTIONS_PER_POLLER) } else { seen.operators };
            let others = seen.others.saturating_add(instances.saturating_mul(CONNECTIONS_PER_POD));
            let others = others.saturating_add(operators);
            let least = u32::MAX - self.free.note(now, u32::MAX - others, WINDOW);
            let known = now.saturating_sub(*self.since.get_or_insert(now)) >= WINDOW;
            let others_steady = if known { least } else { 0 };
            let others = self.others.note(now, others, WINDOW);
            let connections = Connections { limit: seen.limit, others, others_steady, leaving: 0 };
            let of = NAMES.into_iter().find(|name| *name == seen.limit_of).unwrap_or("a limit of the server");
            Limit {
                of,
                is_own: seen.user.is_some(),
                connections,
                operators: seen.operators,
                workers: seen.workers,
            }
        });
    }

    /// Sets how many of the operator's pods stop or are being replaced.
    pub(crate) fn set_leaving(&mut self, leaving: u32) {
        if let Some(limit) = &mut self.current {
            limit.connections.leaving = leaving;
        }
    }

    pub(crate) fn current(&self) -> Option<&Limit> {
        self.current.as_ref()
    }
}

/// In words, for a status.
impl Limit {
    /// The limit, and how many of the connections others use: without a full stop.
    pub(crate) fn facts(&self) -> String {
        let Self { of, connections, .. } = self;
        let (limit, others) = (connections.limit, connections.others);
        format!(
            "{of} is {limit}: {others} in use by others, {} reserved, which leaves room for {} pods \
             ({CONNECTIONS_PER_POD} connections each) across all queues of the database",
            connections.reserve(),
            connections.pods(),
        )
    }

    /// What to change: a sentence without a full stop.
    pub(crate) fn advice(&self) -> String {
        let of = self.of;
        format!("Raise {of}, or run fewer pods with more slots each: raise workers.perPod")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(others: u32) -> [ConnectionLimit; 1] {
        [ConnectionLimit {
            limit_of: "max_connections".into(),
            user: None,
            limit: 100,
            others,
            operators: 1,
            workers: 0,
        }]
    }

    #[test]
    fn the_highest_number_of_other_connections_counts_for_a_while() {
        let mut limits = Limits::default();
        let check = |limits: &Limits, others: u32| {
            assert_eq!(limits.current().map(|limit| limit.connections.others), Some(others));
        };
        let at = Duration::from_secs;
        limits.note(&seen(20), None, 0, false, at(0));
        limits.note(&seen(50), None, 3, true, at(10));
        check(&limits, 59);
        limits.note(&seen(20), None, 0, false, at(300));
        check(&limits, 59);
        limits.note(&seen(30), None, 0, false, at(311));
        check(&limits, 31);
        limits.note(&[], None, 0, false, at(312));
        assert_eq!(limits.current(), None);
    }

    /// Before, seventy sessions of a minute stopped pods that had their connections already.
    #[test]
    fn a_peak_of_other_connections_stops_no_pods() {
        let mut limits = Limits::default();
        let at = Duration::from_secs;
        let kept = |limits: &Limits| limits.current().map(|limit| limit.connections.pods_kept());
        limits.note(&seen(80), None, 0, false, at(0));
        assert_eq!(kept(&limits), Some(45), "unknown yet, so all may stay");
        limits.note(&seen(20), None, 0, false, at(200));
        limits.note(&seen(80), None, 0, false, at(300));
        assert_eq!(kept(&limits), Some(34), "a peak");
        limits.note(&seen(80), None, 0, false, at(501));
        assert_eq!(kept(&limits), Some(4), "they stay");
    }

    #[test]
    fn each_poller_keeps_three_connections_and_other_controllers_none() {
        for (operators, expected) in [(0, 3), (1, 3), (5, 3), (6, 6), (10, 9)] {
            let mut limits = Limits::default();
            let seen = seen(20).map(|limit| ConnectionLimit { operators, ..limit });
            limits.note(&seen, None, 0, true, Duration::ZERO);
            assert_eq!(limits.current().map(|limit| limit.connections.others), Some(20 + expected));
        }
    }

    #[test]
    fn the_tightest_limit_that_applies_to_the_user_counts() {
        let role = |user: &str, limit| ConnectionLimit {
            limit_of: "the connection limit of the role".into(),
            user: Some(user.into()),
            limit,
            others: 1,
            operators: 0,
            workers: 0,
        };
        let all = [seen(20).to_vec(), vec![role("shop", 10), role("bank", 90), role("else", 3)]].concat();
        let tightest = |user| {
            let mut limits = Limits::default();
            limits.note(&all, user, 0, false, Duration::ZERO);
            limits.current().map(|limit| (limit.is_own, limit.connections.limit))
        };
        assert_eq!(tightest(Some("shop")), Some((true, 10)));
        assert_eq!(tightest(Some("bank")), Some((false, 100)));
        assert_eq!(tightest(None), Some((false, 100)));
    }

    #[test]
    fn a_limit_says_who_uses_connections_and_what_to_change() {
        let mut limits = Limits::default();
        limits.note(&seen(59), None, 0, false, Duration::ZERO);
        assert_eq!(
            limits.current().map(Limit::facts).unwrap_or_default(),
            "max_connections is 100: 60 in use by others, 10 reserved, which leaves room for 15 pods \
             (2 connections each) across all queues of the database"
        );
        assert_eq!(
            limits.current().map(Limit::advice).unwrap_or_default(),
            "Raise max_connections, or run fewer pods with more slots each: raise workers.perPod"
        );
    }
}
