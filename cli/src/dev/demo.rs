//! `rowlock dev --demo N`: enqueues tasks, shows how the queue scales up and down, and checks that none is
//! lost.

use crate::failure::Failure;
use crate::output::{Output, Progress};
use rowlock_operator::{QueueView, View};
use rowlock_queue::{Audit, Db, EnqueueOptions};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;

/// How many tasks one statement enqueues.
const BATCH: u32 = 1000;

/// How long the demo waits for progress before it gives up.
const STALL_TIMEOUT: Duration = Duration::from_mins(2);

const TASK_TYPE: &str = "email.send";

/// How many tasks the demo added to each count. An existing server may have counted tasks before.
struct Totals {
    enqueued: i64,
    completed: i64,
    dead: i64,
    lost: i64,
}

pub(super) async fn run(
    db: &Db,
    queue: &str,
    tasks: u32,
    mut seen: watch::Receiver<View>,
    output: Output,
) -> Result<(), Failure> {
    let mut progress = output.progress(tasks.into());
    let first = wait(&mut seen, queue, "the queue to be declared", |view| view.stats.is_some()).await?;
    progress.say(&format!("instances {}", first.instances))?;
    let before = audit(db, queue).await?;
    let since = Instant::now();
    enqueue(db, queue, tasks).await?;
    progress.say(&format!("{tasks} tasks enqueued by select rowlock.enqueue_many(...)"))?;
    follow(&mut seen, queue, tasks, first.instances, &mut progress).await?;
    let seconds = since.elapsed().as_secs_f64();
    progress.say(&format!("all done after {seconds:.1} s; waiting for the queue to scale to zero"))?;
    let last = wait(&mut seen, queue, "the queue to scale to zero", |view| {
        view.instances == 0 && view.stats.as_ref().is_some_and(|stats| stats.instances == 0)
    });
    last.await?;
    progress.say("instances 0")?;
    progress.finish();
    let after = audit(db, queue).await?;
    conclude(&difference(before.as_ref(), after.as_ref()), tasks, output)
}

async fn enqueue(db: &Db, queue: &str, tasks: u32) -> Result<(), Failure> {
    let numbers: Vec<u32> = (1..=tasks).collect();
    for batch in numbers.chunks(BATCH as usize) {
        let payloads: Vec<String> = batch
            .iter()
            .map(|n| json!({"to": format!("user{n}@example.com"), "number": n}).to_string())
            .collect();
        rowlock_queue::enqueue_many(db, queue, TASK_TYPE, &payloads, &EnqueueOptions::default()).await?;
    }
    Ok(())
}

/// Shows progress until no task is left.
async fn follow(
    seen: &mut watch::Receiver<View>,
    queue: &str,
    tasks: u32,
    mut instances: u32,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let total = i64::from(tasks);
    let mut fewest_open = total;
    let mut progress_at = Instant::now();
    // The first view may still be from before the tasks were enqueued.
    let mut has_begun = false;
    loop {
        let view = next(seen, queue, "the tasks to finish").await?;
        if view.instances != instances {
            progress.say(&format!("instances {} ({})", view.instances, view.decision.reason))?;
            instances = view.instances;
        }
        if let Some(stats) = &view.stats {
            let open = stats.available + stats.scheduled + stats.retryable + stats.running;
            has_begun |= open > 0 || instances > 0;
            if open < fewest_open {
                (fewest_open, progress_at) = (open, Instant::now());
            }
            let done = u64::try_from(total.saturating_sub(open)).unwrap_or(0);
            progress
                .set(done, &format!("done, {} running on {} instances", stats.running, stats.instances))?;
            if has_begun && open == 0 {
                return Ok(());
            }
        }
        if progress_at.elapsed() > STALL_TIMEOUT {
            return Err(stuck(&format!("{fewest_open} tasks are left"), &view));
        }
    }
}

async fn wait(
    seen: &mut watch::Receiver<View>,
    queue: &str,
    what: &str,
    holds: impl Fn(&QueueView) -> bool,
) -> Result<QueueView, Failure> {
    let since = Instant::now();
    loop {
        let view = next(seen, queue, what).await?;
        if holds(&view) {
            return Ok(view);
        }
        if since.elapsed() > STALL_TIMEOUT {
            return Err(stuck(&format!("the demo still waits for {what}"), &view));
        }
    }
}

/// The next view that has the queue.
async fn next(seen: &mut watch::Receiver<View>, queue: &str, what: &str) -> Result<QueueView, Failure> {
    loop {
        let changed = timeout(STALL_TIMEOUT, seen.changed()).await;
        if !matches!(changed, Ok(Ok(()))) {
            return Err(Failure::new(format!("the demo timed out while it waited for {what}")));
        }
        let found = seen.borrow_and_update().queues.iter().find(|view| view.name == queue).cloned();
        if let Some(view) = found {
            return Ok(view);
        }
    }
}

fn stuck(what: &str, view: &QueueView) -> Failure {
    let seconds = STALL_TIMEOUT.as_secs();
    let message = format!("no progress for {seconds} s: {what}; {}", view.decision);
    Failure::new(message)
        .hint("run `rowlock dev -f DIR` without --demo to see the output of workers and handlers")
}

async fn audit(db: &Db, queue: &str) -> Result<Option<Audit>, Failure> {
    Ok(rowlock_queue::audit(db).await?.into_iter().find(|audit| audit.queue == queue))
}

fn difference(before: Option<&Audit>, after: Option<&Audit>) -> Totals {
    let count = |of: fn(&Audit) -> i64| after.map_or(0, of) - before.map_or(0, of);
    Totals {
        enqueued: count(|audit| audit.enqueued),
        completed: count(|audit| audit.completed),
        dead: count(|audit| audit.dead),
        lost: count(|audit| audit.untraced),
    }
}

fn conclude(totals: &Totals, tasks: u32, output: Output) -> Result<(), Failure> {
    let Totals { enqueued, completed, dead, lost } = totals;
    let line = format!("{enqueued} enqueued, {completed} completed, {dead} dead, {lost} lost");
    output.result(
        || line.clone(),
        &json!({"enqueued": enqueued, "completed": completed, "dead": dead, "lost": lost}),
    )?;
    if *enqueued == i64::from(tasks) && completed == enqueued && *dead == 0 && *lost == 0 {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the demo expected {tasks} tasks enqueued and completed, and none dead or lost"
    )))
}
