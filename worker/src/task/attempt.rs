//! One attempt at one task, from its payload to its outcome in the settler's channel.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rowlock_queue::{FetchedTask, Outcome, Settlement, Token};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::handler::api::Task;
use crate::handler::outcome::{Answer, Reason, decide_outcome};
use crate::instance::context::{ActivePolicy, Context};
use crate::task::ahead::LeasedTask;
use crate::task::settle::{EndedAttempt, send_outcome};
use crate::task::slots::Slot;
use crate::traces::{Attempt, AttemptTrace};

/// How long to wait before the end of the handler counts. What ends both processes, such as a signal to all
/// containers or a machine that shuts down, may reach the handler first: then the instance drains a moment
/// later.
const SHUTDOWN_NOTICE: Duration = Duration::from_secs(1);

/// Runs the task, and then those that were claimed ahead, one after the other in the same slot. The slot is
/// free for the next one once the outcome is in the settler's bounded channel.
pub(crate) async fn run_attempts(
    context: Arc<Context>,
    settle: mpsc::Sender<EndedAttempt>,
    slot: Slot,
    task: LeasedTask,
) {
    let mut next = Some((slot, task));
    while let Some((slot, task)) = next {
        run_attempt(&context, &settle, &slot, task).await;
        next = if context.may_start_ahead() { slot.next(&context.abort_attempts) } else { None };
    }
}

/// Runs the task until its outcome is in the settler's channel.
pub(crate) async fn run_attempt(
    context: &Context,
    settle: &mpsc::Sender<EndedAttempt>,
    slot: &Slot,
    task: LeasedTask,
) {
    let LeasedTask { token, claim, body } = task;
    let active_policy = context.policy();
    let task_type = context.metrics.types.label(&body.kind);
    // The producer may have set a limit for this task.
    let max_attempts = body.max_attempts.unwrap_or(active_policy.max_attempts).max(1);
    // Checked just before the call: a process that was stopped since the claim may have lost its lease.
    if !context.fence.allows_work() {
        return;
    }
    let started = Instant::now();
    let waited = claim.available_since.map(|since| started.into_std().saturating_duration_since(since));
    let target = active_policy.policy.wait_target.as_duration();
    context.metrics.attempt_started(&task_type, waited, target);
    let attempt = claim.attempt.saturating_add(1);
    let (kind, bytes) = (body.kind.clone(), body.payload.len());
    let begin = Attempt { task: claim.id, task_type: &kind, number: attempt, max_attempts, waited };
    let mut trace = context.traces.begin(&begin, body.trace.as_ref());
    let task = build_task(context, &active_policy, &begin, body, token, &trace);
    let answer = tokio::select! {
        biased;
        () = slot.stopped().cancelled() => None,
        answer = call(context, &active_policy, task, started) => Some(answer),
    };
    // A fenced instance settles nothing, because another instance may already run the task.
    if context.fence.tripped().is_cancelled() {
        return;
    }
    let (outcome, ran) = match answer {
        // Stopped by a cancel or at the end of the drain grace: no attempt is used up.
        None => {
            context.metrics.attempt_ended(&task_type, None, started.elapsed());
            trace.interrupted();
            (Outcome::Release, None)
        }
        Some((answer, took)) => {
            let answer = if context.slots.is_draining() { answer.while_draining() } else { answer };
            context.slots.ran(took, bytes);
            record_answer(context, slot, &answer);
            context.metrics.attempt_ended(&task_type, Some(&answer), took);
            trace.end(answer.failure_reason());
            let policy = &active_policy.policy;
            let outcome = decide_outcome(answer, attempt, max_attempts, policy, fastrand::f64());
            context.trial.note(&outcome);
            (outcome, Some(took))
        }
    };
    log_outcome(context, &begin, &outcome, started.elapsed(), &trace);
    let settling = context.traces.begin_settlement(&trace);
    let settlement = Settlement { token, task: slot.task(), outcome };
    send_outcome(&context.metrics, settle, EndedAttempt { settlement, ran, task_type, settling }).await;
}

/// One line per attempt: failed ones are logged by default, up to a limit, and any other one at the level
/// `debug`. The handler's error is not logged, since it may quote the payload.
fn log_outcome(
    context: &Context,
    attempt: &Attempt<'_>,
    outcome: &Outcome,
    took: Duration,
    trace: &AttemptTrace,
) {
    let failed = matches!(outcome, Outcome::Retry { .. } | Outcome::Dead { .. } | Outcome::HandlerEnded);
    let outcome = outcome.name();
    let Attempt { task, task_type, number, .. } = attempt;
    let (queue, trace_id) = (&*context.queue, trace.trace_id());
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    macro_rules! log {
        ($level:ident $(, $left_out:ident)?) => {
            tracing::$level!(
                %task, queue, "type" = task_type, attempt = number, outcome, ms, %trace_id, $($left_out,)?
                "the attempt ended"
            )
        };
    }
    match failed.then(|| context.failure_lines.admit()).flatten() {
        Some(0) => log!(info),
        Some(left_out) => log!(info, left_out),
        None => log!(debug),
    }
}

/// The handler's answer, and how long it took.
async fn call(
    context: &Context,
    active_policy: &ActivePolicy,
    task: Task,
    started: Instant,
) -> (Answer, Duration) {
    let limit = active_policy.policy.timeout;
    let answer = match timeout(limit.as_duration(), context.handler.call(task, &active_policy.policy)).await {
        Ok(answer) => answer,
        Err(_) => Answer::failed_by(Reason::Timeout, format!("no answer within the timeout of {limit}")),
    };
    let took = started.elapsed();
    let Answer::Broken { error } = answer else { return (answer, took) };
    if !context.end_watch.ended_since(started).await {
        return (Answer::Broken { error }, took);
    }
    context.readiness.mark_unready("connection refused");
    sleep(SHUTDOWN_NOTICE).await;
    (Answer::Ended { error }, took)
}

fn record_answer(context: &Context, slot: &Slot, answer: &Answer) {
    if let Answer::Unreachable { error } = answer {
        tracing::debug!(task = %slot.task(), %error, "released: the handler could not be reached");
        context.metrics.error("handler_unreachable");
        context.readiness.mark_unready(error);
    }
}

fn build_task(
    context: &Context,
    active_policy: &ActivePolicy,
    attempt: &Attempt<'_>,
    body: FetchedTask,
    token: Token,
    trace: &AttemptTrace,
) -> Task {
    Task {
        id: attempt.task,
        task_type: body.kind,
        queue: Arc::clone(&context.queue),
        payload: body.payload,
        attempt: attempt.number,
        max_attempts: attempt.max_attempts,
        enqueued_at: unix_ms(body.enqueued_at_unix_ms),
        deadline: SystemTime::now() + active_policy.policy.timeout.as_duration(),
        fencing_token: token,
        traceparent: trace.traceparent(),
        tracestate: trace.tracestate(),
    }
}

/// Unix milliseconds as a time. They are from the database's clock, which may be ahead of ours.
fn unix_ms(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}
