//! What a Deployment remembers of its canary.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use rowlock_plan::{Compared, Runs};
use serde::{Deserialize, Serialize};

use crate::kubernetes::pods::status::since;

/// Heartbeats report the runs of the last two minutes. So every two minutes they are added up.
pub(crate) const WINDOW: Duration = Duration::from_mins(2);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CanaryRecord {
    /// The hash of what the new template was made from.
    pub(crate) template: String,
    /// The hash of `spec.rollout.canary`.
    pub(crate) terms: String,
    pub(crate) since: Time,
    /// The values of the label `pod-template-hash` of the old pods.
    old: BTreeSet<String>,
    /// Those of pods that are not compared: of an earlier canary.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    others: BTreeSet<String>,
    /// How long its pods have been watched, until `counted_at`.
    #[serde(default)]
    watched_seconds: u64,
    /// When runs were last added up; `None` until one of its pods has been ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counted_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total: Option<Sums>,
    /// Why all pods have the old template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<String>,
}

/// The runs of the new pods and of the old ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Sums {
    new: RunSums,
    old: RunSums,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RunSums {
    completed: u64,
    failed: u64,
    seconds: f64,
    seconds_squared: f64,
}

impl CanaryRecord {
    pub(crate) fn begin(
        template: String,
        terms: String,
        old: BTreeSet<String>,
        others: BTreeSet<String>,
        now: Timestamp,
    ) -> Self {
        Self {
            template,
            terms,
            since: whole_seconds(now),
            old,
            others,
            watched_seconds: 0,
            counted_at: None,
            total: None,
            failed: None,
        }
    }

    /// `None`: somebody has changed the annotation.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.failed.is_none()
    }

    /// Whether pods with this label have the new template.
    pub(crate) fn is_new(&self, template: &str) -> bool {
        !self.old.contains(template) && !self.others.contains(template)
    }

    pub(crate) fn is_old(&self, template: &str) -> bool {
        self.old.contains(template)
    }

    /// Whether pods with this label are of a canary, this one or an earlier one. After a failed one, newer
    /// pods are again made from the old template.
    pub(crate) fn is_foreign(&self, template: &str) -> bool {
        self.others.contains(template) || (self.is_running() && !self.old.contains(template))
    }

    /// The canary has failed. `seen`: the labels of all pods, and all runs since it began.
    pub(crate) fn fail(&mut self, why: String, seen: (impl Iterator<Item = String>, &Compared)) {
        self.others = seen.0.filter(|template| !self.old.contains(template)).collect();
        (self.failed, self.total) = (Some(why), Some(Sums::of(seen.1)));
    }

    /// How long it has been since it began, while none of its pods has been ready.
    pub(crate) fn unready_for(&self, now: Timestamp) -> Duration {
        if self.counted_at.is_some() { Duration::ZERO } else { since(self.since.0, now) }
    }

    /// Notes the runs of the last two minutes. `counts`: a pod is ready, and tasks can start. Returns how
    /// long its pods have been watched, and all runs since it began.
    pub(crate) fn count(&mut self, window: Compared, counts: bool, now: Timestamp) -> (Duration, Compared) {
        let Some(counted_at) = &self.counted_at else {
            self.counted_at = counts.then(|| whole_seconds(now));
            return (Duration::ZERO, window);
        };
        // While no leader watched, nothing was counted.
        let passed = since(counted_at.0, now).min(WINDOW);
        let mut watched = Duration::from_secs(self.watched_seconds);
        if counts {
            watched += passed;
        }
        if WINDOW <= passed {
            self.counted_at = Some(whole_seconds(now));
            self.watched_seconds = watched.as_secs();
            if counts {
                self.total = Some(Sums::of(&window).and(self.total));
            }
        }
        (watched, self.total.map_or(window, Sums::compared))
    }

    /// What had been counted when it was last written.
    pub(crate) fn total(&self) -> Option<Compared> {
        self.total.map(Sums::compared)
    }
}

impl Sums {
    fn of(compared: &Compared) -> Self {
        let sums = |runs: &Runs| RunSums {
            completed: runs.completed,
            failed: runs.failed,
            seconds: runs.seconds,
            seconds_squared: runs.seconds_squared,
        };
        Self { new: sums(&compared.new), old: sums(&compared.old) }
    }

    fn and(self, before: Option<Self>) -> Self {
        before.map_or(self, |before| Self { new: self.new.and(before.new), old: self.old.and(before.old) })
    }

    fn compared(self) -> Compared {
        let runs = |sums: RunSums| Runs {
            completed: sums.completed,
            failed: sums.failed,
            seconds: sums.seconds,
            seconds_squared: sums.seconds_squared,
        };
        Compared { new: runs(self.new), old: runs(self.old) }
    }
}

impl RunSums {
    fn and(self, other: Self) -> Self {
        Self {
            completed: self.completed.saturating_add(other.completed),
            failed: self.failed.saturating_add(other.failed),
            seconds: self.seconds + other.seconds,
            seconds_squared: self.seconds_squared + other.seconds_squared,
        }
    }
}

fn whole_seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}
