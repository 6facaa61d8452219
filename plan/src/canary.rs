//! Whether a new pod template goes to all pods, by what its first pods have done: the canary.
//!
//! The new pods are compared with the old ones over the same time, so an outage that hits both says nothing
//! against the new template. A difference counts when it is larger than what is allowed, and clearly larger
//! than chance.

use std::fmt;
use std::time::Duration;

use rowlock_crds::CanarySpec;

use crate::Runs;
use crate::service::sane;

/// How long pods may crash, or fail to pull their image, before the old template comes back. A registry or a
/// node may need another try.
const BROKEN_FOR: Duration = Duration::from_mins(1);

/// How often a handler may end in one pod. Its tasks are released, so they do not count as failed runs. A
/// task that kills handlers is found after fewer ends.
const MOST_RESTARTS: u32 = 3;

/// How sure a difference must be, and from how many runs.
#[derive(Debug, Clone, Copy)]
struct Proof {
    /// In standard errors.
    failures: f64,
    duration: f64,
    least_failed: u64,
    least_completed: u64,
}

/// At any moment. The figures are looked at every two seconds, so chance has many tries. Five failed runs: a
/// single bad task must not decide.
const CLEAR: Proof = Proof { failures: 3.0, duration: 3.0, least_failed: 5, least_completed: 20 };

/// When the time is over: then a lesser difference decides, since no more runs are awaited.
const LIKELY: Proof = Proof { failures: 0.0, duration: 2.0, least_failed: 2, least_completed: 10 };

/// The runs of the new pods and of the old ones, over the same time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Compared {
    /// Of the pods with the new template.
    pub new: Runs,
    /// Of the others.
    pub old: Runs,
}

/// What is known about a canary at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ObservedCanary {
    /// Pods with the new template, and how many of them are ready.
    pub pods: u32,
    /// How many of them are ready.
    pub ready: u32,
    /// How long it has been since the canary began, while none of its pods has been ready yet.
    pub unready_for: Duration,
    /// How long a start may take.
    pub start_longest: Duration,
    /// How long its pods have crashed, or failed to pull an image.
    pub broken_for: Duration,
    /// How often a handler has ended, in the pod where it did most often.
    pub restarts: u32,
    /// How long its pods have been ready, while the queue was not paused.
    pub watched: Duration,
    /// Whether the queue wants pods at all.
    pub wants_pods: bool,
    /// All runs since it began.
    pub total: Compared,
    /// The runs of the last two minutes.
    pub newest: Compared,
}

/// What happens to the new template.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CanaryStep {
    /// Its pods run on beside the old ones.
    Wait,
    /// All pods get it.
    GoOn,
    /// All pods get the old one.
    GoBack(CanaryFault),
}

/// What is wrong with the new pods.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CanaryFault {
    /// They do not become ready.
    NotReady {
        /// How many are ready.
        ready: u32,
        /// Of how many.
        pods: u32,
    },
    /// Their handler ends again and again.
    Ends {
        /// How often, in one pod.
        restarts: u32,
    },
    /// More of their runs fail.
    Failures(Compared),
    /// Their runs take longer.
    Slower(Compared),
}

/// Decides about a canary.
#[must_use]
pub fn canary_step(terms: &CanarySpec, seen: &ObservedCanary) -> CanaryStep {
    let not_ready = CanaryFault::NotReady { ready: seen.ready, pods: seen.pods };
    let late = seen.ready == 0 && seen.start_longest <= seen.unready_for;
    if late || BROKEN_FOR <= seen.broken_for {
        return CanaryStep::GoBack(not_ready);
    }
    if MOST_RESTARTS <= seen.restarts {
        return CanaryStep::GoBack(CanaryFault::Ends { restarts: seen.restarts });
    }
    let clearly = |compared| fault(terms, compared, CLEAR);
    if let Some(fault) = clearly(&seen.total).or_else(|| clearly(&seen.newest)) {
        return CanaryStep::GoBack(fault);
    }
    let is_over = !seen.wants_pods || terms.max_time.as_duration() <= seen.watched;
    let has_runs = terms.min_runs <= ended(&seen.total.new);
    let is_proven = has_runs && terms.min_time.as_duration() <= seen.watched;
    if !is_over && !is_proven {
        return CanaryStep::Wait;
    }
    // Without pods, none can be ready.
    let all_ready = seen.ready >= seen.pods.max(1) || !seen.wants_pods;
    let fault = fault(terms, &seen.total, LIKELY).or((!all_ready).then_some(not_ready));
    match fault {
        None => CanaryStep::GoOn,
        Some(fault) if is_over => CanaryStep::GoBack(fault),
        // More runs will show it.
        Some(_) => CanaryStep::Wait,
    }
}

fn ended(runs: &Runs) -> u64 {
    runs.completed.saturating_add(runs.failed)
}

