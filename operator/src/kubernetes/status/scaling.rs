//! The last decision in the status, with the figures that decided it. No I/O.

use rowlock_crds::{ScalingInputs, ScalingMode, ScalingStatus};
use rowlock_plan::Inputs;

use crate::view::QueueView;

/// From this figure on, two digits are kept.
const ROUNDED_FROM: i64 = 100;

/// The figures are those of the moment when the number or its reason changed: an idle queue, whose rate falls
/// for minutes, is not written again and again. While the database is away, they stay as they were.
pub(super) fn scaling(view: &QueueView, mode: ScalingMode, last: Option<&ScalingStatus>) -> ScalingStatus {
    let decision = &view.decision;
    let demand = decision.demand.unwrap_or(decision.workers_desired);
    let before = last.and_then(|last| last.inputs.as_ref());
    let demand = i32::try_from(demand).unwrap_or(i32::MAX);
    let reason = decision.reason.as_str();
    let is_same = last.is_some_and(|last| last.demand == demand && last.reason == reason);
    ScalingStatus {
        mode: mode.as_str().to_owned(),
        demand,
        reason: reason.to_owned(),
        limited_by: decision.reason.is_limit().then(|| reason.to_owned()),
        inputs: match &decision.inputs {
            Some(_) if is_same && before.is_some() => before.cloned(),
            Some(inputs) => Some(rounded_inputs(inputs)),
            None if view.stats.is_none() => before.cloned(),
            None => None,
        },
    }
}

fn rounded_inputs(inputs: &Inputs) -> ScalingInputs {
    let count = |count: u64| rounded(i64::try_from(count).unwrap_or(i64::MAX));
    let figure = |figure: f64| rounded(whole(figure));
    ScalingInputs {
        waiting: count(inputs.backlog),
        running: count(inputs.running),
        arrivals_per_minute: figure(inputs.arrivals_per_second * 60.0),
        service_millis: figure(inputs.service_seconds * 1000.0),
        pod_start_millis: figure(inputs.pod_start_seconds * 1000.0),
        workers_for_rate: figure(inputs.for_rate.ceil()),
        workers_for_backlog: figure(inputs.for_backlog.ceil()),
    }
}

/// Two digits.
pub(super) fn rounded(count: i64) -> i64 {
    let mut unit = 1;
    while count / unit >= ROUNDED_FROM {
        unit *= 10;
    }
    count / unit * unit
}

#[expect(clippy::cast_possible_truncation, reason = "float casts saturate")]
fn whole(figure: f64) -> i64 {
    figure.round() as i64
}

#[cfg(test)]
mod tests {
    use rowlock_plan::{Decision, Memory, Reason};

    use crate::view::QueueSettings;

    use super::*;

    #[test]
    fn counts_keep_two_digits() {
        for (count, expected) in [
            (0, 0),
            (99, 99),
            (100, 100),
            (109, 100),
            (1999, 1900),
            (1_234_567, 1_200_000),
            (i64::MAX, 9_200_000_000_000_000_000),
        ] {
            assert_eq!(rounded(count), expected);
        }
    }

    const INPUTS: Inputs = Inputs {
        arrivals_falling: false,
        arrivals_per_second: 3.26,
        service_seconds: 0.2504,
        service_variation: 1.0,
        service_assumed: false,
        backlog: 120,
        running: 4,
        pod_start_seconds: 3.0,
        backlog_then: 0.0,
        for_rate: 0.9,
        for_backlog: 9.64,
    };

    #[test]
    fn figures_have_whole_units() {
        let expected = ScalingInputs {
            waiting: 120,
            running: 4,
            arrivals_per_minute: 190,
            service_millis: 250,
            pod_start_millis: 3000,
            workers_for_rate: 1,
            workers_for_backlog: 10,
        };
        assert_eq!(rounded_inputs(&INPUTS), expected);
    }

    #[test]
    fn figures_change_only_with_the_number_or_its_reason() {
        let decided = |reason, inputs| QueueView {
            name: "mail".into(),
            refused: None,
            owner: None,
            stats: None,
            backlog_full: false,
            enqueued: 0,
            settings: QueueSettings::default(),
            instances: 1,
            ready: 1,
            draining: 0,
            decision: Decision {
                workers_desired: 10,
                pods_desired: 1,
                reason,
                demand: Some(10),
                inputs,
                memory: Memory::default(),
            },
            limit: None,
            shortage: None,
            metrics: Vec::new(),
        };
        let scaling = |reason, inputs, last| scaling(&decided(reason, inputs), ScalingMode::Auto, last);
        let first = scaling(Reason::Backlog, Some(INPUTS), None);
        let waiting = |status: &ScalingStatus| status.inputs.as_ref().map(|inputs| inputs.waiting);
        assert_eq!(waiting(&first), Some(120));
        let more = Some(Inputs { backlog: 500, ..INPUTS });
        assert_eq!(scaling(Reason::Backlog, more, Some(&first)), first);
        assert_eq!(waiting(&scaling(Reason::Rate, more, Some(&first))), Some(500));
        // The database is away.
        assert_eq!(waiting(&scaling(Reason::Unknown, None, Some(&first))), Some(120));
    }
}
