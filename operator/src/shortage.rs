//! A queue that gets fewer pods than it asks for because of a limit on connections: how many, and which
//! queues hold the others. No I/O.

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use rowlock_plan::{Decision, ObservedQueue};

use crate::connection_limit::Limit;

/// The most queues that are named. The others are counted: no message grows with their number.
const MOST_NAMED: usize = 3;

/// How long the message about a shortage stays the same while only figures of other queues change. Nobody
/// needs newer ones, and each new message is a write.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// Some queues with pods, and how many pods they have together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) queues: u32,
    pub(crate) pods: u32,
}

/// What the queues of a database hold that share its connections with each other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holdings {
    /// The `TaskQueues` with the most pods, the largest first: one more than are named, since a message does
    /// not name its own queue.
    largest: Vec<(String, u32)>,
    all: Group,
}

/// Who holds the pods that a database has connections for, beside one queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Holders {
    /// The `TaskQueues` with the most pods. They share a namespace with the queue, so readers of its status
    /// may know their names.
    named: Vec<(String, u32)>,
    /// The rest of the namespace.
    more: Group,
    /// Queues that this operator does not manage, or manages in other namespaces.
    elsewhere: Group,
}

/// What a queue asks for, and what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The pods that it asks for.
    pub wanted: u32,
    /// The pods that it gets.
    pub given: u32,
    /// The most pods that the cluster had room for lately, if that is fewer.
    pub room: Option<u32>,
}

/// Why a queue has fewer pods than it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// What the queue asks for, and what it gets.
    pub asked: Asked,
    limit: Limit,
    holders: Holders,
}

/// The pods of a queue that hold connections, or will: those that it has or gets, whichever are more.
pub(crate) fn held(queue: &ObservedQueue, decision: &Decision) -> u32 {
    queue.pods.max(decision.pods_desired)
}

impl Group {
    /// Adds a queue, if it has pods. A tenant's server may send any number.
    pub(crate) fn add(&mut self, pods: i64) {
        let pods = u32::try_from(pods.max(0)).unwrap_or(u32::MAX);
        self.queues = self.queues.saturating_add(u32::from(pods > 0));
        self.pods = self.pods.saturating_add(pods);
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self { queues: self.queues.saturating_add(other.queues), pods: self.pods.saturating_add(other.pods) }
    }

    fn without(self, pods: u32) -> Self {
        let queues = self.queues.saturating_sub(u32::from(pods > 0));
        Self { queues, pods: self.pods.saturating_sub(pods) }
    }
}

impl Holdings {
    /// From the names of `TaskQueues`, each with the pods that it holds.
    pub(crate) fn of<'a>(queues: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let mut all = Group::default();
        let mut largest: Vec<(&str, u32)> = Vec::with_capacity(MOST_NAMED + 2);
        for (name, pods) in queues.filter(|(_, pods)| *pods > 0) {
            all.add(i64::from(pods));
            // Of equal ones the first name counts, in each pass.
            let at = largest.partition_point(|other| (Reverse(other.1), other.0) < (Reverse(pods), name));
            largest.insert(at, (name, pods));
            largest.truncate(MOST_NAMED + 1);
        }
        let largest = largest.into_iter().map(|(name, pods)| (name.to_owned(), pods)).collect();
        Self { largest, all }
    }

    /// What others than this `TaskQueue` hold.
    fn others(&self, name: &str, pods: u32, elsewhere: Group) -> Holders {
        let others = self.largest.iter().filter(|(other, _)| other != name);
        let named: Vec<(String, u32)> = others.take(MOST_NAMED).cloned().collect();
        let more = named.iter().fold(self.all.without(pods), |more, (_, pods)| more.without(*pods));
        Holders { named, more, elsewhere }
    }
}

impl Shortage {
    /// `name`, `held`: of the `TaskQueue`, as in `holdings`.
    pub(crate) fn new(
        (name, held): (&str, u32),
        asked: Asked,
        limit: &Limit,
        holdings: &Holdings,
        elsewhere: Group,
    ) -> Self {
        let holders = holdings.others(name, held, elsewhere);
        let asked = Asked { room: asked.room.filter(|room| *room < asked.wanted), ..asked };
        Self { asked, limit: limit.clone(), holders }
    }

