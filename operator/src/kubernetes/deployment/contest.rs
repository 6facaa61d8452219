//! Another field manager sets how many pods a Deployment has, which is the operator's to say: pure. It is put
//! back, less often each time, so that two autoscalers do not undo each other for ever; and people are told
//! who it is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rowlock_crds::api;

/// How long the second change of others stays, and twice as long each next one. The first is undone at once:
/// it may have been a `kubectl scale` out of habit.
const FIRST_PAUSE: Duration = Duration::from_secs(10);

/// The longest of these: as rarely as a number of pods may change in vain, and as soon as a queue is scaled
/// again when the other autoscaler is gone.
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// A number that has stayed for so long after it was put back is contested no more: every autoscaler looks
/// more often.
const QUIET: Duration = Duration::from_mins(5);

/// How often people are told of the same field manager in an event: as long as an event is kept.
const TOLD_EVERY: Duration = Duration::from_hours(1);

/// The most field managers that are named; each chooses its own name, and could choose many.
const MOST_NAMED: usize = 5;

/// Who sets another number than the `TaskQueue` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contest {
    pub(crate) managers: Vec<String>,
    /// Pods that they have set last.
    pub(crate) theirs: u32,
    /// Pods that there shall be.
    pub(crate) ours: u32,
}

/// What is seen of the Deployment.
#[derive(Debug)]
pub(crate) struct Observation<'a> {
    pub(crate) replicas: u32,
    pub(crate) wanted: u32,
    /// Others that have set that number.
    pub(crate) managers: Vec<String>,
    /// What the pods are made from: a change of it begins anew.
    pub(crate) made_from: &'a str,
}

/// What is remembered of it, for one queue.
#[derive(Debug, Default)]
pub(crate) struct Contests {
    /// What the operator wrote last.
    written: Option<u32>,
    made_from: String,
    contest: Option<Contest>,
    /// Whether their number is there now.
    open: bool,
    /// How often it was put back, and when last.
    restored: u32,
    at: Option<Instant>,
    told: BTreeMap<String, Instant>,
}

impl Contests {
    /// Compares with what is there; an event's note, where people are to be told of somebody.
    pub(crate) fn observe(&mut self, found: Observation<'_>, now: Instant) -> Option<String> {
        if self.made_from != found.made_from {
            found.made_from.clone_into(&mut self.made_from);
            // What they set until then is no contest of what is asked for now.
            self.leave();
        }
        let theirs = self.written.is_some_and(|ours| ours != found.replicas);
        self.open = theirs && found.replicas != found.wanted && !found.managers.is_empty();
        if !self.open {
            let quiet = self.at.is_none_or(|at| now.duration_since(at) >= QUIET);
            if quiet {
                (self.contest, self.restored, self.at) = (None, 0, None);
            }
            return None;
        }
        let mut managers = self.contest.take().map(|before| before.managers).unwrap_or_default();
        let new = found.managers.into_iter().filter(|one| !managers.contains(one)).collect::<Vec<_>>();
        managers.extend(new);
        managers.truncate(MOST_NAMED);
        self.told.retain(|_, at| now.duration_since(*at) < TOLD_EVERY);
        let untold = managers.iter().any(|one| !self.told.contains_key(one));
        self.told.extend(managers.iter().map(|one| (one.clone(), now)).filter(|_| untold));
        let contest = Contest { managers, theirs: found.replicas, ours: found.wanted };
        let note = untold.then(|| contest.to_string());
        self.contest = Some(contest);
        note
    }

    /// Whether their number stays for now.
    pub(crate) fn waiting(&self, now: Instant) -> bool {
        self.open && self.at.is_some_and(|at| now.duration_since(at) < pause(self.restored))
    }

    /// The operator has written that number.
    pub(crate) fn wrote(&mut self, replicas: u32, now: Instant) {
        self.written = Some(replicas);
        if std::mem::take(&mut self.open) {
            self.restored = self.restored.saturating_add(1);
            self.at = Some(now);
        }
    }

    /// The number is theirs to say.
    pub(crate) fn leave(&mut self) {
        (self.written, self.contest, self.open, self.restored, self.at) = (None, None, false, 0, None);
    }

    pub(crate) fn current(&self) -> Option<&Contest> {
        self.contest.as_ref()
    }
}

/// How long their number stays, after it was put back so often.
fn pause(restored: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(restored.saturating_sub(1));
    FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE)
}

