//! `rowlock why`

use crate::args::Why;
use crate::database;
use crate::escape::word;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::table;
use rowlock_crds::Dur;
use rowlock_plan::Reason;
use rowlock_queue::{DecidedAt, QueueStats, ScalingDecision, ScalingFigures};
use serde_json::{Value, json};

pub(crate) async fn run(args: Why, output: Output) -> Result<(), Failure> {
    let Why { database, queue, at, limit } = args;
    let db = database::open_to_read(database).await?;
    let chosen = at.clone().unwrap_or(DecidedAt::Any);
    let decisions = rowlock_queue::scaling_decisions(&db, &queue, &chosen, limit).await?;
    let Some(newest) = decisions.first() else { return Err(nothing(&queue, at.is_some())) };
    // What was then has nothing to do with what is now.
    let now = match at {
        Some(_) => None,
        None => rowlock_queue::queue_stats(&db).await?.into_iter().find(|known| known.name == queue),
    };
    let text = || {
        let rows: Vec<_> = decisions.iter().map(row).collect();
        let changes = table(&["TIME", "FROM-PODS", "TO-PODS", "DESIRED-SLOTS", "REASON"], &rows);
        format!("{}\n\n{changes}", paragraph(&queue, newest, now.as_ref()))
    };
    let changes: Vec<_> = decisions.iter().map(value).collect();
    output.result(text, &json!({ "queue": queue, "decision": value(newest), "changes": changes }))
}

fn nothing(queue: &str, has_time: bool) -> Failure {
    let hint =
        "the operator and `rowlock dev` record each change of a number of pods, and keep it for 7 days";
    let when = if has_time { " by that time" } else { "" };
    Failure::not_found(format!("no decision about queue {queue:?} is recorded{when}")).hint(hint)
}

/// Everything that decided the number, in one paragraph.
fn paragraph(queue: &str, decision: &ScalingDecision, now: Option<&QueueStats>) -> String {
    let mut sentences = vec![number(queue, decision), format!("The reason: {}.", reason(&decision.reason))];
    sentences.extend(decision.figures.as_ref().map(figures));
    sentences.extend(decision.demand.and_then(|demand| needed(demand, decision)));
    sentences
        .extend(decision.detail.as_ref().map(|detail| format!("{}.", word(detail).trim_end_matches('.'))));
    sentences.push(limit(decision));
    sentences.extend(now.map(present));
    sentences.join(" ")
}

fn number(queue: &str, decision: &ScalingDecision) -> String {
    let ScalingDecision { at, age_seconds, pods_before, pods, workers, .. } = decision;
    let ago = std::time::Duration::try_from_secs_f64(*age_seconds).unwrap_or_default();
    let change = match pods.cmp(pods_before) {
        std::cmp::Ordering::Equal => "as before".to_owned(),
        std::cmp::Ordering::Greater => format!("up from {pods_before}"),
        std::cmp::Ordering::Less => format!("down from {pods_before}"),
    };
    format!(
        "Queue {} should have {} with {}, {change}, since {} ({} ago).",
        word(queue),
        counted(i64::from(*pods), "pod"),
        counted(i64::from(*workers), "slot"),
        whole_seconds(at),
        Dur::from_secs(ago.as_secs()),
    )
}

/// A reason with its name. A newer release may have others.
fn reason(name: &str) -> String {
    match Reason::from_name(name) {
        Some(reason) => format!("{} ({name})", reason.explain()),
        None => word(name).into_owned(),
    }
}

fn figures(figures: &ScalingFigures) -> String {
    let ScalingFigures { waiting, running, arrivals_per_second, service_seconds, .. } = figures;
    let each = if figures.service_assumed {
        format!("none had completed yet, so {} per task was assumed", seconds(*service_seconds))
    } else {
        format!("a task took {} on average", seconds(*service_seconds))
    };
    format!(
        "When this was decided, {} waited, {running} ran, {arrivals_per_second:.1} came per second, and \
         {each}; a new pod takes {} to start. Keeping up with the tasks that come needs {:.1} slots, and \
         starting the waiting ones in time needs {:.1}.",
        counted(*waiting, "task"),
        seconds(figures.pod_start_seconds),
        figures.for_rate,
        figures.for_backlog,
    )
}

/// What the tasks need, where that is another number.
fn needed(demand: i32, decision: &ScalingDecision) -> Option<String> {
    let needed = counted(i64::from(demand), "slot");
    (demand != decision.workers).then(|| format!("The demand is {needed}."))
}

fn limit(decision: &ScalingDecision) -> String {
    let Some(reason) = Reason::from_name(&decision.reason) else { return String::new() };
    let limit = if reason.is_limit() {
        format!("The limit {reason} keeps the number lower than the tasks need.")
    } else {
        "No limit applies.".to_owned()
    };
    match reason.advice() {
        Some(advice) => format!("{limit} {advice}."),
        None => limit,
    }
}

fn present(stats: &QueueStats) -> String {
    format!(
        "Now {} {}, and {} {}, on {}.",
        counted(stats.available, "task"),
        if stats.available == 1 { "waits" } else { "wait" },
        stats.running,
        if stats.running == 1 { "runs" } else { "run" },
        counted(stats.instances, "instance"),
    )
}

