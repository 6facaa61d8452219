//! When an event reports another number of pods. No I/O. Changes in quick succession become one event.

use std::time::{Duration, Instant};

use rowlock_crds::EventReason;
use rowlock_plan::Decision;

/// The shortest time between two such events of a queue. Changes in between are part of the next one.
const MIN_INTERVAL: Duration = Duration::from_secs(30);

/// The last event.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ScalingEvents {
    pods: Option<u32>,
    at: Option<Instant>,
}

impl ScalingEvents {
    /// The event that is due now. `contested`: another field manager sets the number too. `least`: the
    /// shortest interval, which grows with the number of queues.
    pub(crate) fn note(
        &mut self,
        pods: u32,
        decision: &Decision,
        contested: bool,
        least: Duration,
        now: Instant,
    ) -> Option<(EventReason, String)> {
        let before = *self.pods.get_or_insert(pods);
        if contested || decision.reason.keeps_pods() {
            // Another field manager may have changed the number.
            self.pods = Some(pods);
            return None;
        }
        let early = self.at.is_some_and(|at| now.duration_since(at) < MIN_INTERVAL.max(least));
        if pods == before || early {
            return None;
        }
        (self.pods, self.at) = (Some(pods), Some(now));
        let reason = if pods > before { EventReason::ScaledUp } else { EventReason::ScaledDown };
        let inputs = decision.inputs.map_or_else(String::new, |inputs| format!(": {inputs}"));
        Some((
            reason,
            format!(
                "from {before} to {pods} pods: {} ({}){inputs}",
                decision.reason.explain(),
                decision.reason
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rowlock_plan::{Memory, Reason};

    fn decision(reason: Reason) -> Decision {
        Decision {
            workers_desired: 1,
            pods_desired: 1,
            reason,
            demand: None,
            inputs: None,
            memory: Memory::default(),
        }
    }

    #[test]
    fn each_change_is_reported_once_with_from_to_and_reason() {
        let (mut scaling_events, now) = (ScalingEvents::default(), Instant::now());
        let mut at = |seconds: u64, pods: u32, reason: Reason| {
            let published = scaling_events.note(
                pods,
                &decision(reason),
                false,
                Duration::ZERO,
                now + Duration::from_secs(seconds),
            );
            published.map(|(reason, note)| format!("{} {note}", reason.as_str()))
        };
        assert_eq!(at(0, 2, Reason::Backlog), None, "a new operator has changed nothing");
        assert_eq!(
            at(1, 4, Reason::Backlog).as_deref(),
            Some("ScaledUp from 2 to 4 pods: tasks wait (Backlog)")
        );
        assert_eq!(at(2, 4, Reason::Backlog), None);
        // Changes in quick succession are one event.
        assert_eq!(at(3, 9, Reason::Backlog), None);
        assert_eq!(at(20, 7, Reason::Rate), None);
        let next = at(31, 1, Reason::MinWorkers);
        assert!(
            next.as_ref().is_some_and(|next| next.starts_with("ScaledDown from 4 to 1 pods")),
            "{next:?}"
        );
        assert_eq!(at(90, 5, Reason::Suspended), None, "another field manager has scaled");
        assert!(at(91, 6, Reason::Backlog).is_some_and(|note| note.contains("from 5 to 6")));
        let later = now + Duration::from_mins(10);
        let contested = scaling_events.note(9, &decision(Reason::Backlog), true, Duration::ZERO, later);
        assert_eq!(contested, None, "another field manager scales, and the operator restores its number");
    }
}