    /// The shortage to report, and since when it is reported: for half a minute the one before, while the
    /// numbers of this queue and the limit are the same. One that names nobody is replaced at once.
    pub(crate) fn or_before(self, before: Option<(Duration, Self)>, now: Duration) -> (Duration, Self) {
        let key = |one: &Self| (one.asked, one.limit.of, one.limit.connections.limit);
        before
            .filter(|(since, old)| key(old) == key(&self) && now.saturating_sub(*since) < KEPT_FOR)
            .filter(|(_, old)| !old.holders.named.is_empty() || self.holders.named.is_empty())
            .unwrap_or((now, self))
    }

    /// Without the names of other queues: for readers who may know only this one.
    pub(crate) fn without_names(&self) -> String {
        let Holders { named, more, elsewhere } = &self.holders;
        let mut others = more.and(*elsewhere);
        for (_, pods) in named {
            others.add(i64::from(*pods));
        }
        let holders = match others {
            Group { pods: 0, .. } => String::new(),
            Group { queues, pods } => format!(". {} {pods} pods", hold(queues, "other")),
        };
        self.tell(&holders)
    }

    fn tell(&self, holders: &str) -> String {
        let room = match self.asked.room {
            None => String::new(),
            Some(room) => format!(
                ". Only {room} of its pods fitted on nodes, so other queues get the remaining connections \
                 first: add nodes, or raise the quota"
            ),
        };
        format!("{}{holders}{room}. {}", self.limit.facts(), self.limit.advice())
    }
}

/// The limit, who holds what, and what to change.
impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holders { named, more, elsewhere } = &self.holders;
        let named = named.iter().map(|(name, pods)| format!("{name} holds {pods}"));
        let here = Some(more).filter(|more| more.pods > 0);
        let here = here.map(|Group { queues, pods }| format!("{} {pods}", hold(*queues, "more")));
        let there = Some(elsewhere).filter(|elsewhere| elsewhere.pods > 0);
        let there = there.map(|Group { queues, pods }| {
            format!("{} of other namespaces or operators {} {pods}", queues_of(*queues, ""), verb(*queues))
        });
        let parts: Vec<String> = named.chain(here).chain(there).collect();
        let holders =
            if parts.is_empty() { String::new() } else { format!(". Of the pods, {}", parts.join(", ")) };
        f.write_str(&self.tell(&holders))
    }
}

fn hold(queues: u32, kind: &str) -> String {
    format!("{} {}", queues_of(queues, kind), verb(queues))
}

fn queues_of(queues: u32, kind: &str) -> String {
    let kind = if kind.is_empty() { String::new() } else { format!("{kind} ") };
    format!("{queues} {kind}{}", if queues == 1 { "queue" } else { "queues" })
}

fn verb(queues: u32) -> &'static str {
    if queues == 1 { "holds" } else { "hold" }
}

#[cfg(test)]
mod tests {
    use rowlock_plan::Connections;

    use super::*;

    fn limit(others: u32) -> Limit {
        let connections = Connections { limit: 100, others, others_steady: 0, leaving: 0 };
        Limit { of: "max_connections", is_own: false, connections, operators: 3, workers: 0 }
    }

    /// The shortage of `mail`, which asks for twelve pods and gets `given`.
    fn shortage(given: u32, others: &[(&str, u32)], elsewhere: Group) -> Shortage {
        let all = [&[("mail", given)][..], others].concat();
        let holdings = Holdings::of(all.into_iter());
        let asked = Asked { wanted: 12, given, room: None };
        Shortage::new(("mail", given), asked, &limit(60), &holdings, elsewhere)
    }

    fn holders(shortage: &Shortage) -> String {
        let told = shortage.to_string();
        let (_, rest) = told.split_once("of the database").unwrap();
        rest.split_once(" Raise max_connections").unwrap().0.trim_matches(['.', ' ']).to_owned()
    }