fn row(decision: &ScalingDecision) -> Vec<String> {
    let ScalingDecision { at, pods_before, pods, workers, reason, .. } = decision;
    vec![whole_seconds(at), pods_before.to_string(), pods.to_string(), workers.to_string(), reason.clone()]
}

fn value(decision: &ScalingDecision) -> Value {
    let ScalingDecision { at, age_seconds, pods_before, pods, workers, reason, demand, detail, .. } =
        decision;
    let known = Reason::from_name(reason);
    json!({
        "at": at,
        "ageSeconds": age_seconds,
        "podsBefore": pods_before,
        "pods": pods,
        "workers": workers,
        "reason": reason,
        "words": known.map(Reason::explain),
        "limitedBy": known.filter(|known| known.is_limit()).map(Reason::as_str),
        "advice": known.and_then(Reason::advice),
        "demand": demand,
        "detail": detail,
        "inputs": decision.figures.as_ref().map(|figures| json!({
            "waiting": figures.waiting,
            "running": figures.running,
            "arrivalsPerSecond": figures.arrivals_per_second,
            "serviceSeconds": figures.service_seconds,
            "serviceAssumed": figures.service_assumed,
            "podStartSeconds": figures.pod_start_seconds,
            "workersForRate": figures.for_rate,
            "workersForBacklog": figures.for_backlog,
        })),
    })
}

fn counted(count: i64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1000.0) } else { format!("{seconds:.1} s") }
}

/// A time in RFC 3339 without its fraction.
fn whole_seconds(at: &str) -> String {
    let Some((whole, rest)) = at.split_once('.') else { return at.to_owned() };
    format!("{whole}{}", rest.trim_start_matches(|digit: char| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(reason: Reason) -> ScalingDecision {
        ScalingDecision {
            at: "2026-11-29T21:03:11.123456+00:00".into(),
            age_seconds: 252.7,
            pods_before: 2,
            pods: 5,
            workers: 10,
            reason: reason.as_str().into(),
            demand: Some(10),
            figures: Some(ScalingFigures {
                waiting: 120,
                running: 4,
                arrivals_per_second: 3.25,
                service_seconds: 0.25,
                service_assumed: false,
                pod_start_seconds: 3.0,
                for_rate: 0.9,
                for_backlog: 9.64,
            }),
            detail: None,
        }
    }

    #[test]
    fn one_paragraph_has_the_figures_that_decided() {
        assert_eq!(
            paragraph("emails", &decided(Reason::Backlog), None),
            "Queue emails should have 5 pods with 10 slots, up from 2, since 2026-11-29T21:03:11+00:00 \
             (4m12s ago). The reason: tasks wait (Backlog). When this was decided, 120 tasks waited, 4 ran, \
             3.2 came per second, and a task took 250 ms on average; a new pod takes 3.0 s to start. Keeping \
             up with the tasks that come needs 0.9 slots, and starting the waiting ones in time needs 9.6. \
             No limit applies."
        );
    }

    #[test]
    fn a_limit_is_named_with_the_demand_and_what_to_change() {
        let limited = ScalingDecision {
            demand: Some(40),
            detail: Some("max_connections is 100".into()),
            figures: None,
            pods_before: 5,
            ..decided(Reason::Connections)
        };
        let text = paragraph("emails", &limited, None);
        for part in [
            "5 pods with 10 slots, as before",
            "(Connections). The demand is 40 slots. max_connections is 100. The limit Connections keeps",
            "Allow more connections to the database",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        let total =
            paragraph("emails", &ScalingDecision { demand: Some(40), ..decided(Reason::Total) }, None);
        assert!(total.ends_with("lower than the tasks need. Raise workers.total to allow more."), "{total}");
    }

    /// Before, an idle queue got the advice to lower `autoscaling.min`, although it was 0.
    #[test]
    fn an_idle_queue_gets_no_advice() {
        let idle = ScalingDecision { pods: 0, workers: 0, demand: Some(0), ..decided(Reason::Idle) };
        let text = paragraph("emails", &idle, None);
        assert!(text.contains("The reason: no task waits or runs (Idle)."), "{text}");
        assert!(text.ends_with("No limit applies."), "{text}");
    }

    #[test]
    fn a_guess_and_one_of_something_are_said_so() {
        let mut first = ScalingDecision { pods: 1, workers: 1, ..decided(Reason::Backlog) };
        first.figures = first.figures.map(|figures| ScalingFigures {
            service_assumed: true,
            service_seconds: 1.0,
            waiting: 1,
            ..figures
        });
        let text = paragraph("emails", &first, None);
        assert!(text.contains("1 pod with 1 slot, down from 2"), "{text}");
        assert!(text.contains("1 task waited") && text.contains("so 1.0 s per task was assumed"), "{text}");
    }

    #[test]
    fn a_reason_of_a_newer_release_is_shown_by_its_name() {
        let text =
            paragraph("emails", &ScalingDecision { reason: "Budget".into(), ..decided(Reason::Total) }, None);
        assert!(text.contains("The reason: Budget."), "{text}");
    }
}
