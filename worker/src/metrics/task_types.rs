//! Counters by task type. Producers choose the types, so their number is bounded here.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus::{
    CounterVec, IntCounterVec, Registry, register_counter_vec_with_registry as seconds,
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

/// The value of the label `type`.
#[derive(Clone, Debug, Default)]
pub(crate) struct TypeLabel(Option<Arc<str>>);

impl TypeLabel {
    fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or(OTHER)
    }
}

pub(crate) struct TaskTypes {
    started: IntCounterVec,
    settled: IntCounterVec,
    attempt_errors: IntCounterVec,
    busy: CounterVec,
    known: RwLock<HashSet<Arc<str>>>,
}

impl TaskTypes {
    pub(super) fn new(r: &Registry) -> Result<Self, prometheus::Error> {
        let types = Self {
            started: counters!("tasks_started_total", "Calls of the handler", &["type"], r)?,
            settled: counters!("tasks_settled_total", "Tasks settled, by outcome", &["type", "outcome"], r)?,
            attempt_errors: counters!(
                "attempt_errors_total",
                "Calls of the handler that failed, by reason",
                &["type", "reason"],
                r
            )?,
            busy: seconds!(
                "busy_seconds_total",
                "Time for which slots were busy with calls of the handler",
                &["type"],
                r
            )?,
            known: RwLock::default(),
        };
        types.create(&TypeLabel::default());
        Ok(types)
    }

    /// The label for a task type. Creates the series of a type that is new.
    pub(crate) fn label(&self, task_type: &str) -> TypeLabel {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let label = known.get(task_type).map(Arc::clone);
        let is_full = TYPES_MAX <= known.len();
        drop(known);
        if label.is_some() || is_full {
            return TypeLabel(label);
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if TYPES_MAX <= known.len() && !known.contains(task_type) {
            return TypeLabel::default();
        }
        let label: Arc<str> = task_type.into();
        known.insert(Arc::clone(&label));
        let label = TypeLabel(Some(label));
        self.create(&label);
        label
    }

    /// Series that exist with 0 let a rate include their first event.
    fn create(&self, label: &TypeLabel) {
        let label = label.as_str();
        self.started.with_label_values(&[label]);
        self.busy.with_label_values(&[label]);
        for outcome in OUTCOMES {
            self.settled.with_label_values(&[label, outcome]);
        }
        for reason in FAILURE_REASONS {
            self.attempt_errors.with_label_values(&[label, reason]);
        }
    }

    pub(super) fn started(&self, label: &TypeLabel) {
        self.started.with_label_values(&[label.as_str()]).inc();
    }

    pub(super) fn settled(&self, label: &TypeLabel, outcome: &'static str) {
        self.settled.with_label_values(&[label.as_str(), outcome]).inc();
    }

    pub(super) fn failed(&self, label: &TypeLabel, reason: &'static str) {
        self.attempt_errors.with_label_values(&[label.as_str(), reason]).inc();
    }

    pub(super) fn busy(&self, label: &TypeLabel, took: Duration) {
        self.busy.with_label_values(&[label.as_str()]).inc_by(took.as_secs_f64());
    }

    #[cfg(test)]
    pub(super) fn settled_so_far(&self, outcome: &str) -> u64 {
        let known = self.known.read().unwrap();
        let types = known.iter().map(|label| &**label).chain([OTHER]);
        types.map(|label| self.settled.with_label_values(&[label, outcome]).get()).sum()
    }
}
