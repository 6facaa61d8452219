//! Reasons in words: the only place that has them.

use crate::Reason;

impl Reason {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Backlog,
        Self::Rate,
        Self::Running,
        Self::Fixed,
        Self::External,
        Self::Idle,
        Self::MinWorkers,
        Self::Total,
        Self::Connections,
        Self::NotStarting,
        Self::Failing,
        Self::Stabilization,
        Self::Paused,
        Self::Suspended,
        Self::Stalled,
        Self::Unknown,
    ];

    /// The reason with this name, as [`Self::as_str`] writes it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// The reason in words: a clause that begins in lower case and ends without a full stop.
    #[must_use]
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Backlog => "tasks wait",
            Self::Rate => "tasks keep coming",
            Self::Running => "each running task keeps its slot",
            Self::Fixed => "workers.total sets the number, without autoscaling",
            Self::External => "workers.replicas sets the number",
            Self::Idle => "no task waits or runs",
            Self::MinWorkers => "autoscaling.min is enough",
            Self::Total => "workers.total is reached",
            Self::Connections => "the database has no connections left",
            Self::NotStarting => "no handler starts, so the operator keeps one pod",
            Self::Failing => "nearly all runs fail, so no pods are added",
            Self::Stabilization => "fewer are enough, but not for all of autoscaling.scaleDownAfter yet",
            Self::Paused => "spec.paused is set",
            Self::Suspended => "spec.suspendScaling is set, so the number stays",
            Self::Stalled => "the operator cannot scale the queue, as the condition Stalled says",
            Self::Unknown => "the queue's statistics cannot be read, so the number stays",
        }
    }

    /// What to change if another number is wanted: a sentence without a full stop. `None`: the number
    /// follows the tasks.
    #[must_use]
    pub const fn advice(self) -> Option<&'static str> {
        match self {
            Self::Backlog | Self::Rate | Self::Running | Self::Idle => None,
            Self::Fixed => Some("Set workers.scaling to Auto to let the number follow the tasks"),
            Self::External => Some("Change workers.replicas, or set workers.scaling to Auto"),
            Self::MinWorkers => Some("Lower autoscaling.min to keep fewer"),
            Self::Total => Some("Raise workers.total to allow more"),
            Self::Connections => {
                Some("Allow more connections to the database, or lower workers.total of other queues")
            }
            Self::NotStarting => Some("See the condition HandlerHealthy, or the log of the handler"),
            Self::Failing => {
                Some("See the errors with `rowlock tasks --state retryable` and `rowlock task ID`")
            }
            Self::Stabilization => Some("Shorten autoscaling.scaleDownAfter to scale down sooner"),
            Self::Paused => Some("Set spec.paused to false to start tasks again"),
            Self::Suspended => Some("Remove spec.suspendScaling, or set the number of pods yourself"),
            Self::Stalled => Some("Do what the message of the condition Stalled says"),
            Self::Unknown => Some("See the condition DatabaseReachable, or the log of the operator"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_found_by_its_name_and_has_words_of_its_own() {
        let mut words = Vec::new();
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.as_str()), Some(reason));
            let explained = reason.explain();
            assert!(explained.starts_with(char::is_lowercase) && !explained.ends_with('.'), "{explained}");
            assert!(!words.contains(&explained), "{explained}");
            words.push(explained);
        }
        assert_eq!(Reason::from_name("backlog"), None);
    }

    /// The words name the field that a reason is about.
    #[test]
    fn reasons_name_their_fields() {
        for (reason, field) in [
            (Reason::Fixed, "workers.total"),
            (Reason::External, "workers.replicas"),
            (Reason::MinWorkers, "autoscaling.min"),
            (Reason::Total, "workers.total"),
            (Reason::Paused, "spec.paused"),
            (Reason::Suspended, "spec.suspendScaling"),
            (Reason::Stalled, "Stalled"),
        ] {
            assert!(reason.explain().contains(field), "{reason}");
            assert!(
                reason
                    .advice()
                    .is_some_and(|advice| advice.contains(field) || advice.contains("workers.scaling"))
            );
        }
    }

    #[test]
    fn there_is_advice_unless_the_number_follows_the_tasks() {
        for reason in Reason::ALL {
            let follows = matches!(reason, Reason::Backlog | Reason::Rate | Reason::Running | Reason::Idle);
            assert_eq!(reason.advice().is_none(), follows, "{reason}");
            assert!(
                reason.advice().is_none_or(|advice| {
                    advice.starts_with(char::is_uppercase) && !advice.ends_with('.')
                })
            );
        }
    }
}
