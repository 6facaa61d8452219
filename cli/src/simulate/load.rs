//! The load of a trace: its tasks, one by one.

use super::trace::Row;
use rowlock_crds::TaskQueueSpec;
use rowlock_simulation::{Load, PodStart, QueueLoad, Task};

/// After the last task, all autoscalers have time to scale down: the windows of KEDA and of the
/// `HorizontalPodAutoscaler` are five minutes each.
const TAIL: f64 = 600.0;

/// What the command line says of the load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    /// How long a pod takes to start, in seconds.
    pub(super) pod_start: f64,
    /// Over how many seconds the tasks of a line come, evenly at random.
    pub(super) spread: f64,
    pub(super) seed: u64,
}

/// The load of one queue. The same seed gives the same tasks.
pub(super) fn load(name: &str, spec: &TaskQueueSpec, rows: &[Row], setting: Setting) -> Load {
    let mut rng = fastrand::Rng::with_seed(setting.seed);
    let timeout = spec.timeout.as_duration().as_secs_f64();
    let mut tasks: Vec<Task> = rows
        .iter()
        .flat_map(|row| vec![row; usize::try_from(row.tasks).unwrap_or(0)])
        .map(|row| Task {
            enqueued: row.at + setting.spread * rng.f64(),
            delay: row.delay,
            // An attempt ends by its timeout.
            service: service(&mut rng, row).min(timeout),
        })
        .collect();
    tasks.sort_by(|one, other| one.enqueued.total_cmp(&other.enqueued));
    let end = tasks.iter().map(|task| task.enqueued + task.delay + task.service).fold(0.0, f64::max);
    let auto = spec.workers.autoscaling.clone().unwrap_or_default();
    let queue = QueueLoad {
        name: name.to_owned(),
        total: spec.workers.total,
        per_pod: spec.workers.per_pod,
        min: auto.min,
        wait_target: auto.wait_target.as_duration().as_secs_f64(),
        tasks,
        faults: Vec::new(),
    };
    let pod_start = PodStart { least: setting.pod_start, most: setting.pod_start };
    Load { name: name.to_owned(), seconds: end + TAIL, budget: None, pod_start, queues: vec![queue] }
}

/// A service time whose logarithm is normally distributed, with the mean and the variation of the row.
fn service(rng: &mut fastrand::Rng, row: &Row) -> f64 {
    let variance = row.variation.mul_add(row.variation, 1.0).ln();
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
    row.seconds * (variance.sqrt() * normal - variance / 2.0).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Row = Row { line: 2, at: 10.0, tasks: 20_000, seconds: 0.5, delay: 3.0, variation: 1.0 };

    const SETTING: Setting = Setting { pod_start: 3.0, spread: 0.0, seed: 1 };

    fn tasks(row: Row, setting: Setting) -> Vec<Task> {
        load("mail", &TaskQueueSpec::with_workers(8), &[row], setting).queues.remove(0).tasks
    }

    #[test]
    fn service_times_have_the_mean_and_the_variation() {
        let tasks = tasks(ROW, SETTING);
        let count = 20_000.0;
        assert_eq!(tasks.len(), 20_000);
        let mean = tasks.iter().map(|task| task.service).sum::<f64>() / count;
        let variance = tasks.iter().map(|task| (task.service - mean).powi(2)).sum::<f64>() / count;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.15, "{variance}");
    }

    #[test]
    fn without_variation_all_tasks_take_the_same_time_and_none_more_than_the_timeout() {
        assert!(
            tasks(Row { variation: 0.0, ..ROW }, SETTING)
                .iter()
                .all(|task| (task.service - 0.5).abs() < 1e-9)
        );
        assert!(tasks(Row { seconds: 59.0, ..ROW }, SETTING).iter().all(|task| task.service <= 60.0));
    }

    #[test]
    fn the_tasks_of_a_line_come_together_or_are_spread() {
        assert!(tasks(ROW, SETTING).iter().all(|task| (task.enqueued - 10.0).abs() < 1e-9));
        let spread = tasks(ROW, Setting { spread: 60.0, ..SETTING });
        assert!(spread.is_sorted_by(|one, other| one.enqueued <= other.enqueued));
        assert!(spread[0].enqueued < 11.0 && spread.last().unwrap().enqueued > 69.0);
    }

    #[test]
    fn the_same_seed_gives_the_same_tasks() {
        let spread = Setting { spread: 60.0, ..SETTING };
        assert_eq!(tasks(ROW, spread), tasks(ROW, spread));
        assert_ne!(tasks(ROW, spread), tasks(ROW, Setting { seed: 2, ..spread }));
    }
}
