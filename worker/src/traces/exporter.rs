//! Exports spans in the background. A collector that is away or slow costs the worker only spans: while its
//! buffer is full, or just after a failure, no span is made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::throttled_log::OutageLog;
use crate::traces::collector::LastAnswer;

/// Spans that may wait, of a kilobyte each: some seconds of a busy worker.
const BUFFERED_SPANS: usize = 2048;
/// The most spans of one request, as in OpenTelemetry's own exporters.
const BATCH_MAX: usize = 512;
/// How long a request waits for more spans: somebody may be watching.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// How long no span is made after a failed request.
const PAUSE: Duration = Duration::from_secs(5);
/// How long the last requests may take: a part of a pod's time between drain and kill.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// The name, for log lines, of requests of which the collector refused a part.
const REJECT: &str = "reject";

/// The spans on their way to the collector.
pub(super) struct Exporter {
    paused: Arc<AtomicBool>,
    buffer: mpsc::Sender<SpanData>,
    metrics: Arc<Metrics>,
    finishing: CancellationToken,
    task: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Exporter {
    /// Must be called within a tokio runtime.
    pub(super) fn start(
        mut to: SpanExporter,
        last_answer: LastAnswer,
        resource: &Resource,
        metrics: &Arc<Metrics>,
    ) -> Self {
        to.set_resource(resource);
        let (buffer, spans) = mpsc::channel(BUFFERED_SPANS);
        let paused = Arc::new(AtomicBool::new(false));
        let finishing = CancellationToken::new();
        let sender = Sender {
            to,
            last_answer,
            paused: Arc::clone(&paused),
            metrics: Arc::clone(metrics),
            outage: OutageLog::default(),
            finishing: finishing.clone(),
        };
        let task = std::sync::Mutex::new(Some(tokio::spawn(sender.run(spans))));
        Self { paused, buffer, metrics: Arc::clone(metrics), finishing, task }
    }

    /// What the SDK hands the spans to.
    pub(super) fn processor(&self) -> Processor {
        Processor { buffer: self.buffer.clone(), metrics: Arc::clone(&self.metrics) }
    }

    /// Whether a span that begins now would probably be exported. If not, it counts as lost.
    pub(super) fn admits(&self) -> bool {
        let admits = !self.paused.load(Ordering::Relaxed) && 0 < self.buffer.capacity();
        if !admits {
            self.metrics.spans_lost(1);
        }
        admits
    }

    /// Exports what is in the buffer, for a second at most, and nothing after that.
    pub(super) async fn finish(&self) {
        self.finishing.cancel();
        let task = self.task.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some(task) = task else { return };
        let aborter = task.abort_handle();
        if timeout(LAST_REQUESTS, task).await.is_err() {
            aborter.abort();
        }
    }
}

#[derive(Clone)]
pub(super) struct Processor {
    buffer: mpsc::Sender<SpanData>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processor").finish_non_exhaustive()
    }
}

impl SpanProcessor for Processor {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.buffer.try_send(span).is_err() {
            self.metrics.spans_lost(1);
        }
    }

    /// [`Exporter::finish`] does this.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    /// [`Exporter::finish`] does this.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Sends the spans of the buffer.
struct Sender {
    to: SpanExporter,
    last_answer: LastAnswer,
    paused: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    outage: OutageLog,
    finishing: CancellationToken,
}

impl Sender {
    async fn run(self, mut spans: mpsc::Receiver<SpanData>) {
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                received = spans.recv_many(&mut batch, BATCH_MAX) => if received == 0 { return },
                () = self.finishing.cancelled() => return,
            }
            let full = async {
                loop {
                    let room = BATCH_MAX - batch.len();
                    if room == 0 || spans.recv_many(&mut batch, room).await == 0 {
                        return;
                    }
                }
            };
            tokio::select! {
                biased;
                _ = timeout(BATCH_WAIT, full) => (),
                () = self.finishing.cancelled() => (),
            }
            let size = batch.len();
            let exported = self.to.export(batch).await;
            let answer = self.last_answer.take();
            match exported {
                Ok(()) => {
                    let rejected = answer.rejected.min(size);
                    self.metrics.spans_exported(size - rejected);
                    self.note_rejected(rejected, &answer.reason);
                    if let Some((failures, after)) = self.outage.record_answer("export") {
                        tracing::info!(failures, ?after, "the collector takes traces again");
                    }
                }
                Err(error) => {
                    self.metrics.spans_lost(size);
                    let error = answer.error.unwrap_or_else(|| error.to_string());
                    if let Some(failures) = self.outage.record_failure("export") {
                        tracing::warn!(%error, failures, "the collector takes no traces; spans are lost");
                    }
                    self.pause().await;
                }
            }
        }
    }

    /// Part of a request was refused. The reason is the collector's.
    fn note_rejected(&self, rejected: usize, reason: &str) {
        if rejected == 0 {
            let _ = self.outage.record_answer(REJECT);
            return;
        }
        self.metrics.spans_rejected(rejected);
        if let Some(failures) = self.outage.record_failure(REJECT) {
            tracing::warn!(rejected, reason, failures, "the collector refuses some of the spans");
        }
    }

    async fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
        tokio::select! {
            () = sleep_until(Instant::now() + PAUSE) => (),
            () = self.finishing.cancelled() => (),
        }
        self.paused.store(false, Ordering::Relaxed);
    }
}
