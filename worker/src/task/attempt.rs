//! One attempt at one task, from its payload to its outcome in the settler's channel.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rowlock_queue::{Claim, FetchedTask, Outcome, Settlement, Token};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::handler::answer::{Answer, decide_outcome};
use crate::handler::task::Task;
use crate::instance::context::{ActivePolicy, Context};
use crate::task::slots::Slot;

/// Runs the task. The slot is free again when its outcome is in the settler's bounded channel.
pub(crate) async fn run_attempt(
    context: Arc<Context>,
    settle: mpsc::Sender<Settlement>,
    slot: Slot,
    token: Token,
    claim: Claim,
    body: FetchedTask,
) {
    let active_policy = context.policy();
    // The producer may have given this task its own limit.
    let max_attempts = body.max_attempts.unwrap_or(active_policy.max_attempts).max(1);
    let task = build_task(&context, &active_policy, &claim, body, token, max_attempts);
    let attempt = task.attempt;
    // Checked just before the call: a process that was stopped since the claim may have lost its lease.
    if !context.fence.allows_work() {
        return;
    }
    let started = Instant::now();
    let answer = tokio::select! {
        biased;
        () = slot.stopped().cancelled() => None,
        answer = call(&context, &active_policy, task) => Some(answer),
    };
    // A fenced instance settles nothing: another instance may have started the task by now.
    if context.fence.tripped().is_cancelled() {
        return;
    }
    let outcome = match answer {
        // Stopped by a cancel or at the end of the drain grace: no attempt is used up.
        None => Outcome::Release,
        Some(answer) => {
            let answer = if context.slots.is_draining() { answer.while_draining() } else { answer };
            record_answer(&context, &slot, &answer, started);
            decide_outcome(answer, attempt, max_attempts, &active_policy.policy, fastrand::f64())
        }
    };
    // Fails only if the settler has ended, and then the instance ends too.
    let _ = settle.send(Settlement { token, task: slot.task(), outcome }).await;
}

async fn call(context: &Context, active_policy: &ActivePolicy, task: Task) -> Answer {
    let limit = active_policy.policy.timeout;
    match timeout(limit.as_duration(), context.handler.call(task, &active_policy.policy)).await {
        Ok(answer) => answer,
        Err(_) => Answer::failed(format!("no answer within the timeout of {limit}")),
    }
}

fn record_answer(context: &Context, slot: &Slot, answer: &Answer, started: Instant) {
    let took = started.elapsed();
    match answer {
        Answer::Unreachable { error } => {
            tracing::debug!(task = %slot.task(), %error, "released: the handler could not be reached");
            context.metrics.error("handler_unreachable");
            context.readiness.mark_unready(error);
        }
        answer => {
            context.metrics.record_attempt(answer.label(), took);
            context.record_service_time(took.as_secs_f64() * 1000.0);
        }
    }
}

fn build_task(
    context: &Context,
    active_policy: &ActivePolicy,
    claim: &Claim,
    body: FetchedTask,
    token: Token,
    max_attempts: u16,
) -> Task {
    Task {
        id: claim.id,
        task_type: body.kind,
        queue: Arc::clone(&context.queue),
        payload: body.payload,
        attempt: claim.attempt.saturating_add(1),
        max_attempts,
        enqueued_at: unix_ms(body.enqueued_at_unix_ms),
        deadline: SystemTime::now() + active_policy.policy.timeout.as_duration(),
        fencing_token: token,
    }
}

/// Unix milliseconds as a time. They are from the database's clock, which may be ahead of ours.
fn unix_ms(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}
