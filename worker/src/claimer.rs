//! One claimer for all workers of the instance: claims what can start at once, and starts it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rowlock_queue::{CLAIM_MAX, Claim, Claimed, Outcome, Settlement, Token};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::answer::reason;
use crate::bodies::fetch_all;
use crate::ended::WorkerError;
use crate::pause::{Pause, retry_soon};
use crate::run::run;
use crate::shared::Shared;
use crate::workers::Busy;

/// So many claims in a row may find nothing before the next one waits: of a fleet that is woken for one task
/// all but one find nothing.
const FRUITLESS_FREE: u32 = 8;
/// So long it waits then. Every login may send a NOTIFY: at fifty claims a second that find nothing one costs
/// less than the heartbeats of a few instances.
const FRUITLESS_PAUSE: Duration = Duration::from_millis(20);

pub(crate) struct Claimer {
    shared: Arc<Shared>,
    settle: mpsc::Sender<Settlement>,
    runs: JoinSet<()>,
    pause: Pause,
    /// A claim without an answer yet, with the workers reserved for it: it may have gone through, so it is sent again as it was.
    unanswered: Option<(Token, u32)>,
    /// Claims since the last one that found something.
    fruitless: u32,
}

/// What to do after a claim.
enum Next {
    Again,
    After(Duration),
    Wait,
}

impl Claimer {
    pub(crate) fn new(shared: Arc<Shared>, settle: mpsc::Sender<Settlement>) -> Self {
        Self { shared, settle, runs: JoinSet::new(), pause: Pause::DATABASE, unanswered: None, fruitless: 0 }
    }

    /// Claims until `stop`, then lets what runs finish within `grace`. Dropping its end of the settler's
    /// queue at the end is what tells the settler that no more will come.
    pub(crate) async fn work(mut self, stop: CancellationToken, grace: Duration) -> Result<(), WorkerError> {
        let shared = Arc::clone(&self.shared);
        let fenced = shared.fence.tripped();
        while !stop.is_cancelled() && !fenced.is_cancelled() {
            // Registered before asking, or what happens in between is missed until the next heartbeat.
            let mut woken = pin!(shared.workers.wake.notified());
            woken.as_mut().enable();
            let next = tokio::select! {
                biased;
                () = fenced.cancelled() => break,
                next = self.claim(&stop) => next,
            };
            match next {
                Next::Again => (),
                Next::After(pause) => tokio::select! {
                    () = sleep(pause) => (),
                    () = stop.cancelled() => (),
                    () = fenced.cancelled() => (),
                },
                // The poll is the heartbeat: once a second it says whether something is available, and wakes us.
                Next::Wait => tokio::select! {
                    () = async {
                        woken.await;
                        if FRUITLESS_FREE < self.fruitless {
                            sleep(FRUITLESS_PAUSE).await;
                        }
                    } => (),
                    () = stop.cancelled() => (),
                    () = fenced.cancelled() => (),
                },
            }
            while let Some(ended) = self.runs.try_join_next() {
                ended.map_err(|_| WorkerError::Ended("a run"))?;
            }
        }
        self.drain(grace).await
    }

    async fn drain(mut self, grace: Duration) -> Result<(), WorkerError> {
        let shared = Arc::clone(&self.shared);
        let fenced = shared.fence.tripped();
        shared.workers.drain();
        shared.nudge.notify_one();
        let mark = async {
            if let Err(error) = rowlock_queue::drain(&shared.db, shared.instance).await {
                shared.database_failed("drain", &error);
            }
        };
        let mut over = pin!(sleep(grace));
        let mut marked = pin!(mark);
        let mut is_marked = false;
        loop {
            tokio::select! {
                biased;
                () = fenced.cancelled(), if !shared.abort_runs.is_cancelled() => shared.abort_runs.cancel(),
                ended = self.runs.join_next() => match ended {
                    Some(ended) => ended.map_err(|_| WorkerError::Ended("a run"))?,
                    None => return Ok(()),
                },
                () = &mut over, if !shared.abort_runs.is_cancelled() => {
                    tracing::warn!(runs = self.runs.len(), "the drain's grace is over; handing back what still runs");
                    shared.abort_runs.cancel();
                }
                () = &mut marked, if !is_marked => is_marked = true,
            }
        }
    }