/// For people: who it is, what comes of it, and what to change.
impl std::fmt::Display for Contest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { managers, theirs, ours } = self;
        let named = |who: &String| {
            if who == "kube-controller-manager" {
                format!("{who} (a HorizontalPodAutoscaler, such as KEDA makes)")
            } else {
                who.clone()
            }
        };
        let who: Vec<String> = managers.iter().map(named).collect();
        write!(
            f,
            "{} had set {theirs} pods on the Deployment, where the TaskQueue asks for {ours}: they are put \
             back, after {} s if it goes on, then ever more seldom, up to every {} minutes. To scale from \
             outside, set workers.scaling to External, and let the autoscaler's scaleTargetRef be the \
             TaskQueue (apiVersion {}, kind {}) or use kubectl scale taskqueue; else remove that autoscaler",
            who.join(", "),
            FIRST_PAUSE.as_secs(),
            LONGEST_PAUSE.as_secs() / 60,
            api::API_VERSION,
            api::KIND,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The operator's first number is 2.
    fn begin(contests: &mut Contests, now: Instant) {
        let nothing = Observation { replicas: 0, wanted: 2, managers: Vec::new(), made_from: "1" };
        assert_eq!(contests.observe(nothing, now), None);
        contests.wrote(2, now);
    }

    /// An autoscaler that says its number whenever it looks, beside an operator that looks every second, for
    /// so long: how often the operator writes.
    fn writes(contests: &mut Contests, seconds: u64, autoscaler: impl Fn(u64) -> Option<u32>) -> Vec<u64> {
        let start = Instant::now();
        let (mut replicas, mut theirs, mut written) = (2, false, Vec::new());
        begin(contests, start);
        for second in 0..seconds {
            if let Some(number) = autoscaler(second) {
                (replicas, theirs) = (number, true);
            }
            let now = start + Duration::from_secs(second);
            let managers = if theirs { vec!["kube-controller-manager".to_owned()] } else { Vec::new() };
            contests.observe(Observation { replicas, wanted: 2, managers, made_from: "1" }, now);
            if replicas != 2 && !contests.waiting(now) {
                (replicas, theirs) = (2, false);
                contests.wrote(2, now);
                written.push(second);
            }
        }
        written
    }

    /// Before, an autoscaler with minReplicas 5 beside a queue that wants 2 was undone each time it looked,
    /// for ever.
    #[test]
    fn who_insists_is_undone_ever_more_seldom() {
        let mut contests = Contests::default();
        let hour = writes(&mut contests, 3600, |second| (second % 15 == 0).then_some(5));
        assert_eq!(hour[..5], [0, 15, 35, 75, 155]);
        assert!(hour.len() < 14, "{hour:?}");
        let last: Vec<u64> = hour.windows(2).map(|pair| pair[1] - pair[0]).skip(6).collect();
        assert!(last.iter().all(|pause| (600..=615).contains(pause)), "{last:?}");
        let contest = contests.current().unwrap();
        assert_eq!((contest.theirs, contest.ours), (5, 2));
        assert!(contest.to_string().contains("HorizontalPodAutoscaler"), "{contest}");
    }

    #[test]
    fn what_somebody_did_once_is_undone_at_once_and_forgotten_after_a_while() {
        let mut contests = Contests::default();
        assert_eq!(writes(&mut contests, 200, |second| (second == 7).then_some(5)), [7]);
        assert!(contests.current().is_some());
        let mut contests = Contests::default();
        assert_eq!(writes(&mut contests, 400, |second| (second == 7).then_some(5)), [7]);
        assert_eq!(contests.current(), None);
        // Another time an hour later is a first time.
        let twice = |second| [7, 3600].contains(&second).then_some(5);
        assert_eq!(writes(&mut Contests::default(), 4000, twice), [7, 3600]);
    }

    #[test]
    fn each_is_told_of_once_an_hour_and_a_change_of_the_task_queue_begins_anew() {
        let (mut contests, now) = (Contests::default(), Instant::now());
        let found = |who: &str, made_from| Observation {
            replicas: 5,
            wanted: 2,
            managers: vec![who.to_owned()],
            made_from,
        };
        assert_eq!(contests.observe(found("kubectl", "1"), now), None, "nothing was written yet");
        contests.wrote(2, now);
        assert!(contests.observe(found("kubectl", "1"), now).unwrap().contains("kubectl had set 5 pods"));
        contests.wrote(2, now);
        assert_eq!(contests.observe(found("kubectl", "1"), now), None);
        assert!(contests.waiting(now));
        let both = contests.observe(found("other", "1"), now).unwrap();
        assert!(both.starts_with("kubectl, other had set"), "{both}");
        assert_eq!(contests.observe(found("other", "2"), now), None);
        assert_eq!((contests.waiting(now), contests.current()), (false, None));
        contests.wrote(2, now);
        assert_eq!(contests.observe(found("other", "2"), now), None, "they were told of it");
        assert!(contests.current().is_some());
        contests.leave();
        assert_eq!((contests.observe(found("other", "2"), now), contests.current()), (None, None));
    }

    #[test]
    fn what_we_change_ourselves_or_they_set_as_we_would_is_no_contest() {
        let (mut contests, now) = (Contests::default(), Instant::now());
        begin(&mut contests, now);
        let found = |replicas, wanted, managers| Observation { replicas, wanted, managers, made_from: "1" };
        contests.observe(found(2, 4, vec!["kubectl".into()]), now);
        contests.observe(found(4, 4, vec!["kubectl".into()]), now);
        contests.observe(found(3, 4, Vec::new()), now);
        assert_eq!(contests.current(), None);
    }
}
