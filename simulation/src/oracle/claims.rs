//! When each task begins, and for how long it runs, with all workers from the begin on.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::load::{FaultKind, Load, QueueLoad};
use crate::time::{Micros, micros};
use crate::world::backoff;

/// A run of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// Since when the task waits.
    pub(super) since: Micros,
    /// When the run begins.
    pub(super) begin: Micros,
    /// How long it takes.
    pub(super) takes: Micros,
}

/// A task that may start: since when, its number, and how often it has failed.
type Available = (Micros, usize, u32);

/// The runs that begin before the load is over.
pub(super) fn claims(queue: &QueueLoad, load: &Load) -> Vec<Claim> {
    let (ready, until) = (micros(load.pod_start.most), micros(load.seconds));
    let mut workers = Workers { total: queue.total as usize, free_at: BinaryHeap::new() };
    let mut claims = Vec::with_capacity(queue.tasks.len());
    let mut retries: BinaryHeap<Reverse<Available>> = BinaryHeap::new();
    let mut tasks = in_order(queue).into_iter().peekable();
    loop {
        let retry = retries.peek().map(|Reverse(retry)| *retry);
        let task = tasks.peek().copied();
        let Some(next) = retry.into_iter().chain(task).min() else { return claims };
        if Some(next) == task {
            tasks.next();
        } else {
            retries.pop();
        }
        let (since, number, failed) = next;
        let begin = claimable(queue, since.max(ready).max(workers.next_free()));
        if begin >= until {
            continue;
        }
        let fails_after = fails_after(queue, begin);
        let takes = fails_after.unwrap_or_else(|| micros(queue.tasks[number].service));
        workers.take(begin + takes);
        if fails_after.is_some() {
            retries.push(Reverse((begin + takes + backoff(failed), number, failed + 1)));
        }
        claims.push(Claim { since, begin, takes });
    }
}

/// All tasks by when they may start.
fn in_order(queue: &QueueLoad) -> Vec<Available> {
    let tasks = queue.tasks.iter().enumerate();
    let mut tasks: Vec<Available> =
        tasks.map(|(number, task)| (micros(task.enqueued) + micros(task.delay), number, 0)).collect();
    tasks.sort_unstable();
    tasks
}

/// When the workers that are busy will be free.
#[derive(Debug)]
struct Workers {
    total: usize,
    free_at: BinaryHeap<Reverse<Micros>>,
}

impl Workers {
    fn next_free(&self) -> Micros {
        if self.free_at.len() < self.total {
            return 0;
        }
        self.free_at.peek().map_or(0, |Reverse(at)| *at)
    }

    /// The next free one works until then.
    fn take(&mut self, until: Micros) {
        if self.free_at.len() >= self.total {
            self.free_at.pop();
        }
        self.free_at.push(Reverse(until));
    }
}

/// When a task can be claimed that would be at that moment.
fn claimable(queue: &QueueLoad, at: Micros) -> Micros {
    let gone = queue.faults.iter().filter(|fault| fault.kind == FaultKind::DatabaseGone);
    gone.map(|fault| micros(fault.from)..micros(fault.until))
        .filter(|during| during.contains(&at))
        .fold(at, |at, during| at.max(during.end))
}

/// How long a run that begins at that moment takes to fail, if it does.
fn fails_after(queue: &QueueLoad, begin: Micros) -> Option<Micros> {
    let during = |from: f64, until: f64| (micros(from)..micros(until)).contains(&begin);
    queue.faults.iter().filter(|fault| during(fault.from, fault.until)).find_map(|fault| match fault.kind {
        FaultKind::RunsFail { after } => Some(micros(after)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Fault, PodStart, Task};
    use crate::time::SECOND;

    /// The runs of two workers of which the first pods are ready after a second, in seconds.
    fn runs(tasks: &[(f64, f64)], fault: Option<(f64, f64, FaultKind)>) -> Vec<(u64, u64, u64)> {
        let tasks = tasks.iter().map(|(at, service)| Task { enqueued: *at, delay: 0.0, service: *service });
        let faults = fault.into_iter().map(|(from, until, kind)| Fault { from, until, kind });
        let (name, tasks, faults) = (String::from("tasks"), tasks.collect(), faults.collect());
        let queue = QueueLoad { name, total: 2, per_pod: 1, min: 0, wait_target: 5.0, tasks, faults };
        let pod_start = PodStart { least: 1.0, most: 1.0 };
        let load = Load { name: "test".into(), seconds: 60.0, budget: None, pod_start, queues: Vec::new() };
        let seconds = |claim: Claim| (claim.since / SECOND, claim.begin / SECOND, claim.takes / SECOND);
        claims(&queue, &load).into_iter().map(seconds).collect()
    }

    #[test]
    fn a_task_begins_when_a_worker_is_free() {
        let found = runs(&[(0.0, 3.0), (0.0, 3.0), (1.0, 2.0), (9.0, 2.0), (70.0, 1.0)], None);
        assert_eq!(found, [(0, 1, 3), (0, 1, 3), (1, 4, 2), (9, 9, 2)]);
    }

    #[test]
    fn nothing_is_claimed_while_the_database_is_gone() {
        let found = runs(&[(2.0, 1.0)], Some((1.0, 9.0, FaultKind::DatabaseGone)));
        assert_eq!(found, [(2, 9, 1)]);
    }

    #[test]
    fn a_failed_run_is_repeated_after_the_backoff() {
        let found = runs(&[(2.0, 1.0)], Some((1.0, 9.0, FaultKind::RunsFail { after: 4.0 })));
        assert_eq!(found, [(2, 2, 4), (21, 21, 1)]);
    }
}