    async fn claim(&mut self, stop: &CancellationToken) -> Next {
        let shared = Arc::clone(&self.shared);
        let again = self.unanswered;
        let (token, want) = if let Some(unanswered) = again {
            unanswered
        } else {
            let want = if shared.gate.is_open() { shared.workers.reserve(CLAIM_MAX) } else { 0 };
            (Token::random(), want)
        };
        if want == 0 {
            return Next::Wait;
        }
        self.unanswered = Some((token, want));
        shared.leases.asked(token);
        let started = Instant::now();
        let watermarks = shared.watermarks();
        let (db, instance) = (&shared.db, shared.instance);
        let claimed = if again.is_some() {
            rowlock_queue::claim_again(db, instance, want, &watermarks, token).await
        } else {
            rowlock_queue::claim(db, instance, want, &watermarks, token).await
        };
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(error) => {
                shared.database_failed("claim", &error);
                return Next::After(self.pause.step());
            }
        };
        self.unanswered = None;
        self.pause.reset();
        shared.database_answered("claim");
        shared.metrics.claimed(started.elapsed(), claimed.tasks.len());
        shared.advance_watermarks(&claimed.watermark_observation);
        let asked = token;
        let Claimed { token, tasks, contended, .. } = claimed;
        shared.leases.claimed(asked, tasks.len());
        let got = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        self.fruitless = if got == 0 { self.fruitless.saturating_add(1) } else { 0 };
        shared.workers.unreserve(want.saturating_sub(got));
        if let (Some(token), false) = (token, tasks.is_empty()) {
            self.start(token, tasks, stop).await;
        }
        if got >= want {
            Next::Again
        } else if contended || 0 < got {
            Next::After(retry_soon())
        } else {
            if shared.workers.fall_idle() {
                shared.nudge.notify_one();
            }
            Next::Wait
        }
    }

    /// Fetches the bodies and starts the runs.
    async fn start(&mut self, token: Token, tasks: Vec<Claim>, stop: &CancellationToken) {
        let shared = Arc::clone(&self.shared);
        // Held from here on, so that a fence in the midst of the fetch leaves no worker behind.
        let busy: Vec<_> =
            tasks.iter().map(|task| shared.workers.start(task.id, &shared.abort_runs)).collect();
        let ids: Vec<_> = tasks.iter().map(|task| task.id).collect();
        // The fence ends it from outside.
        let Some(mut fetched) = fetch_all(&*shared, token, &ids, stop).await else {
            for busy in busy {
                self.settle_unrun(busy, token, Outcome::Release);
            }
            return;
        };
        for (claim, busy) in tasks.into_iter().zip(busy) {
            if let Some(body) = fetched.bodies.remove(&claim.id) {
                let (shared, settle) = (Arc::clone(&shared), self.settle.clone());
                self.runs.spawn(run(shared, settle, busy, token, claim, body));
                continue;
            }
            let error = if let Some(error) = fetched.unreadable.remove(&claim.id) {
                // The database's own words may quote the payload, which belongs in no log.
                tracing::error!(
                    task = %claim.id,
                    "the task's payload cannot be read; it is dead, and its details say why"
                );
                reason(&format!("the task's payload or type cannot be read from the database: {error}"))
            } else {
                tracing::error!(task = %claim.id, "the task has no body; it is settled as dead");
                shared.metrics.error("body_missing");
                "the task's payload is missing from the database".to_owned()
            };
            self.settle_unrun(busy, token, Outcome::Dead { error });
        }
    }

    /// In a task of its own: the settler's queue may be full.
    fn settle_unrun(&mut self, busy: Busy, token: Token, outcome: Outcome) {
        let settle = self.settle.clone();
        self.runs.spawn(async move {
            let _ = settle.send(Settlement { token, task: busy.task(), outcome }).await;
        });
    }
}
