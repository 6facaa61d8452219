//! Instances in this process, and what their handlers count.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rowlock_worker::{ExitReason, Fail, Shutdown, Task, Worker, WorkerError};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::measurements::produce::waited;
use crate::testbed::{Database, QUEUE};

/// Each instance has the usual two connections, and one that listens.
const CONNECTIONS: u32 = 2;
const WARM_UP: Duration = Duration::from_secs(2);

/// How often to check whether the last outcomes are written.
const SETTLED_POLL: Duration = Duration::from_millis(5);

/// Instances of the same queue, whose handler waits for `work` in each task.
pub(crate) struct Instances {
    /// Tasks that have started.
    pub(crate) started: Arc<AtomicU32>,
    /// How long the tasks of a steady producer have waited, in milliseconds.
    waits: Arc<Mutex<Vec<f64>>>,
    stop: Shutdown,
    running: JoinSet<Result<ExitReason, WorkerError>>,
}

impl Instances {
    pub(crate) fn start(database: &Database, instances: u32, slots: u32, work: Duration) -> Result<Self> {
        Self::start_traced(database, instances, slots, work, None)
    }

    /// `collector`: where they send their spans.
    pub(crate) fn start_traced(
        database: &Database,
        instances: u32,
        slots: u32,
        work: Duration,
        collector: Option<&str>,
    ) -> Result<Self> {
        let (started, waits) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (stop, mut running) = (Shutdown::new(), JoinSet::new());
        for number in 0..instances {
            let (started, waits) = (Arc::clone(&started), Arc::clone(&waits));
            let builder = Worker::builder(database.as_connect(CONNECTIONS), QUEUE)
                .name(&format!("bench-{number}"))
                .slots(slots)
                .handler("noop", move |task: Task| {
                    started.fetch_add(1, Ordering::Relaxed);
                    if let Some(waited) = waited(&task.payload) {
                        waits.lock().unwrap_or_else(PoisonError::into_inner).push(waited);
                    }
                    async move {
                        if !work.is_zero() {
                            sleep(work).await;
                        }
                        Ok::<(), Fail>(())
                    }
                });
            let builder = match collector {
                Some(url) => builder.otlp_endpoint(url)?,
                None => builder,
            };
            running.spawn(builder.build()?.run(stop.clone()));
        }
        Ok(Self { started, waits, stop, running })
    }

    /// Waits until that many tasks have started, and every outcome is in the database.
    pub(crate) async fn work_off(&mut self, database: &Database, tasks: u32) -> Result<()> {
        let done = async {
            while self.started.load(Ordering::Relaxed) < tasks || has_leases(database).await? {
                sleep(SETTLED_POLL).await;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            done = done => done,
            Some(ended) = self.running.join_next() => bail!("an instance ended: {:?}", ended?),
        }
    }

    /// Tasks started per second over a window, without the start of the instances.
    pub(crate) async fn rate(&mut self, window: Duration) -> Result<f64> {
        self.wait(WARM_UP).await?;
        let (from, since) = (self.started.load(Ordering::Relaxed), Instant::now());
        self.wait(window).await?;
        let (to, took) = (self.started.load(Ordering::Relaxed), since.elapsed());
        Ok(f64::from(to - from) / took.as_secs_f64())
    }

    /// Waits for a time in which no instance may end.
    pub(crate) async fn wait(&mut self, time: Duration) -> Result<()> {
        tokio::select! {
            () = sleep(time) => Ok(()),
            Some(ended) = self.running.join_next() => bail!("an instance ended: {:?}", ended?),
        }
    }

    /// The waits since the last call.
    pub(crate) fn take_waits(&self) -> Vec<f64> {
        std::mem::take(&mut self.waits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) async fn drain(mut self) -> Result<()> {
        self.stop.drain();
        while let Some(ended) = self.running.join_next().await {
            let ended = ended??;
            ensure!(ended == ExitReason::Drained, "an instance ended {ended:?}");
        }
        Ok(())
    }
}

async fn has_leases(database: &Database) -> Result<bool> {
    let left = sqlx::query_scalar("select exists (select from rowlock.lease)");
    Ok(left.fetch_one(&database.pool).await?)
}