    #[test]
    fn the_largest_holders_are_named_and_the_others_counted() {
        let none = Group::default();
        assert_eq!(holders(&shortage(15, &[], none)), "");
        assert_eq!(holders(&shortage(3, &[("bills", 12)], none)), "Of the pods, bills holds 12");
        let many = [("f", 1), ("e", 0), ("d", 2), ("c", 2), ("b", 9), ("a", 1)];
        let two = Group { queues: 2, pods: 14 };
        assert_eq!(
            holders(&shortage(3, &many, two)),
            "Of the pods, b holds 9, c holds 2, d holds 2, 2 more queues hold 2, 2 queues of other \
             namespaces or operators hold 14"
        );
        let one = Group { queues: 1, pods: 1 };
        assert_eq!(
            holders(&shortage(0, &many[1..], one)),
            "Of the pods, b holds 9, c holds 2, d holds 2, 1 more queue holds 1, 1 queue of other namespaces \
             or operators holds 1"
        );
    }

    /// A role of the database may see one queue only.
    #[test]
    fn without_names_the_others_are_counted_together() {
        let told = shortage(3, &[("bills", 9), ("letters", 1)], Group { queues: 2, pods: 14 });
        let told = told.without_names();
        assert!(
            told.contains("of the database. 4 other queues hold 24 pods. Raise max_connections"),
            "{told}"
        );
        assert!(!told.contains("bills") && !told.contains("letters"), "{told}");
        let alone = shortage(3, &[], Group::default()).without_names();
        assert!(alone.contains("of the database. Raise max_connections"), "{alone}");
    }

    /// The database keeps 500 characters.
    #[test]
    fn a_shortage_without_names_fits_a_record() {
        let mut longest = shortage(3, &[("bills", u32::MAX)], Group { queues: 99_999, pods: u32::MAX });
        longest.limit.of = "the connection limit of the database";
        longest.asked.room = Some(u32::MAX);
        let told = longest.without_names();
        assert!(told.len() <= 500 && told.ends_with("raise workers.perPod"), "{}: {told}", told.len());
    }

    #[test]
    fn pods_that_the_cluster_had_no_room_for_are_named_with_what_to_change() {
        let holdings = Holdings::of([("mail", 3)].into_iter());
        let told = |room| {
            let asked = Asked { wanted: 12, given: 3, room };
            Shortage::new(("mail", 3), asked, &limit(60), &holdings, Group::default()).to_string()
        };
        let had_room = told(Some(3));
        assert!(
            had_room.contains(". Only 3 of its pods fitted on nodes, so other queues get the remaining"),
            "{had_room}"
        );
        for room in [None, Some(12), Some(20)] {
            assert!(!told(room).contains("had room"), "{room:?}");
        }
    }

    #[test]
    fn the_message_changes_with_the_queues_own_numbers_and_otherwise_each_half_a_minute() {
        let at = Duration::from_secs;
        let elsewhere = Group::default();
        let first = shortage(3, &[("bills", 9)], elsewhere);
        let told = first.clone().or_before(None, at(100));
        assert_eq!(told, (at(100), first.clone()));
        let other = shortage(3, &[("bills", 10)], elsewhere);
        assert_eq!(other.clone().or_before(Some(told.clone()), at(129)), told);
        assert_eq!(other.clone().or_before(Some(told.clone()), at(130)), (at(130), other));
        let nobody = (at(100), shortage(3, &[], elsewhere));
        assert_eq!(first.clone().or_before(Some(nobody), at(101)), (at(101), first));
        let fewer = shortage(2, &[("bills", 10)], elsewhere);
        assert_eq!(fewer.clone().or_before(Some(told), at(101)), (at(101), fewer));
    }

    #[test]
    fn a_group_counts_queues_with_pods_and_takes_any_number() {
        let mut group = Group::default();
        for pods in [3, 0, -7, i64::MAX] {
            group.add(pods);
        }
        assert_eq!(group, Group { queues: 2, pods: u32::MAX });
    }
}
