//! Suspects: tasks whose handler ended while they ran. An instance runs one alone, so that it costs no other
//! task anything if the handler ends again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rowlock_queue::{Outcome, Settlement};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::instance::context::Context;
use crate::task::ahead::LeasedTask;
use crate::task::attempt::run_attempt;
use crate::task::settle::{EndedAttempt, send_outcome};
use crate::task::slots::{Alone, Slot};

/// Least time between two suspects of an instance. Most suspects are innocent and take milliseconds.
const MIN_REST: Duration = Duration::from_millis(100);

/// How long a suspect waits for the other tasks of its instance, which claims nothing meanwhile. By default
/// no task may run for longer (`spec.timeout`). One that may must not hold up the whole queue: the suspect
/// goes back, and another instance may take it.
const MAX_WAIT: Duration = Duration::from_mins(1);

/// When this instance may claim a suspect.
#[derive(Debug, Default)]
pub(crate) struct SuspectTurn(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_due: bool,
    rests_until: Option<Instant>,
}

impl SuspectTurn {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a suspect is due, as far as the last answer of the database says.
    pub(crate) fn set_due(&self, is_due: bool) {
        self.state().is_due = is_due;
    }

    pub(crate) fn is_due(&self) -> bool {
        let state = self.state();
        state.is_due && state.rests_until.is_none_or(|until| until <= Instant::now())
    }

    /// A suspect has ended, and another one may be due. Before it, the instance runs other tasks for as long
    /// as the last one kept them waiting: suspects get at most half of its time.
    fn rest(&self, took: Duration) -> Duration {
        let rest = took.max(MIN_REST);
        *self.state() = State { is_due: true, rests_until: Some(Instant::now() + rest) };
        rest
    }
}

/// A claimed suspect with all that its attempt needs.
pub(crate) struct Suspect {
    pub(crate) slot: Slot,
    pub(crate) task: LeasedTask,
    /// Keeps the instance from claiming more.
    pub(crate) alone: Alone,
}

/// Waits for the tasks that run, then runs the suspect. If the instance drains before that, or they run for
/// too long, the suspect is released.
pub(crate) async fn run_alone(
    context: Arc<Context>,
    settle: mpsc::Sender<EndedAttempt>,
    suspect: Suspect,
    stop: CancellationToken,
) {
    let Suspect { slot, task, alone } = suspect;
    let since = Instant::now();
    let is_alone = tokio::select! {
        biased;
        () = slot.stopped().cancelled() => false,
        is_alone = context.slots.wait_until_alone(MAX_WAIT) => is_alone,
    };
    if is_alone {
        tracing::info!(task = %task.claim.id, "runs alone: the handler ended while it ran");
        run_attempt(&context, &settle, &slot, task).await;
    } else if !context.fence.tripped().is_cancelled() {
        let settlement = Settlement { token: task.token, task: slot.task(), outcome: Outcome::Release };
        let task_type = context.metrics.types.label(&task.body.kind);
        let ended = EndedAttempt { task_type, ..EndedAttempt::without_run(settlement) };
        send_outcome(&context.metrics, &settle, ended).await;
    }
    drop(slot);
    drop(alone);
    let rest = context.suspects.rest(since.elapsed());
    tokio::select! {
        () = sleep(rest) => context.slots.wake.notify_one(),
        () = stop.cancelled() => (),
        () = context.abort_attempts.cancelled() => (),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn suspects_get_at_most_half_of_the_time() {
        let turn = SuspectTurn::default();
        assert!(!turn.is_due());
        turn.set_due(true);
        assert!(turn.is_due());
        turn.rest(Duration::from_mins(1));
        advance(Duration::from_secs(59)).await;
        assert!(!turn.is_due());
        advance(Duration::from_secs(1)).await;
        assert!(turn.is_due(), "another one may be due");
        turn.set_due(false);
        assert!(!turn.is_due());
    }
}
