//! For how long the xmin horizon of a database has been held back, and by which kind of holder.

use std::time::Duration;

use rowlock_queue::{HORIZON_KINDS, HorizonHolder};

/// No transaction runs for longer, so a server that says so is wrong.
const LONGEST: Duration = Duration::from_hours(10 * 365 * 24);

/// The kind of holder whose time is always known.
const PREPARED: &str = HORIZON_KINDS[1];

/// What the last snapshots said about each kind of holder, in the order of [`HORIZON_KINDS`].
#[derive(Debug, Default)]
pub(crate) struct Horizon([Option<Held>; HORIZON_KINDS.len()]);

#[derive(Debug, Clone, Copy)]
struct Held {
    xid: i64,
    /// When a snapshot first showed this transaction as the oldest one. Its time is not always known:
    /// Postgres hides when sessions of other users began, and keeps no time of a slot.
    since: Duration,
    /// Its age in the last snapshot.
    age: Duration,
}

impl Horizon {
    /// Takes a snapshot of the time `now`.
    pub(crate) fn note(&mut self, holders: &[HorizonHolder], now: Duration) {
        for (kind, held) in HORIZON_KINDS.iter().zip(&mut self.0) {
            let holder = holders.iter().find(|holder| holder.kind == *kind);
            *held = holder.map(|holder| {
                let since = held.filter(|held| held.xid == holder.xid).map_or(now, |held| held.since);
                let said = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default().min(LONGEST);
                // A prepared transaction is in the snapshot of each session, however short that is.
                let is_of_another = holders.iter().any(|one| one.kind == PREPARED && one.xid == holder.xid);
                let age = match holder.seconds {
                    Some(seconds) => said(seconds),
                    None if is_of_another => Duration::ZERO,
                    None => now.saturating_sub(since),
                };
                Held { xid: holder.xid, since, age }
            });
        }
    }

    /// The age of the oldest transaction of each kind of holder; zero without one.
    pub(crate) fn ages(&self) -> [(&'static str, Duration); HORIZON_KINDS.len()] {
        let mut ages = HORIZON_KINDS.map(|kind| (kind, Duration::ZERO));
        for ((_, age), held) in ages.iter_mut().zip(&self.0) {
            *age = held.map_or(Duration::ZERO, |held| held.age);
        }
        ages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(kind: &str, xid: i64, seconds: Option<f64>) -> HorizonHolder {
        HorizonHolder { kind: kind.into(), xid, seconds }
    }

    fn ages(horizon: &Horizon) -> [u64; HORIZON_KINDS.len()] {
        horizon.ages().map(|(_, age)| age.as_secs())
    }

    #[test]
    fn a_holder_is_as_old_as_its_transaction_or_as_it_has_been_seen() {
        let mut horizon = Horizon::default();
        assert_eq!(ages(&horizon), [0; 4]);
        let slot = |xid| holder("replication_slot", xid, None);
        horizon.note(&[holder("session", 7, Some(90.0)), slot(5)], Duration::from_secs(100));
        assert_eq!(ages(&horizon), [90, 0, 0, 0]);
        horizon.note(&[holder("session", 7, None), slot(5)], Duration::from_secs(160));
        assert_eq!(ages(&horizon), [60, 0, 60, 0], "its time is hidden");
        horizon.note(&[holder("session", 9, Some(1.0)), slot(6)], Duration::from_secs(170));
        assert_eq!(ages(&horizon), [1, 0, 0, 0], "others are the oldest now");
        let prepared = holder("prepared", 8, Some(500.0));
        horizon.note(&[holder("session", 8, None), prepared.clone()], Duration::from_secs(181));
        horizon.note(&[holder("session", 8, None), prepared], Duration::from_secs(281));
        assert_eq!(ages(&horizon), [0, 500, 0, 0], "sessions only see the prepared transaction");
        horizon.note(&[], Duration::from_secs(290));
        assert_eq!(ages(&horizon), [0; 4]);
    }

    #[test]
    fn what_a_server_says_wrongly_is_bounded() {
        let mut horizon = Horizon::default();
        for seconds in [f64::NAN, f64::NEG_INFINITY, -5.0, f64::INFINITY] {
            horizon.note(&[holder("prepared", 1, Some(seconds))], Duration::ZERO);
            assert_eq!(ages(&horizon), [0; 4], "{seconds}");
        }
        horizon.note(&[holder("prepared", 1, Some(1e18)), holder("else", 1, Some(9.0))], Duration::ZERO);
        assert_eq!(ages(&horizon), [0, LONGEST.as_secs(), 0, 0]);
    }
}
