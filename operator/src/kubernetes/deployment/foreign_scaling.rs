//! Another field manager sets the number of pods of a Deployment, which the operator should set: pure.
//!
//! The operator restores its number, less often each time, so that two autoscalers do not undo each other's
//! work for ever. A condition and an event name the other field manager.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rowlock_crds::{ScalingMode, api};

/// How long the second foreign change stays; each further one stays twice as long. The first is undone at
/// once, because it may be a single `kubectl scale` by mistake.
const FIRST_BACKOFF: Duration = Duration::from_secs(10);

/// The longest back-off. Long enough that restored pods rarely start in vain; short enough that the queue
/// soon scales again after the other autoscaler is gone.
const MAX_BACKOFF: Duration = Duration::from_mins(10);

/// A restored number that stays this long is no longer contested: autoscalers look more often than that.
const SETTLED_AFTER: Duration = Duration::from_mins(5);

/// How often an event names the same field manager: events are kept for an hour.
const EVENT_INTERVAL: Duration = Duration::from_hours(1);

/// The most field managers in a message. A client chooses its own name, and could use many.
const MAX_NAMED: usize = 5;

/// Field managers that set another number of pods than the `TaskQueue` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForeignScaling {
    pub(crate) managers: Vec<String>,
    /// The number that they set last.
    pub(crate) found: u32,
    /// The number that the operator restores.
    pub(crate) wanted: u32,
    pub(crate) mode: ScalingMode,
}

/// The live number of pods of the Deployment, and the number that the operator wants.
#[derive(Debug)]
pub(crate) struct Observation<'a> {
    pub(crate) replicas: u32,
    pub(crate) wanted: u32,
    pub(crate) mode: ScalingMode,
    /// Foreign field managers that own `replicas`.
    pub(crate) managers: Vec<String>,
    /// What the pods are made from. When it changes, earlier foreign changes no longer count.
    pub(crate) made_from: &'a str,
}

/// Watches one queue for foreign scaling.
#[derive(Debug, Default)]
pub(crate) struct ForeignScalingTracker {
    /// The number that the operator wrote last.
    written: Option<u32>,
    made_from: String,
    current: Option<ForeignScaling>,
    /// Whether the live number is a foreign one.
    is_live: bool,
    /// How often the operator has restored its number, and when it did so last.
    restored: u32,
    restored_at: Option<Instant>,
    /// When an event named each field manager.
    named_at: BTreeMap<String, Instant>,
}

impl ForeignScalingTracker {
    /// Compares the live number with the wanted one. Returns the note of an event that is due.
    pub(crate) fn observe(&mut self, live: Observation<'_>, now: Instant) -> Option<String> {
        if self.made_from != live.made_from {
            live.made_from.clone_into(&mut self.made_from);
            self.reset();
        }
        let is_foreign = self.written.is_some_and(|written| written != live.replicas);
        self.is_live = is_foreign && live.replicas != live.wanted && !live.managers.is_empty();
        if !self.is_live {
            let is_settled = self.restored_at.is_none_or(|at| now.duration_since(at) >= SETTLED_AFTER);
            if is_settled {
                (self.current, self.restored, self.restored_at) = (None, 0, None);
            }
            return None;
        }
        let mut managers = self.current.take().map(|before| before.managers).unwrap_or_default();
        let new = live.managers.into_iter().filter(|one| !managers.contains(one)).collect::<Vec<_>>();
        managers.extend(new);
        managers.truncate(MAX_NAMED);
        self.named_at.retain(|_, at| now.duration_since(*at) < EVENT_INTERVAL);
        let is_event_due = managers.iter().any(|one| !self.named_at.contains_key(one));
        self.named_at.extend(managers.iter().map(|one| (one.clone(), now)).filter(|_| is_event_due));
        let current = ForeignScaling { managers, found: live.replicas, wanted: live.wanted, mode: live.mode };
        let note = is_event_due.then(|| current.to_string());
        self.current = Some(current);
        note
    }

