//! The goals, each as a row: geometric means over loads.

use rowlock_simulation::LawKind;

use super::families::Kind;
use super::scores::{Figures, Scored, ScoredLoad, geometric_mean};
use crate::table::{Better, Row};

/// The goals beside other laws, as ratios.
const GOAL_WAIT: f64 = 0.25;
const GOAL_HOURS_KEDA: f64 = 0.7;
const GOAL_HOURS_KEDA_TUNED: f64 = 1.0;
const GOAL_HOURS_KNATIVE: f64 = 1.0;
const GOAL_HOURS_ORACLE: f64 = 1.3;
/// Nobody who does not know the future has pods before a burst and none after it.
const GOAL_HOURS_ORACLE_BURSTS: f64 = 4.0;

/// The goals for steady load.
const GOAL_REVERSALS: f64 = 2.0;
const GOAL_BUSY_PERCENT: f64 = 50.0;

/// The longest that a queue with tasks may be without a pod while idle pods of others hold the budget.
const GOAL_STARVATION_SECONDS: f64 = 30.0;

/// Loads where no law lets tasks wait for longer do not count for the goal of waits.
const WAIT_COUNTS_SECONDS: f64 = 0.5;

/// Shorter waits are equal: a ratio of milliseconds tells nothing.
const EQUAL_WAIT_SECONDS: f64 = 0.1;

/// Fewer slot-hours are equal: half a minute of a worker.
const EQUAL_WORKER_HOURS: f64 = 0.01;

pub(super) fn rows(scored: &[Scored]) -> Vec<Row> {
    use LawKind::{KedaDefault, KedaTuned, Knative, Oracle};
    let bursts = |family: &Scored| family.kind == Kind::BurstsFromZero;
    let hours = |what: &str, peer, goal, pairs: &[(f64, f64)]| row(what, "slot-hours", peer, goal, pairs);
    vec![
        row("p95 wait, where tasks wait", "s", KedaDefault, GOAL_WAIT, &waits(scored)),
        hours("cost, beside KEDA", KedaDefault, GOAL_HOURS_KEDA, &costs(scored, KedaDefault, |_| true)),
        hours(
            "cost, beside KEDA tuned",
            KedaTuned,
            GOAL_HOURS_KEDA_TUNED,
            &costs(scored, KedaTuned, |_| true),
        ),
        hours("cost, beside Knative", Knative, GOAL_HOURS_KNATIVE, &costs(scored, Knative, |_| true)),
        hours(
            "cost without bursts from zero",
            Oracle,
            GOAL_HOURS_ORACLE,
            &costs(scored, Oracle, |family| !bursts(family)),
        ),
        hours("cost of bursts from zero", Oracle, GOAL_HOURS_ORACLE_BURSTS, &costs(scored, Oracle, bursts)),
        most("steady load, reversals", "per minute", Some(GOAL_REVERSALS), scored, |family, ours| {
            if family.kind == Kind::Steady { ours.reversals_per_minute } else { 0.0 }
        }),
        most("steady load, reversals in the worst minute", "reversals", None, scored, |family, ours| {
            if family.kind == Kind::Steady { f64::from(ours.most_reversals_in_a_minute) } else { 0.0 }
        }),
        busy(scored),
        worse(scored),
        most(
            "longest without a pod beside idle ones",
            "s",
            Some(GOAL_STARVATION_SECONDS),
            scored,
            |_, ours| ours.longest_starvation_seconds,
        ),
    ]
}

/// Whether both waits and costs are worse than those of KEDA with HPA at their defaults.
pub(super) fn is_worse(family: &Scored) -> bool {
    let mean = |law, figure: fn(&Figures) -> f64| {
        let values: Vec<f64> = family.loads.iter().filter_map(|load| load.of(law)).map(figure).collect();
        geometric_mean(&values)
    };
    let worse = |figure| match (mean(LawKind::Rowlock, figure), mean(LawKind::KedaDefault, figure)) {
        (Some(ours), Some(theirs)) => ours > theirs,
        _ => false,
    };
    worse(wait) && worse(cost)
}

fn wait(figures: &Figures) -> f64 {
    figures.p95_seconds.max(EQUAL_WAIT_SECONDS)
}

fn cost(figures: &Figures) -> f64 {
    figures.worker_hours.max(EQUAL_WORKER_HOURS)
}

fn pair(load: &ScoredLoad, peer: LawKind) -> Option<(&Figures, &Figures)> {
    Some((load.of(LawKind::Rowlock)?, load.of(peer)?))
}

/// Our wait and KEDA's for each load where either lets tasks wait.
fn waits(scored: &[Scored]) -> Vec<(f64, f64)> {
    let loads = scored.iter().flat_map(|family| &family.loads);
    loads
        .filter_map(|load| pair(load, LawKind::KedaDefault))
        .filter(|(ours, theirs)| ours.p95_seconds.max(theirs.p95_seconds) > WAIT_COUNTS_SECONDS)
        .map(|(ours, theirs)| (wait(ours), wait(theirs)))
        .collect()
}

/// Our cost and the peer's for each load of some families.
fn costs(scored: &[Scored], peer: LawKind, counts: impl Fn(&Scored) -> bool) -> Vec<(f64, f64)> {
    let loads = scored.iter().filter(|family| counts(family)).flat_map(|family| &family.loads);
    loads.filter_map(|load| pair(load, peer)).map(|(ours, theirs)| (cost(ours), cost(theirs))).collect()
}

