//! Traces of attempts, by the conventions of `OpenTelemetry` for messaging. An attempt continues the trace
//! that its producer gave. All attempts of a task are children of the producer's span, so a retry is a
//! sibling.

mod collector;
mod exporter;

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
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span as SdkSpan};
use rowlock_queue::{ProducerTrace, TaskId};

use crate::error::ConfigError;
use crate::metrics::Metrics;
use crate::traces::collector::Collector;
use crate::traces::exporter::Exporter;

/// The path of the protocol for traces: OTLP 1.x, "OTLP/HTTP Request".
const TRACES_PATH: &str = "/v1/traces";

/// Where to send spans, from `--otlp-endpoint`.
pub(crate) fn parse_endpoint(text: &str) -> Result<Uri, ConfigError> {
    // The message does not quote the URL, which may contain a secret.
    let url: Uri =
        text.parse().map_err(|error| ConfigError(format!("--otlp-endpoint is not a URL: {error}")))?;
    if url.scheme_str() != Some("http")
        || url.host().is_none_or(str::is_empty)
        || url.query().is_some()
        || url.authority().is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err(ConfigError(
            "--otlp-endpoint must look like http://collector:4318, without TLS: for a collector elsewhere, \
             run one that forwards to it beside the workers"
                .to_owned(),
        ));
    }
    Ok(url)
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
    /// `OTEL_SERVICE_NAME`, `OTEL_EXPORTER_OTLP_HEADERS`.
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
        let parent = producer.filter(|producer| !producer.batch);
        let Some(tracing) = &self.tracing else {
            return AttemptTrace {
                context: parent.and_then(read).unwrap_or_else(|| new_trace(true)),
                span: None,
            };
        };
        if !tracing.exporter.admits() {
            // Without the sampler's decision, it is safer to record too little.
            return AttemptTrace {
                context: parent.and_then(read).unwrap_or_else(|| new_trace(false)),
                span: None,
            };
        }
        let mut attributes = vec![
            KeyValue::new("messaging.system", "rowlock"),
            KeyValue::new("messaging.destination.name", self.queue.to_string()),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.message.id", attempt.task.to_string()),
            KeyValue::new("rowlock.task.type", attempt.task_type.to_owned()),
            KeyValue::new("rowlock.task.attempt", i64::from(attempt.number)),
            KeyValue::new("rowlock.task.max_attempts", i64::from(attempt.max_attempts)),
        ];
        if let Some(waited) = attempt.waited {
            attributes.push(KeyValue::new("rowlock.task.wait_seconds", waited.as_secs_f64()));
        }
        let links = producer.and_then(read).map(|context| Link::new(context, Vec::new(), 0));
        let builder = SpanBuilder::from_name(format!("process {}", self.queue))
            .with_kind(SpanKind::Consumer)
            .with_attributes(attributes)
            .with_links(links.into_iter().collect());
        let parent = match parent.and_then(read) {
            Some(context) => Context::new().with_remote_span_context(context),
            None => Context::new(),
        };
        let span = tracing.tracer.build_with_context(builder, &parent);
        AttemptTrace { context: span.span_context().clone(), span: Some(span) }
    }

    /// Begins the settlement of an attempt; it ends when the result is dropped.
    pub(crate) fn begin_settlement(&self, attempt: &AttemptTrace) -> SettlementSpan {
        let tracing =
            self.tracing.as_ref().filter(|_| attempt.span.is_some() && attempt.context.is_sampled())?;
        if !tracing.exporter.admits() {
            return None;
        }
        let builder = SpanBuilder::from_name(format!("settle {}", self.queue))
            .with_kind(SpanKind::Client)
            .with_attributes([
                KeyValue::new("messaging.system", "rowlock"),
                KeyValue::new("messaging.destination.name", self.queue.to_string()),
                KeyValue::new("messaging.operation.name", "settle"),
                KeyValue::new("messaging.operation.type", "settle"),
            ]);
        let parent = Context::new().with_remote_span_context(attempt.context.clone());
        Some(Box::new(tracing.tracer.build_with_context(builder, &parent)))
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

/// The place of an attempt in a trace. Its span, if there is one, ends with it at the latest.
pub(crate) struct AttemptTrace {
    context: SpanContext,
    span: Option<SdkSpan>,
}

impl AttemptTrace {
    /// As W3C Trace Context has it, for the handler.
    pub(crate) fn traceparent(&self) -> String {
        let (trace, span) = (self.context.trace_id(), self.context.span_id());
        format!("00-{trace}-{span}-{:02x}", self.context.trace_flags() & TraceFlags::SAMPLED)
    }

    pub(crate) fn trace_id(&self) -> TraceId {
        self.context.trace_id()
    }

    /// The attempt ended. `failure`: why it did not complete the task.
    pub(crate) fn end(&mut self, failure: Option<&'static str>) {
        let Some(span) = &mut self.span else { return };
        if let Some(reason) = failure {
            span.set_attribute(KeyValue::new("error.type", reason));
            span.set_status(Status::error(reason));
        }
        span.end();
    }
}

/// The span from an attempt's outcome until it is written, if there is one. It ends when it is dropped.
pub(crate) type SettlementSpan = Option<Box<SdkSpan>>;

fn start(endpoint: &Uri, instance: &str, metrics: &Arc<Metrics>) -> Result<Tracing, ConfigError> {
    let collector = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector::new(endpoint))
        .with_endpoint(format!("{}{TRACES_PATH}", endpoint.to_string().trim_end_matches('/')))
        // It would wait with the whole thread.
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        .map_err(|error| ConfigError(format!("--otlp-endpoint cannot be used: {error}")))?;
    let mut resource =
        Resource::builder().with_attribute(KeyValue::new("service.instance.id", instance.to_owned()));
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("rowlock-worker");
    }
    let resource = resource.build();
    let exporter = Exporter::start(collector, &resource, metrics);
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_span_processor(exporter.processor())
        .build();
    let scope =
        InstrumentationScope::builder("rowlock-worker").with_version(env!("CARGO_PKG_VERSION")).build();
    Ok(Tracing { tracer: provider.tracer_with_scope(scope), exporter })
}

/// The database has checked the form.
fn read(producer: &ProducerTrace) -> Option<SpanContext> {
    let mut parts = producer.traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?) & TraceFlags::SAMPLED;
    Some(SpanContext::new(trace, span, flags, true, TraceState::NONE))
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