    /// Whether the foreign number stays for now.
    pub(crate) fn is_backing_off(&self, now: Instant) -> bool {
        self.is_live && self.restored_at.is_some_and(|at| now.duration_since(at) < backoff(self.restored))
    }

    /// The operator has written this number of pods.
    pub(crate) fn note_written(&mut self, replicas: u32, now: Instant) {
        self.written = Some(replicas);
        if std::mem::take(&mut self.is_live) {
            self.restored = self.restored.saturating_add(1);
            self.restored_at = Some(now);
        }
    }

    /// A write has failed. It may have been carried out nevertheless, so the live number may be its own.
    pub(crate) fn note_failed(&mut self) {
        self.written = None;
    }

    /// Forgets what was seen: others may set the number now, or another number is wanted than then.
    pub(crate) fn reset(&mut self) {
        (self.written, self.current, self.is_live, self.restored, self.restored_at) =
            (None, None, false, 0, None);
    }

    /// Whether nothing that others did is remembered.
    pub(crate) fn is_calm(&self) -> bool {
        self.current.is_none() && !self.is_live && self.restored_at.is_none()
    }

    pub(crate) fn current(&self) -> Option<&ForeignScaling> {
        self.current.as_ref()
    }
}

/// How long a foreign number stays after the operator has restored its own that often.
fn backoff(restored: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(restored.saturating_sub(1));
    FIRST_BACKOFF.saturating_mul(doubled).min(MAX_BACKOFF)
}

