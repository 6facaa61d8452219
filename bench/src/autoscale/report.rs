//! The rows beside KEDA, the course of everything as JSON, and the picture.

use rowlock_simulation::{Course, LawKind, Sample, picture as draw, rounded};
use serde_json::{Value, json};

use super::control_plane::Versions;
use super::load::Load;
use super::{MOST_PODS, PER_POD, POD_START, Queue, SERVICE};
use crate::samples::percentile;
use crate::table::{Better, Row};

/// The goals, as ratios.
const GOAL_WAIT: f64 = 0.25;
const GOAL_HOURS_TUNED: f64 = 1.0;

/// What the rows compare.
struct Figures {
    p50: f64,
    p95: f64,
    p99: f64,
    longest: f64,
    worker_hours: f64,
    /// From the burst until a pod is asked for, and until one is ready.
    first_asked: f64,
    first_ready: f64,
}

impl Figures {
    fn of(queue: &Queue) -> Self {
        let noted = queue.progress.noted();
        let since_burst = |at: Option<std::time::Duration>| {
            at.map_or(f64::NAN, |at| at.saturating_sub(Load::BURST_AT).as_secs_f64())
        };
        let [p50, p95, p99, longest] = [50, 95, 99, 100].map(|percent| percentile(&noted.waits, percent));
        Self {
            p50,
            p95,
            p99,
            longest,
            worker_hours: noted.worker_hours(),
            first_asked: since_burst(noted.first_asked),
            first_ready: since_burst(noted.first_ready),
        }
    }
}

/// What KEDA is called, with its version and how it is set.
fn name(law: LawKind, versions: &Versions) -> String {
    match law {
        LawKind::KedaDefault => format!("KEDA {}", versions.keda),
        LawKind::KedaTuned => format!("KEDA {} tuned", versions.keda),
        _ => "Rowlock".to_owned(),
    }
}

pub(super) fn rows(versions: &Versions, queues: &[Queue]) -> Vec<Row> {
    let Some((ours, peers)) = queues.split_first() else { return Vec::new() };
    let ours = Figures::of(ours);
    let mut rows = Vec::new();
    for peer in peers {
        let (figures, peer_name) = (Figures::of(peer), name(peer.law, versions));
        let is_tuned = peer.law == LawKind::KedaTuned;
        let beside = if is_tuned { "KEDA tuned" } else { "KEDA" };
        let mut row = |what: &str, unit, value: fn(&Figures) -> f64, goal: Option<f64>| {
            let (what, mine, theirs) = (format!("{what}, beside {beside}"), value(&ours), value(&figures));
            let row = Row::with_peer(&what, mine, unit, &peer_name, theirs, goal.unwrap_or_default());
            let row = row.better(Better::Lower);
            rows.push(if goal.is_some() { row } else { row.without_goal() });
        };
        row("p95 wait", "s", |figures| figures.p95, (!is_tuned).then_some(GOAL_WAIT));
        row("median wait", "s", |figures| figures.p50, None);
        row("longest wait", "s", |figures| figures.longest, None);
        row("cost", "slot-hours", |figures| figures.worker_hours, is_tuned.then_some(GOAL_HOURS_TUNED));
        row("first pod asked for", "s", |figures| figures.first_asked, None);
        row("first pod ready", "s", |figures| figures.first_ready, None);
    }
    rows
}

/// Everything that was noted.
pub(super) fn course(load: &Load, versions: &Versions, queues: &[Queue]) -> Value {
    let one = |queue: &Queue| {
        let figures = Figures::of(queue);
        let noted = queue.progress.noted();
        let values = |value: fn(&Sample) -> f64| noted.samples.iter().map(value).collect::<Vec<_>>();
        json!({
            "law": queue.law.name(),
            "waitSeconds": {
                "p50": figures.p50, "p95": figures.p95, "p99": figures.p99, "max": figures.longest
            },
            "workerHours": figures.worker_hours,
            "started": noted.waits.len() - noted.not_started,
            "notStarted": noted.not_started,
            "firstPodSeconds": { "asked": figures.first_asked, "ready": figures.first_ready },
            "curve": {
                "seconds": values(|sample| sample.at),
                "backlog": values(|sample| float(sample.available)),
                "running": values(|sample| float(sample.running)),
                "podsWanted": values(|sample| f64::from(sample.pods_asked)),
                "podsReady": values(|sample| f64::from(sample.pods_ready)),
                "oldestWaitSeconds": values(|sample| sample.wait_of_oldest)
            }
        })
    };
    json!({
        "seed": load.seed,
        "tasks": load.arrivals.len(),
        "seconds": load.lasts.as_secs(),
        "serviceSeconds": SERVICE.as_secs_f64(),
        "podStartSeconds": POD_START.as_secs_f64(),
        "workersPerPod": PER_POD,
        "mostPods": MOST_PODS,
        "versions": { "keda": versions.keda, "kubernetes": versions.kubernetes },
        "laws": queues.iter().map(one).collect::<Vec<_>>()
    })
}

/// The curves of all queues beside each other.
pub(super) fn picture(load: &Load, versions: &Versions, queues: &[Queue]) -> String {
    let one = |queue: &Queue| {
        let figures = Figures::of(queue);
        let noted = queue.progress.noted();
        let line = |value: fn(&Sample) -> f64| noted.samples.iter().map(value).collect();
        let (wait, hours) = (rounded(figures.p95), figures.worker_hours);
        Course {
            law: queue.law,
            name: name(queue.law, versions),
            note: format!("p95 {wait} s, {hours:.2} h"),
            lines: vec![
                line(|sample| float(sample.available)),
                line(|sample| f64::from(sample.pods_asked)),
                line(|sample| f64::from(sample.pods_ready)),
                line(|sample| sample.wait_of_oldest),
            ],
        }
    };
    let title = format!(
        "Measured on Kubernetes {}: {} tasks of {} s, up to {MOST_PODS} pods with {PER_POD} workers, \
         ready after {} s; seed {}",
        versions.kubernetes,
        load.arrivals.len(),
        SERVICE.as_secs(),
        POD_START.as_secs(),
        load.seed,
    );
    let panels =
        ["backlog: tasks that wait", "pods asked for", "pods ready", "wait of the oldest task, in seconds"];
    draw(&title, &panels, &queues.iter().map(one).collect::<Vec<_>>(), load.lasts.as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