fn fault(terms: &CanarySpec, compared: &Compared, proof: Proof) -> Option<CanaryFault> {
    let failures = Failures::of(&compared.new).zip(Failures::of(&compared.old).or(Some(Failures::NONE)));
    let fails_more = failures.is_some_and(|(new, old)| {
        compared.new.failed >= proof.least_failed
            && new.exceeds(old, f64::from(terms.extra_failure_percent) / 100.0, proof.failures)
    });
    if fails_more {
        return Some(CanaryFault::Failures(*compared));
    }
    let enough = |runs: &Runs| runs.completed >= proof.least_completed;
    let durations = RunTime::of(&compared.new).zip(RunTime::of(&compared.old));
    let is_slower = durations.is_some_and(|(new, old)| {
        let allowed = 1.0 + f64::from(terms.extra_duration_percent) / 100.0;
        enough(&compared.new) && enough(&compared.old) && new.exceeds(old, allowed, proof.duration)
    });
    is_slower.then_some(CanaryFault::Slower(*compared))
}

/// The share of runs that failed.
#[derive(Clone, Copy)]
struct Failures {
    share: f64,
    runs: f64,
}

impl Failures {
    /// Pods that ran nothing: the new ones are then compared with pods that never fail.
    const NONE: Self = Self { share: 0.0, runs: 0.0 };

    #[expect(clippy::cast_precision_loss, reason = "past 2^53 runs an error of one does not matter")]
    fn of(runs: &Runs) -> Option<Self> {
        let all = ended(runs);
        (all > 0).then(|| Self { share: runs.failed as f64 / all as f64, runs: all as f64 })
    }

    /// Whether it is higher than `old` by more than `allowed`, and by that many standard errors more.
    fn exceeds(self, old: Self, allowed: f64, errors: f64) -> bool {
        let old_runs = if old.runs > 0.0 { old.runs } else { self.runs };
        let both = (self.share * self.runs + old.share * old_runs) / (self.runs + old_runs);
        let error = (both * (1.0 - both) * (1.0 / self.runs + 1.0 / old_runs)).sqrt();
        let beyond = self.share - old.share - allowed;
        beyond > 0.0 && errors * error <= beyond
    }
}

/// How long completed runs take.
#[derive(Clone, Copy)]
struct RunTime {
    mean: f64,
    variance: f64,
    runs: f64,
}

impl RunTime {
    #[expect(clippy::cast_precision_loss, reason = "past 2^53 runs an error of one does not matter")]
    fn of(runs: &Runs) -> Option<Self> {
        let count = runs.completed as f64;
        let mean = sane(Some(runs.seconds)) / count;
        let variance = (sane(Some(runs.seconds_squared)) / count - mean.powi(2)).max(0.0);
        (runs.completed > 0).then_some(Self { mean, variance, runs: count })
    }

    /// Whether it is longer than `allowed` times `old`, by that many standard errors.
    fn exceeds(self, old: Self, allowed: f64, errors: f64) -> bool {
        let error = (self.variance / self.runs + allowed.powi(2) * old.variance / old.runs).sqrt();
        let beyond = self.mean - old.mean * allowed;
        beyond > 0.0 && errors * error <= beyond
    }
}

/// A clause that begins in lower case and ends without a full stop.
impl fmt::Display for CanaryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady { ready, pods } => write!(f, "{ready} of {pods} new pods became ready"),
            Self::Ends { restarts } => {
                write!(f, "the handler of a new pod ended {restarts} times while it ran tasks")
            }
            Self::Failures(Compared { new, old }) => {
                write!(f, "{} of the new pods failed, and {} of the old ones", Failed(new), Failed(old))
            }
            Self::Slower(Compared { new, old }) => write!(
                f,
                "a run of the new pods took {} on average ({} runs), and one of the old pods {} ({} runs)",
                Took(new),
                new.completed,
                Took(old),
                old.completed
            ),
        }
    }
}

/// How many runs failed.
struct Failed<'a>(&'a Runs);

impl fmt::Display for Failed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = Failures::of(self.0).map_or(0.0, |failures| failures.share);
        write!(f, "{} of {} runs ({:.1} %)", self.0.failed, ended(self.0), share * 100.0)
    }
}

/// The mean time of a run.
struct Took<'a>(&'a Runs);

impl fmt::Display for Took<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean = RunTime::of(self.0).map_or(0.0, |duration| duration.mean);
        if mean < 1.0 { write!(f, "{:.0} ms", mean * 1000.0) } else { write!(f, "{mean:.1} s") }
    }
}

/// Both figures: what a canary has seen so far.
impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { new, old } = self;
        write!(
            f,
            "of the new pods {} failed and one took {} on average; of the old pods {} and {}",
            Failed(new),
            Took(new),
            Failed(old),
            Took(old)
        )
    }
}
