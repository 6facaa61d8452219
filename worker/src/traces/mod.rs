//! Traces of attempts, by the conventions of `OpenTelemetry` for messaging. An attempt continues the trace
//! that its producer gave. All attempts of a task are children of the producer's span, so a retry is a
//! sibling.

mod collector;
mod exporter;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use opentelemetry::trace::{
    Link, Span, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
    TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, ResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span as SdkSpan};
use rowlock_crds::env;
use rowlock_queue::{ProducerTrace, Settled, TaskId};

use crate::error::ConfigError;
use crate::metrics::Metrics;
use crate::traces::collector::Collector;
use crate::traces::exporter::Exporter;

/// The path of the protocol for traces: OTLP 1.x, "OTLP/HTTP Request".
const TRACES_PATH: &str = "/v1/traces";

/// Where to send spans, from `--otlp-endpoint`.
pub(crate) fn parse_endpoint(text: &str) -> Result<Uri, ConfigError> {
    rowlock_daemon::parse_collector_url(text)
        .map_err(|error| ConfigError(format!("--otlp-endpoint ({}) {error}", env::OTLP_ENDPOINT)))
}

/// Makes the spans of an instance, or none.
pub(crate) struct Traces {
    queue: Arc<str>,
    /// `None`: nothing is exported. Attempts still have a trace, for the handler.
    tracing: Option<Tracing>,
}

struct Tracing {
    tracer: SdkTracer,
    exporter: Exporter,
}

impl Traces {
    /// Exports to the collector at `endpoint`, if there is one. Must be called within a tokio runtime. Some
    /// settings come from the environment: `OTEL_TRACES_SAMPLER`, `OTEL_RESOURCE_ATTRIBUTES`,
    /// `OTEL_SERVICE_NAME`, `OTEL_EXPORTER_OTLP_HEADERS`, and those of [`tls`].
    pub(crate) fn new(
        endpoint: Option<&Uri>,
        queue: &Arc<str>,
        instance: &str,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, ConfigError> {
        let start = |endpoint| start(endpoint, instance, metrics);
        Ok(Self { queue: Arc::clone(queue), tracing: endpoint.map(start).transpose()? })
    }

    /// Begins an attempt at a task. `waited`: since it became available.
    pub(crate) fn begin(&self, attempt: &Attempt<'_>, producer: Option<&ProducerTrace>) -> AttemptTrace {
        let producer_span = producer.and_then(read);
        let parent = producer_span.clone().filter(|_| producer.is_some_and(|producer| !producer.batch));
        let Some(tracing) = &self.tracing else { return AttemptTrace::without_span(parent, true) };
        if !tracing.exporter.admits() {
            // Without the sampler's decision, it is safer to record too little.
            return AttemptTrace::without_span(parent, false);
        }
        let mut attributes = vec![
            KeyValue::new("messaging.message.id", attempt.task.to_string()),
            KeyValue::new("rowlock.task.type", attempt.task_type.to_owned()),
            KeyValue::new("rowlock.task.attempt", i64::from(attempt.number)),
            KeyValue::new("rowlock.task.max_attempts", i64::from(attempt.max_attempts)),
        ];
        if let Some(waited) = attempt.waited {
            attributes.push(KeyValue::new("rowlock.task.wait_seconds", waited.as_secs_f64()));
        }
        let links = producer_span.map(|context| Link::new(context, Vec::new(), 0));
        let builder =
            self.span("process", SpanKind::Consumer, attributes).with_links(links.into_iter().collect());
        let parent = match parent {
            Some(context) => Context::new().with_remote_span_context(context),
            None => Context::new(),
        };
        let span = tracing.tracer.build_with_context(builder, &parent);
        AttemptTrace { context: span.span_context().clone(), span: Some(span) }
    }

    /// Begins the settlement of an attempt.
    pub(crate) fn begin_settlement(&self, attempt: &AttemptTrace) -> SettlementSpan {
        let is_recorded = attempt.span.is_some() && attempt.context.is_sampled();
        let tracing = self.tracing.as_ref().filter(|tracing| is_recorded && tracing.exporter.admits());
        let Some(tracing) = tracing else { return SettlementSpan::default() };
        let builder = self.span("settle", SpanKind::Client, Vec::new());
        let parent = Context::new().with_remote_span_context(attempt.context.clone());
        SettlementSpan(Some(Box::new(tracing.tracer.build_with_context(builder, &parent))))
    }

    /// A span of this operation on the queue, with these attributes beside those that all spans have.
    fn span(&self, operation: &'static str, kind: SpanKind, mut attributes: Vec<KeyValue>) -> SpanBuilder {
        attributes.extend([
            KeyValue::new("messaging.system", "rowlock"),
            KeyValue::new("messaging.destination.name", self.queue.to_string()),
            KeyValue::new("messaging.operation.name", operation),
            KeyValue::new("messaging.operation.type", operation),
        ]);
        let name = format!("{operation} {}", self.queue);
        SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes)
    }

    /// Exports the last spans, for at most a second.
    pub(crate) async fn finish(&self) {
        if let Some(tracing) = &self.tracing {
            tracing.exporter.finish().await;
        }
    }
}

/// What a span says about an attempt when it begins.
pub(crate) struct Attempt<'a> {
    pub(crate) task: TaskId,
    pub(crate) task_type: &'a str,
    /// From 1.
    pub(crate) number: u16,
    pub(crate) max_attempts: u16,
    pub(crate) waited: Option<Duration>,
}

