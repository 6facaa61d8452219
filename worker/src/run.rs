//! One attempt at one task, from its body to its outcome in the settler's queue.

use std::sync::Arc;
use std::time::SystemTime;

use rowlock_queue::{Claim, FetchedTask, Outcome, Settlement, Token};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::answer::{Answer, decide_outcome};
use crate::http_handler::unix_ms;
use crate::shared::{InForce, Shared};
use crate::task::Task;
use crate::workers::Busy;

/// Runs the task. The worker is free again when its outcome is in the settler's bounded queue.
pub(crate) async fn run(
    shared: Arc<Shared>,
    settle: mpsc::Sender<Settlement>,
    busy: Busy,
    token: Token,
    claim: Claim,
    body: FetchedTask,
) {
    let in_force = shared.policy();
    // The task's own bound may come from its producer.
    let max_attempts = body.max_attempts.unwrap_or(in_force.max_attempts).max(1);
    let task = build_task(&shared, &in_force, &claim, body, token, max_attempts);
    let attempt = task.attempt;
    // The last look before the handler gets it: whoever was stopped since the claim may have lost its lease.
    if !shared.fence.holds() {
        return;
    }
    let started = Instant::now();
    let answer = tokio::select! {
        biased;
        () = busy.stopped().cancelled() => None,
        answer = call(&shared, &in_force, task) => Some(answer),
    };
    // A fenced instance settles nothing: somebody else may have started the task by now.
    if shared.fence.tripped().is_cancelled() {
        return;
    }
    let outcome = match answer {
        // Interrupted, by a drain whose grace is over or a cancel: no attempt is used.
        None => Outcome::Release,
        Some(answer) => {
            let answer = if shared.workers.is_draining() { answer.in_a_drain() } else { answer };
            observe(&shared, &busy, &answer, started);
            decide_outcome(answer, attempt, max_attempts, &in_force.policy, fastrand::f64())
        }
    };
    // Fails only when the settler has ended, and then the instance is ending with it.
    let _ = settle.send(Settlement { token, task: busy.task(), outcome }).await;
}

async fn call(shared: &Shared, in_force: &InForce, task: Task) -> Answer {
    let limit = in_force.policy.timeout;
    match timeout(limit.as_duration(), shared.handler.call(task, &in_force.policy)).await {
        Ok(answer) => answer,
        Err(_) => Answer::failed(format!("no answer within the timeout of {limit}")),
    }
}

fn observe(shared: &Shared, busy: &Busy, answer: &Answer, started: Instant) {
    let took = started.elapsed();
    match answer {
        Answer::Unreachable { error } => {
            tracing::debug!(task = %busy.task(), %error, "released: nothing reached the handler");
            shared.metrics.error("handler_unreachable");
            shared.gate.close(error);
        }
        answer => {
            shared.metrics.ran(answer.label(), took);
            shared.served(took.as_secs_f64() * 1000.0);
        }
    }
}

fn build_task(
    shared: &Shared,
    in_force: &InForce,
    claim: &Claim,
    body: FetchedTask,
    token: Token,
    max_attempts: u16,
) -> Task {
    Task {
        id: claim.id,
        kind: body.kind,
        queue: Arc::clone(&shared.queue),
        payload: body.payload,
        attempt: claim.attempt.saturating_add(1),
        max_attempts,
        enqueued_at: unix_ms(body.enqueued_at_unix_ms),
        deadline: SystemTime::now() + in_force.policy.timeout.as_duration(),
        fencing_token: token,
    }
}

#[cfg(test)]
pub(crate) fn test_token(token: i64) -> Token {
    Token(token)
}