/// For a status or an event: the field managers, what the operator does about them, and what to change.
impl std::fmt::Display for ForeignScaling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { managers, found, wanted, mode } = self;
        let named = |who: &String| {
            if who == "kube-controller-manager" {
                format!("{who} (a HorizontalPodAutoscaler, such as KEDA makes)")
            } else {
                who.clone()
            }
        };
        let who: Vec<String> = managers.iter().map(named).collect();
        let instead = match mode {
            ScalingMode::External => "Since workers.scaling is External, scale the TaskQueue instead",
            ScalingMode::Auto | ScalingMode::Fixed => {
                "To scale from outside, set workers.scaling to External, and scale the TaskQueue"
            }
        };
        write!(
            f,
            "{} set {found} pods on the Deployment. The TaskQueue asks for {wanted}, and the operator \
             restores that number. If it happens again, the operator waits for {} s, and then twice as long \
             each time, up to {} minutes. {instead}: let the autoscaler's scaleTargetRef be the TaskQueue \
             (apiVersion {}, kind {}), or use kubectl scale taskqueue. Otherwise remove that autoscaler",
            who.join(", "),
            FIRST_BACKOFF.as_secs(),
            MAX_BACKOFF.as_secs() / 60,
            api::API_VERSION,
            api::KIND,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(replicas: u32, wanted: u32, managers: Vec<String>, made_from: &str) -> Observation<'_> {
        Observation { replicas, wanted, mode: ScalingMode::Auto, managers, made_from }
    }

    /// The operator's first number is 2.
    fn begin(tracker: &mut ForeignScalingTracker, now: Instant) {
        let nothing = seen(0, 2, Vec::new(), "1");
        assert_eq!(tracker.observe(nothing, now), None);
        tracker.note_written(2, now);
    }

    /// The seconds in which the operator writes, while an autoscaler sets its own number in the given
    /// seconds.
    fn writes(
        tracker: &mut ForeignScalingTracker,
        seconds: u64,
        autoscaler: impl Fn(u64) -> Option<u32>,
    ) -> Vec<u64> {
        let start = Instant::now();
        let (mut replicas, mut foreign, mut written) = (2, false, Vec::new());
        begin(tracker, start);
        for second in 0..seconds {
            if let Some(number) = autoscaler(second) {
                (replicas, foreign) = (number, true);
            }
            let now = start + Duration::from_secs(second);
            let managers = if foreign { vec!["kube-controller-manager".to_owned()] } else { Vec::new() };
            tracker.observe(seen(replicas, 2, managers, "1"), now);
            if replicas != 2 && !tracker.is_backing_off(now) {
                (replicas, foreign) = (2, false);
                tracker.note_written(2, now);
                written.push(second);
            }
        }
        written
    }

    /// Before, if an autoscaler has minReplicas 5 and the queue wants 2, its change was undone every time,
    /// for ever.
    #[test]
    fn an_autoscaler_that_insists_is_undone_less_and_less_often() {
        let mut tracker = ForeignScalingTracker::default();
        let hour = writes(&mut tracker, 3600, |second| (second % 15 == 0).then_some(5));
        assert_eq!(hour[..5], [0, 15, 35, 75, 155]);
        assert!(hour.len() < 14, "{hour:?}");
        let last: Vec<u64> = hour.windows(2).map(|pair| pair[1] - pair[0]).skip(6).collect();
        assert!(last.iter().all(|pause| (600..=615).contains(pause)), "{last:?}");
        let scaling = tracker.current().unwrap();
        assert_eq!((scaling.found, scaling.wanted), (5, 2));
        assert!(scaling.to_string().contains("HorizontalPodAutoscaler"), "{scaling}");
    }

    #[test]
    fn a_single_change_is_undone_at_once_and_forgotten_after_five_minutes() {
        let mut tracker = ForeignScalingTracker::default();
        assert_eq!(writes(&mut tracker, 200, |second| (second == 7).then_some(5)), [7]);
        assert!(tracker.current().is_some());
        let mut tracker = ForeignScalingTracker::default();
        assert_eq!(writes(&mut tracker, 400, |second| (second == 7).then_some(5)), [7]);
        assert_eq!(tracker.current(), None);
        // An hour later, a change counts as the first again.
        let twice = |second| [7, 3600].contains(&second).then_some(5);
        assert_eq!(writes(&mut ForeignScalingTracker::default(), 4000, twice), [7, 3600]);
    }

    #[test]
    fn an_event_names_each_manager_once_an_hour_and_a_changed_task_queue_starts_afresh() {
        let (mut tracker, now) = (ForeignScalingTracker::default(), Instant::now());
        let found = |who: &str, made_from| seen(5, 2, vec![who.to_owned()], made_from);
        assert_eq!(tracker.observe(found("kubectl", "1"), now), None, "the operator has not written yet");
        tracker.note_written(2, now);
        assert!(tracker.observe(found("kubectl", "1"), now).unwrap().contains("kubectl set 5 pods"));
        tracker.note_written(2, now);
        assert_eq!(tracker.observe(found("kubectl", "1"), now), None);
        assert!(tracker.is_backing_off(now));
        let both = tracker.observe(found("other", "1"), now).unwrap();
        assert!(both.starts_with("kubectl, other set"), "{both}");
        assert_eq!(tracker.observe(found("other", "2"), now), None);
        assert_eq!((tracker.is_backing_off(now), tracker.current()), (false, None));
        tracker.note_written(2, now);
        assert_eq!(tracker.observe(found("other", "2"), now), None, "an event has named it");
        assert!(tracker.current().is_some());
        tracker.reset();
        assert_eq!((tracker.observe(found("other", "2"), now), tracker.current()), (None, None));
    }

    /// It timed out, and the API server carried it out.
    #[test]
    fn a_write_that_failed_is_not_taken_for_a_foreign_one() {
        let (mut tracker, now) = (ForeignScalingTracker::default(), Instant::now());
        begin(&mut tracker, now);
        tracker.note_failed();
        tracker.observe(seen(4, 5, vec!["somebody".into()], "1"), now);
        assert_eq!(tracker.current(), None);
    }

    #[test]
    fn our_own_changes_and_equal_foreign_ones_are_not_contested() {
        let (mut tracker, now) = (ForeignScalingTracker::default(), Instant::now());
        begin(&mut tracker, now);
        let found = |replicas, wanted, managers| seen(replicas, wanted, managers, "1");
        tracker.observe(found(2, 4, vec!["kubectl".into()]), now);
        tracker.observe(found(4, 4, vec!["kubectl".into()]), now);
        tracker.observe(found(3, 4, Vec::new()), now);
        assert_eq!(tracker.current(), None);
    }
}
