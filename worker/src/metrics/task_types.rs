//! Counters by task type. Producers choose the types, so their number is bounded here.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus::{
    Counter, CounterVec, IntCounter, IntCounterVec, Registry, register_counter_vec_with_registry as seconds,
    register_int_counter_vec_with_registry as counters,
};
use rowlock_queue::Outcome;

use crate::handler::outcome::FAILURE_REASONS;

/// Types with series of their own, in the order in which this process meets them. Each has 16 series.
const TYPES_MAX: usize = 20;

/// The label of all other types, and of tasks whose type is unknown.
const OTHER: &str = "other";

/// What a settlement does with a task: an outcome of its attempt, or it cancels the task.
pub(super) const OUTCOMES: [&str; 7] = {
    let [complete, retry, dead, snooze, release, suspect] = Outcome::NAMES;
    [complete, retry, dead, snooze, release, suspect, "cancel"]
};

/// The value of the label `type`. `None`: [`OTHER`].
#[derive(Clone, Default)]
pub(crate) struct TypeLabel(Option<Arc<Series>>);

/// The series of one type that every task counts in. Finding them by their labels takes longer than counting.
struct Series {
    label: Box<str>,
    started: IntCounter,
    /// In the order of [`OUTCOMES`].
    settled: [IntCounter; OUTCOMES.len()],
    busy: Counter,
}

pub(crate) struct TaskTypes {
    started: IntCounterVec,
    settled: IntCounterVec,
    attempt_errors: IntCounterVec,
    busy: CounterVec,
    known: RwLock<HashMap<String, Arc<Series>>>,
    other: Arc<Series>,
}

impl TaskTypes {
    pub(super) fn new(r: &Registry) -> Result<Self, prometheus::Error> {
        let started = counters!("tasks_started_total", "Calls of the handler", &["type"], r)?;
        let settled = counters!("tasks_settled_total", "Tasks settled, by outcome", &["type", "outcome"], r)?;
        let attempt_errors = counters!(
            "attempt_errors_total",
            "Calls of the handler that failed, by reason",
            &["type", "reason"],
            r
        )?;
        let busy = seconds!(
            "busy_seconds_total",
            "Time for which slots were busy with calls of the handler",
            &["type"],
            r
        )?;
        let other = create(&started, &settled, &attempt_errors, &busy, OTHER);
        Ok(Self { started, settled, attempt_errors, busy, known: RwLock::default(), other })
    }

    /// The label for a task type. Creates the series of a type that is new.
    pub(crate) fn label(&self, task_type: &str) -> TypeLabel {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let series = known.get(task_type).map(Arc::clone);
        let is_full = TYPES_MAX <= known.len();
        drop(known);
        if series.is_some() || is_full {
            return TypeLabel(series);
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if TYPES_MAX <= known.len() && !known.contains_key(task_type) {
            return TypeLabel::default();
        }
        let Self { started, settled, attempt_errors, busy, .. } = self;
        let series = known
            .entry(task_type.to_owned())
            .or_insert_with(|| create(started, settled, attempt_errors, busy, task_type));
        TypeLabel(Some(Arc::clone(series)))
    }

    fn series<'a>(&'a self, label: &'a TypeLabel) -> &'a Series {
        label.0.as_ref().unwrap_or(&self.other)
    }

    pub(super) fn started(&self, label: &TypeLabel) {
        self.series(label).started.inc();
    }

    pub(super) fn settled(&self, label: &TypeLabel, outcome: &'static str) {
        let settled = OUTCOMES.iter().position(|known| *known == outcome);
        if let Some(counter) = settled.and_then(|at| self.series(label).settled.get(at)) {
            counter.inc();
        }
    }

    pub(super) fn failed(&self, label: &TypeLabel, reason: &'static str) {
        self.attempt_errors.with_label_values(&[&*self.series(label).label, reason]).inc();
    }

    pub(super) fn busy(&self, label: &TypeLabel, took: Duration) {
        self.series(label).busy.inc_by(took.as_secs_f64());
    }

    #[cfg(test)]
    pub(super) fn settled_so_far(&self, outcome: &str) -> u64 {
        let known = self.known.read().unwrap();
        let types = known.keys().map(String::as_str).chain([OTHER]);
        types.map(|label| self.settled.with_label_values(&[label, outcome]).get()).sum()
    }
}

/// Creates the series of a type. Series that exist with 0 let a rate include their first event.
fn create(
    started: &IntCounterVec,
    settled: &IntCounterVec,
    attempt_errors: &IntCounterVec,
    busy: &CounterVec,
    label: &str,
) -> Arc<Series> {
    for reason in FAILURE_REASONS {
        attempt_errors.with_label_values(&[label, reason]);
    }
    Arc::new(Series {
        label: label.into(),
        started: started.with_label_values(&[label]),
        settled: OUTCOMES.map(|outcome| settled.with_label_values(&[label, outcome])),
        busy: busy.with_label_values(&[label]),
    })
}