/// A row of geometric means. The goal applies to their ratio.
fn row(name: &str, unit: &'static str, peer: LawKind, goal: f64, pairs: &[(f64, f64)]) -> Row {
    let (ours, theirs): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    match (geometric_mean(&ours), geometric_mean(&theirs)) {
        (Some(ours), Some(theirs)) => {
            Row::with_peer(name, ours, unit, peer.name(), theirs, goal).better(Better::Lower)
        }
        _ => Row::without_value(name, unit, goal).peer_missing("no such load or law"),
    }
}

/// A row of the highest value of all loads, which must not exceed the goal if there is one.
fn most(
    name: &str,
    unit: &'static str,
    goal: Option<f64>,
    scored: &[Scored],
    value: impl Fn(&Scored, &Figures) -> f64,
) -> Row {
    let loads = scored.iter().flat_map(|family| family.loads.iter().map(move |load| (family, load)));
    let values = loads.filter_map(|(family, load)| Some(value(family, load.of(LawKind::Rowlock)?)));
    Row::without_peer(name, values.fold(0.0, f64::max), unit, goal)
}

/// How busy workers are on steady load.
fn busy(scored: &[Scored]) -> Row {
    let steady = scored.iter().filter(|family| family.kind == Kind::Steady).flat_map(|family| &family.loads);
    let shares: Vec<f64> = steady
        .filter_map(|load| load.of(LawKind::Rowlock))
        .map(|ours| 100.0 * ours.busy_share.max(0.001))
        .collect();
    let name = "steady load, busy share of workers";
    match geometric_mean(&shares) {
        Some(share) => Row::without_peer(name, share, "%", Some(GOAL_BUSY_PERCENT)).better(Better::Higher),
        None => Row::without_value(name, "%", GOAL_BUSY_PERCENT).peer_missing("no such load"),
    }
}

fn worse(scored: &[Scored]) -> Row {
    let worse = (0_u32..).zip(scored.iter().filter(|family| is_worse(family))).last();
    let number = worse.map_or(0, |(before, _)| before + 1);
    Row::without_peer("families worse than KEDA in both", f64::from(number), "families", Some(0.0))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn figures(p95_seconds: f64, worker_hours: f64) -> Figures {
        Figures { p95_seconds, worker_hours, busy_share: 0.6, ..Figures::default() }
    }

    fn family(kind: Kind, laws: &[(LawKind, Figures)]) -> Scored {
        let laws: BTreeMap<_, _> =
            laws.iter().map(|(law, figures)| (law.name().to_owned(), *figures)).collect();
        Scored { family: "f".to_owned(), kind, loads: vec![ScoredLoad { seed: 1, tasks: 1, laws }] }
    }

    fn beside_keda(kind: Kind, ours: Figures, theirs: Figures) -> Scored {
        family(kind, &[(LawKind::Rowlock, ours), (LawKind::KedaDefault, theirs)])
    }

    fn ratio(rows: &[Row], name: &str) -> Option<f64> {
        rows.iter().find(|row| row.name == name).unwrap().ratio
    }

    #[test]
    fn waits_count_where_either_law_lets_tasks_wait() {
        let scored = [
            beside_keda(Kind::Changing, figures(1.0, 1.0), figures(4.0, 1.0)),
            beside_keda(Kind::Changing, figures(1.0, 1.0), figures(0.0, 1.0)),
            beside_keda(Kind::Changing, figures(0.4, 1.0), figures(0.1, 1.0)),
        ];
        // 1/4 and 1/0.1; the third load counts for nobody.
        let ratio = ratio(&rows(&scored), "p95 wait, where tasks wait").unwrap();
        assert!((ratio - 2.5_f64.sqrt()).abs() < 1e-9, "{ratio}");
    }

    #[test]
    fn costs_beside_the_oracle_are_two_rows() {
        let laws = |hours| [(LawKind::Rowlock, figures(0.0, hours)), (LawKind::Oracle, figures(0.0, 2.0))];
        let scored = [family(Kind::Steady, &laws(3.0)), family(Kind::BurstsFromZero, &laws(6.0))];
        let rows = rows(&scored);
        assert!((ratio(&rows, "cost without bursts from zero").unwrap() - 1.5).abs() < 1e-9);
        assert!((ratio(&rows, "cost of bursts from zero").unwrap() - 3.0).abs() < 1e-9);
        assert_eq!(ratio(&rows, "cost, beside Knative"), None);
    }

    #[test]
    fn a_family_is_worse_only_if_both_waits_and_costs_are() {
        let both = beside_keda(Kind::Changing, figures(2.0, 2.0), figures(1.0, 1.0));
        let one = beside_keda(Kind::Changing, figures(2.0, 0.9), figures(1.0, 1.0));
        let equal_waits = beside_keda(Kind::Changing, figures(0.09, 2.0), figures(0.0, 1.0));
        assert_eq!([&both, &one, &equal_waits].map(is_worse), [true, false, false]);
    }

    #[test]
    fn reversals_count_on_steady_load_alone() {
        let restless = Figures { reversals_per_minute: 5.0, ..figures(0.0, 1.0) };
        let row = |kind| {
            let rows = rows(&[beside_keda(kind, restless, restless)]);
            rows.into_iter().find(|row| row.name == "steady load, reversals").unwrap()
        };
        assert_eq!([row(Kind::Steady).is_missed(), row(Kind::Changing).is_missed()], [true, false]);
    }
}
