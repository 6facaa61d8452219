//! The claimer of the instance. One claimer serves all slots: it claims as many tasks as can start at once,
//! and starts them. While there is a backlog of short tasks, it claims more (`ahead.rs`).

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rowlock_queue::{
    CLAIM_MAX, Claim, Claimed, Error, FetchedTask, Outcome, Settlement, Token, is_row_error,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::backoff::{Backoff, contention_delay};
use crate::error::WorkerError;
use crate::handler::outcome::bounded_error;
use crate::instance::context::Context;
use crate::task::ahead::LeasedTask;
use crate::task::attempt::run_attempts;
use crate::task::fetch::fetch_payloads;
use crate::task::settle::{EndedAttempt, send_outcome};
use crate::task::slots::{Alone, Slot, Wanted};
use crate::task::suspects::{Suspect, run_alone};
use crate::task::trial::TRIAL_DELAY;

/// Number of empty claims in a row after which the next claim waits. When one task wakes many instances, all
/// but one find nothing.
const EMPTY_CLAIMS_BEFORE_DELAY: u32 = 8;
/// The length of that wait. Every database user may send a NOTIFY. Fifty empty claims a second cost less than
/// the heartbeats of a few instances.
const EMPTY_CLAIM_DELAY: Duration = Duration::from_millis(20);

/// How long payloads are fetched apart from claims after a claim with payloads has timed out. Payloads alone
/// are fetched in smaller batches if necessary.
const PAYLOADS_APART: Duration = Duration::from_mins(1);

pub(crate) struct Claimer {
    context: Arc<Context>,
    settle: mpsc::Sender<EndedAttempt>,
    attempts: JoinSet<()>,
    backoff: Backoff,
    /// A claim without an answer. The database may have executed it, so it is sent again unchanged.
    unanswered: Option<Unanswered>,
    /// Until then payloads are fetched apart from claims, because they took too long together.
    payloads_apart_until: Option<Instant>,
    /// Claims in a row that found nothing.
    empty_claims: u32,
    /// The last claim got all that it asked for, so there may be more. Otherwise nothing is claimed ahead:
    /// another instance may have a free slot for it.
    has_backlog: bool,
}

#[derive(Clone, Copy)]
enum Unanswered {
    Tasks(Token, Wanted),
    Suspect(Token),
}

/// What to do after a claim.
enum Next {
    Again,
    After(Duration),
    Wait,
}

impl Claimer {
    pub(crate) fn new(context: Arc<Context>, settle: mpsc::Sender<EndedAttempt>) -> Self {
        Self {
            context,
            settle,
            attempts: JoinSet::new(),
            backoff: Backoff::DATABASE,
            unanswered: None,
            payloads_apart_until: None,
            empty_claims: 0,
            has_backlog: false,
        }
    }

    /// Claims until `stop`, then lets running attempts finish within `grace`. At the end it drops its end of
    /// the settler's channel, which ends the settler.
    pub(crate) async fn run(mut self, stop: CancellationToken, grace: Duration) -> Result<(), WorkerError> {
        let context = Arc::clone(&self.context);
        let fenced = context.fence.tripped();
        while !stop.is_cancelled() && !fenced.is_cancelled() {
            // Registered before the claim; otherwise a wake-up during the claim would be missed until the
            // next heartbeat.
            let mut woken = pin!(context.slots.wake.notified());
            woken.as_mut().enable();
            self.start_or_release_ahead();
            let next = tokio::select! {
                biased;
                () = fenced.cancelled() => break,
                next = self.claim(&stop) => next,
            };
            match next {
                Next::Again => (),
                Next::After(delay) => tokio::select! {
                    () = sleep(delay) => (),
                    () = stop.cancelled() => (),
                    () = fenced.cancelled() => (),
                },
                // The heartbeat is the poll: once a second it reports whether tasks are available, and wakes
                // the claimer.
                Next::Wait => tokio::select! {
                    () = async {
                        woken.await;
                        if EMPTY_CLAIMS_BEFORE_DELAY < self.empty_claims {
                            sleep(EMPTY_CLAIM_DELAY).await;
                        }
                    } => (),
                    () = async {
                        match context.slots.take_back_due() {
                            Some(due) => sleep_until(due).await,
                            None => std::future::pending().await,
                        }
                    } => (),
                    () = stop.cancelled() => (),
                    () = fenced.cancelled() => (),
                },
            }
            while let Some(ended) = self.attempts.try_join_next() {
                ended.map_err(|_| WorkerError::Ended("an attempt"))?;
            }
        }
        self.drain(grace).await
    }

    async fn drain(mut self, grace: Duration) -> Result<(), WorkerError> {
        let context = Arc::clone(&self.context);
        let fenced = context.fence.tripped();
        context.slots.drain();
        self.release_ahead();
        context.heartbeat_now.notify_one();
        let mark = async {
            if let Err(error) = rowlock_queue::drain(&context.db, context.instance).await {
                context.database_failed("drain", &error);
            }
        };
        let mut over = pin!(sleep(grace));
        let mut marked = pin!(mark);
        let mut is_marked = false;
        loop {
            tokio::select! {
                biased;
                () = fenced.cancelled(), if !context.abort_attempts.is_cancelled() => {
                    context.abort_attempts.cancel();
                }
                ended = self.attempts.join_next() => match ended {
                    Some(ended) => ended.map_err(|_| WorkerError::Ended("an attempt"))?,
                    None => return Ok(()),
                },
                () = &mut over, if !context.abort_attempts.is_cancelled() => {
                    tracing::warn!(
                        attempts = self.attempts.len(),
                        "the drain grace is over; releasing the tasks that still run"
                    );
                    context.abort_attempts.cancel();
                }
                () = &mut marked, if !is_marked => is_marked = true,
            }
        }
    }

    async fn claim(&mut self, stop: &CancellationToken) -> Next {
        if let Some(next) = self.claim_suspect(stop).await {
            return next;
        }
        let context = Arc::clone(&self.context);
        let again = self.unanswered;
        let (token, wanted) = if let Some(Unanswered::Tasks(token, wanted)) = again {
            (token, wanted)
        } else if context.readiness.is_ready() {
            let ahead = self.has_backlog && context.may_start_ahead();
            let most = if context.trial.is_limited() { 1 } else { CLAIM_MAX };
            (Token::random(), context.slots.wanted(most, ahead))
        } else {
            return Next::Wait;
        };
        let want = wanted.all();
        if want == 0 {
            return Next::Wait;
        }
        self.unanswered = Some(Unanswered::Tasks(token, wanted));
        context.leases.claim_sent(token);
        let started = Instant::now();
        let claimed = self.send_claim(token, want, again.is_some()).await;
        let claimed = match claimed {
            Ok(claimed) => claimed,
            // The database answered: a payload cannot be read. Without payloads the claim succeeds.
            Err(error) if again.is_none() && is_row_error(&error) => return Next::Again,
            Err(error) => {
                if again.is_none() && matches!(error, Error::Timeout) {
                    self.payloads_apart_until = Some(Instant::now() + PAYLOADS_APART);
                }
                context.database_failed("claim", &error);
                return Next::After(self.backoff.next_delay());
            }
        };
        self.answered(token, started, claimed.tasks.len());
        context.advance_watermarks(&claimed.watermark_observation);
        let Claimed { token: lease, tasks, payloads, contended, .. } = claimed;
        let got = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        self.empty_claims = if got == 0 { self.empty_claims.saturating_add(1) } else { 0 };
        self.has_backlog = want <= got;
        context.slots.unreserve(wanted.slots.saturating_sub(got));
        if let (Some(token), false) = (lease, tasks.is_empty()) {
            self.start(token, tasks, payloads, wanted.slots, None, stop).await;
        }
        if 0 < got && context.trial.is_limited() {
            Next::After(TRIAL_DELAY)
        } else if self.has_backlog {
            Next::Again
        } else if contended || 0 < got {
            Next::After(contention_delay())
        } else {
            if context.slots.mark_idle() {
                context.heartbeat_now.notify_one();
            }
            Next::Wait
        }
    }

    /// Sends a claim, with payloads if they have not been too much for it lately. `again`: the last one has
    /// no answer.
    async fn send_claim(&self, token: Token, want: u32, again: bool) -> rowlock_queue::Result<Claimed> {
        let (db, instance) = (&self.context.db, self.context.instance);
        let watermarks = self.context.watermarks();
        if again {
            rowlock_queue::claim_again(db, instance, want, &watermarks, token).await
        } else if self.payloads_apart_until.is_some_and(|until| Instant::now() < until) {
            rowlock_queue::claim(db, instance, want, &watermarks, token).await
        } else {
            rowlock_queue::claim_with_payloads(db, instance, want, &watermarks, token).await
        }
    }

    /// Notes that the database has answered the claim that was sent then.
    fn answered(&mut self, token: Token, sent_at: Instant, tasks: usize) {
        self.unanswered = None;
        self.backoff.reset();
        self.context.database_answered("claim");
        self.context.metrics.claimed(sent_at.elapsed(), tasks);
        self.context.leases.claimed(token, tasks);
    }

    /// Claims a suspect, if it is the turn of this instance and a slot is free. `None`: there is none, so
    /// claim other tasks.
    async fn claim_suspect(&mut self, stop: &CancellationToken) -> Option<Next> {
        let context = Arc::clone(&self.context);
        let may_claim = || context.suspects.is_due() && context.readiness.is_ready();
        let (token, again) = match self.unanswered {
            Some(Unanswered::Suspect(token)) => (token, true),
            None if may_claim() && context.slots.reserve(1) == 1 => (Token::random(), false),
            _ => return None,
        };
        self.unanswered = Some(Unanswered::Suspect(token));
        context.leases.claim_sent(token);
        let started = Instant::now();
        let claimed = rowlock_queue::claim_suspect(&context.db, context.instance, token, again).await;
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(error) => {
                context.database_failed("claim", &error);
                return Some(Next::After(self.backoff.next_delay()));
            }
        };
        self.answered(token, started, usize::from(claimed.is_some()));
        let Some(task) = claimed else {
            context.suspects.set_due(false);
            context.slots.unreserve(1);
            return None;
        };
        let alone = context.slots.alone();
        self.start(token, vec![task], Vec::new(), 1, Some(alone), stop).await;
        Some(Next::Wait)
    }

    /// Fetches the payloads that are missing, starts attempts in the `reserved` slots, and keeps the other
    /// tasks until slots are free. With `alone` there is one task, which runs alone.
    async fn start(
        &mut self,
        token: Token,
        tasks: Vec<Claim>,
        payloads: Vec<FetchedTask>,
        reserved: u32,
        mut alone: Option<Alone>,
        stop: &CancellationToken,
    ) {
        let context = Arc::clone(&self.context);
        // From here on the slots are occupied, so that a fence during the fetch leaves no slot reserved.
        let starting = tasks.iter().take(reserved as usize);
        let mut slots: VecDeque<_> =
            starting.map(|task| context.slots.start(task.id, &context.abort_attempts)).collect();
        let mut known: HashMap<_, _> = payloads.into_iter().map(|body| (body.id, body)).collect();
        let ids = tasks.iter().map(|task| task.id);
        let missing: Vec<_> = ids.clone().filter(|id| !known.contains_key(id)).collect();
        // A fence drops this future.
        let Some(mut fetched) = fetch_payloads(&*context, token, &missing, stop).await else {
            for id in ids {
                let release = Settlement { token, task: id, outcome: Outcome::Release };
                self.settle_without_attempt(EndedAttempt::without_run(release), slots.pop_front());
            }
            return;
        };
        let mut ahead = Vec::new();
        for claim in tasks {
            let slot = slots.pop_front();
            let body = known.remove(&claim.id).or_else(|| fetched.payloads.remove(&claim.id));
            if let Some(body) = body {
                let task = LeasedTask { token, claim, body };
                match (slot, alone.take()) {
                    (Some(slot), Some(alone)) => {
                        let (context, settle) = (Arc::clone(&context), self.settle.clone());
                        let suspect = Suspect { slot, task, alone };
                        self.attempts.spawn(run_alone(context, settle, suspect, stop.clone()));
                    }
                    (Some(slot), None) => self.begin(slot, task),
                    (None, _) => ahead.push(task),
                }
                continue;
            }
            let error = if let Some(error) = fetched.unreadable.remove(&claim.id) {
                // The database's message may quote the payload, which must not be logged.
                tracing::error!(
                    task = %claim.id,
                    "the task's payload cannot be read; the task is dead, see `rowlock task` for the reason"
                );
                bounded_error(&format!(
                    "the task's payload or type cannot be read from the database: {error}"
                ))
            } else {
                tracing::error!(task = %claim.id, "the task has no payload; the task is dead");
                context.metrics.error("payload_missing");
                "the task's payload is missing from the database".to_owned()
            };
            let dead = Settlement { token, task: claim.id, outcome: Outcome::Dead { error } };
            self.settle_without_attempt(EndedAttempt::without_run(dead), slot);
        }
        context.slots.keep_ahead(ahead);
    }

    /// Starts tasks that were claimed ahead in free slots. Releases those that cannot start soon.
    fn start_or_release_ahead(&mut self) {
        let context = Arc::clone(&self.context);
        let may_start = context.may_start_ahead();
        self.release(context.slots.take_back(may_start));
        while may_start && let Some((slot, task)) = context.slots.start_ahead(&context.abort_attempts) {
            self.begin(slot, task);
        }
    }

    fn release_ahead(&mut self) {
        self.release(self.context.slots.take_back(false));
    }

    /// Releases tasks that have not started, which uses no attempt. Those with a request to cancel are
    /// cancelled thereby.
    fn release(&mut self, tasks: Vec<LeasedTask>) {
        for LeasedTask { token, claim, body } in tasks {
            let settlement = Settlement { token, task: claim.id, outcome: Outcome::Release };
            let task_type = self.context.metrics.types.label(&body.kind);
            let ended = EndedAttempt { task_type, ..EndedAttempt::without_run(settlement) };
            self.settle_without_attempt(ended, None);
        }
    }

    fn begin(&mut self, slot: Slot, task: LeasedTask) {
        let (context, settle) = (Arc::clone(&self.context), self.settle.clone());
        self.attempts.spawn(run_attempts(context, settle, slot, task));
    }

    /// In a separate tokio task, because the settler's channel may be full. It frees the slot afterwards.
    fn settle_without_attempt(&mut self, ended: EndedAttempt, slot: Option<Slot>) {
        let (settle, metrics) = (self.settle.clone(), Arc::clone(&self.context.metrics));
        self.attempts.spawn(async move {
            send_outcome(&metrics, &settle, ended).await;
            drop(slot);
        });
    }
}