/// The reason of a span that ended because its worker stopped or was fenced.
const INTERRUPTED: &str = "interrupted";

/// The place of an attempt in a trace. Dropped before its end, the attempt was interrupted.
pub(crate) struct AttemptTrace {
    context: SpanContext,
    span: Option<SdkSpan>,
}

impl AttemptTrace {
    /// It continues the parent's trace, or begins one.
    fn without_span(parent: Option<SpanContext>, sampled: bool) -> Self {
        Self { context: parent.unwrap_or_else(|| new_trace(sampled)), span: None }
    }

    /// As W3C Trace Context has it, for the handler.
    pub(crate) fn traceparent(&self) -> String {
        let (trace, span) = (self.context.trace_id(), self.context.span_id());
        format!("00-{trace}-{span}-{:02x}", self.context.trace_flags() & TraceFlags::SAMPLED)
    }

    /// What belongs to it in the header `tracestate`, or nothing.
    pub(crate) fn tracestate(&self) -> String {
        self.context.trace_state().header()
    }

    pub(crate) fn trace_id(&self) -> TraceId {
        self.context.trace_id()
    }

    /// The handler answered. `failure`: why it did not complete the task.
    pub(crate) fn end(&mut self, failure: Option<&'static str>) {
        end(self.span.as_mut(), failure);
    }

    /// The attempt was stopped before the handler answered.
    pub(crate) fn interrupted(&mut self) {
        self.end(Some(INTERRUPTED));
    }
}

impl Drop for AttemptTrace {
    fn drop(&mut self) {
        self.interrupted();
    }
}

/// The span from an attempt's outcome until it is written, if there is one. Dropped before its end, the
/// outcome was not written.
#[derive(Default)]
pub(crate) struct SettlementSpan(Option<Box<SdkSpan>>);

impl SettlementSpan {
    /// The database answered.
    pub(crate) fn end(&mut self, settled: Settled) {
        end(self.0.as_deref_mut(), matches!(settled, Settled::LeaseLost).then_some("lease_lost"));
    }
}

impl Drop for SettlementSpan {
    fn drop(&mut self) {
        end(self.0.as_deref_mut(), Some(INTERRUPTED));
    }
}

/// Ends a span that is recorded and has not ended.
fn end(span: Option<&mut SdkSpan>, failure: Option<&'static str>) {
    let Some(span) = span.filter(|span| span.is_recording()) else { return };
    if let Some(reason) = failure {
        span.set_attribute(KeyValue::new("error.type", reason));
        span.set_status(Status::error(reason));
    }
    span.end();
}

fn start(endpoint: &Uri, instance: &str, metrics: &Arc<Metrics>) -> Result<Tracing, ConfigError> {
    let sampler = ["OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"].map(|name| std::env::var(name).ok());
    rowlock_daemon::check_sampler(sampler[0].as_deref(), sampler[1].as_deref()).map_err(ConfigError)?;
    let collector = Collector::new(endpoint)?;
    let last_answer = collector.last_answer();
    let collector = SpanExporter::builder()
        .with_http()
        .with_http_client(collector)
        .with_endpoint(format!("{}{TRACES_PATH}", endpoint.to_string().trim_end_matches('/')))
        // It would wait with the whole thread.
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        .map_err(|error| ConfigError(format!("--otlp-endpoint cannot be used: {error}")))?;
    let resource = resource(instance);
    let exporter = Exporter::start(collector, last_answer, &resource, metrics);
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_span_processor(exporter.processor())
        .build();
    let scope =
        InstrumentationScope::builder("rowlock-worker").with_version(env!("CARGO_PKG_VERSION")).build();
    Ok(Tracing { tracer: provider.tracer_with_scope(scope), exporter })
}

/// What the spans say about this process. `OTEL_SERVICE_NAME` goes before `OTEL_RESOURCE_ATTRIBUTES`, and
/// both before our name.
fn resource(instance: &str) -> Resource {
    let detectors: [Box<dyn ResourceDetector>; 2] =
        [Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())];
    let resource = Resource::builder_empty()
        .with_service_name("rowlock-worker")
        .with_detectors(&detectors)
        .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()));
    match std::env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => resource.with_service_name(name).build(),
        _ => resource.build(),
    }
}

/// The database has checked the form of the `traceparent`. A `tracestate` of another form is left out.
fn read(producer: &ProducerTrace) -> Option<SpanContext> {
    let mut parts = producer.traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?) & TraceFlags::SAMPLED;
    Some(SpanContext::new(trace, span, flags, true, trace_state(producer.tracestate.as_deref())))
}

fn trace_state(text: Option<&str>) -> TraceState {
    let is_header = |text: &&str| text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    text.filter(is_header).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// A trace of one attempt. If it is marked as sampled, a handler with a parent-based sampler records it.
fn new_trace(sampled: bool) -> SpanContext {
    // All zeros would be invalid.
    let (trace, span) = (fastrand::u128(1..), fastrand::u64(1..));
    SpanContext::new(
        TraceId::from_bytes(trace.to_be_bytes()),
        SpanId::from_bytes(span.to_be_bytes()),
        TraceFlags::NOT_SAMPLED.with_sampled(sampled),
        false,
        TraceState::NONE,
    )
}

#[cfg(test)]
mod tests;
