//! How the connections of a database limit its pods.

use std::fmt;
use std::time::Duration;

use rowlock_plan::{CONNECTIONS_PER_POD, Connections, SlidingMax};
use rowlock_queue::ConnectionLimit;

/// What others held at most in so long counts as theirs before more pods come; what they held at least,
/// before pods go: who connects and goes again must not have pods go and come.
const WINDOW: Duration = Duration::from_mins(5);

/// What the poller holds: one connection polls, one is for all else, one listens.
const CONNECTIONS_PER_POLLER: u32 = 3;

/// What limits are called here. A server that calls one otherwise is none of ours to repeat: its words would
/// stand beside what people are told to do.
const NAMES: [&str; 3] =
    ["max_connections", "the connection limit of the database", "the connection limit of the role"];

/// The tightest limit on connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// What sets it.
    pub of: &'static str,
    /// Whether it holds for our user alone.
    pub is_own: bool,
    pub connections: Connections,
}

/// What is known of it. Kept while the database does not answer.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    others: SlidingMax,
    /// The same of what is left of all that can be counted: the highest of it is the lowest of the others.
    free: SlidingMax,
    /// When the others were first counted: until then what they hold all the time is not known, and holds
    /// nothing up.
    since: Option<Duration>,
    current: Option<Limit>,
}

impl Limits {
    /// Of those that hold for this user, the tightest counts. `instances` live in this database for others
    /// than us. `is_shared`: of all controllers here one keeps its connections, and those of the others come
    /// and go.
    pub(crate) fn note(
        &mut self,
        limits: &[ConnectionLimit],
        user: Option<&str>,
        instances: i64,
        is_shared: bool,
        now: Duration,
    ) {
        let holds = |limit: &&ConnectionLimit| limit.user.is_none() || limit.user.as_deref() == user;
        let free = |limit: &&ConnectionLimit| i64::from(limit.limit) - i64::from(limit.others);
        let tightest = limits.iter().filter(holds).min_by_key(free);
        self.current = tightest.map(|seen| {
            let instances = u32::try_from(instances).unwrap_or_default();
            // In other namespaces, and in other clusters, there are other pollers.
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
            Limit { of, is_own: seen.user.is_some(), connections }
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
        let Self { of, connections, .. } = self;
        let (limit, others) = (connections.limit, connections.others);
        write!(
            f,
            "{of} is {limit}: {others} in use by others, {} reserved, which leaves room for {} pods \
             ({CONNECTIONS_PER_POD} connections each) across all queues of the database. Raise {of}, or run \
             fewer pods with more slots each: raise workers.perPod",
            connections.reserve(),
            connections.pods(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(others: u32) -> [ConnectionLimit; 1] {
        [ConnectionLimit { limit_of: "max_connections".into(), user: None, limit: 100, others, operators: 1 }]
    }

    #[test]
    fn what_others_held_counts_for_a_while() {
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

    /// Before this was told apart, seventy sessions of a minute ended pods that had their connections
    /// already.
    #[test]
    fn what_others_hold_for_a_moment_is_no_reason_to_end_pods() {
        let mut limits = Limits::default();
        let at = Duration::from_secs;
        let kept = |limits: &Limits| limits.current().map(|limit| limit.connections.pods_kept());
        limits.note(&seen(80), None, 0, false, at(0));
        assert_eq!(kept(&limits), Some(45), "not known yet, so all may stay");
        limits.note(&seen(20), None, 0, false, at(200));
        limits.note(&seen(80), None, 0, false, at(300));
        assert_eq!(kept(&limits), Some(34), "a peak");
        limits.note(&seen(80), None, 0, false, at(501));
        assert_eq!(kept(&limits), Some(4), "they stay");
    }

    #[test]
    fn each_poller_keeps_its_connections_and_a_visitor_none() {
        for (operators, expected) in [(0, 3), (1, 3), (5, 3), (6, 6), (10, 9)] {
            let mut limits = Limits::default();
            let seen = seen(20).map(|limit| ConnectionLimit { operators, ..limit });
            limits.note(&seen, None, 0, true, Duration::ZERO);
            assert_eq!(limits.current().map(|limit| limit.connections.others), Some(20 + expected));
        }
    }

    #[test]
    fn the_tightest_of_what_holds_for_the_user_counts() {
        let role = |user: &str, limit| ConnectionLimit {
            limit_of: "the connection limit of the role".into(),
            user: Some(user.into()),
            limit,
            others: 1,
            operators: 0,
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
    fn a_limit_explains_itself() {
        let mut limits = Limits::default();
        limits.note(&seen(59), None, 0, false, Duration::ZERO);
        assert_eq!(
            limits.current().map(Limit::to_string).unwrap_or_default(),
            "max_connections is 100: 60 in use by others, 10 reserved, which leaves room for 15 pods \
             (2 connections each) across all queues of the database. Raise max_connections, or run fewer pods \
             with more slots each: raise workers.perPod"
        );
    }
}
