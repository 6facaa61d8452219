use opentelemetry_http::HttpClient as _;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn producer(batch: bool) -> ProducerTrace {
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00".to_owned();
    ProducerTrace { traceparent, tracestate: Some("shop=1, other=a b".into()), batch }
}

fn attempt() -> Attempt<'static> {
    Attempt { task: TaskId(7), task_type: "send", number: 1, max_attempts: 3, waited: None }
}

#[test]
fn without_a_collector_a_task_of_a_batch_has_a_trace_of_its_own() {
    let traces = Traces { queue: "mail".into(), tracing: None };
    let (single, batch) = (Some(producer(false)), Some(producer(true)));
    assert_eq!(traces.begin(&attempt(), single.as_ref()).traceparent(), producer(false).traceparent);
    assert_eq!(traces.begin(&attempt(), single.as_ref()).tracestate(), "shop=1,other=a b");
    assert_eq!(traces.begin(&attempt(), batch.as_ref()).tracestate(), "", "it is of another trace");
    let own: Vec<_> = (0..2).map(|_| traces.begin(&attempt(), batch.as_ref()).trace_id()).collect();
    assert_ne!(own[0], own[1]);
    assert!(!own.contains(&traces.begin(&attempt(), single.as_ref()).trace_id()));
}

/// The producer does not sample, so the worker and the handler do not.
#[tokio::test]
async fn an_attempt_is_sampled_if_its_producer_is() {
    let metrics = Arc::new(Metrics::new("mail").unwrap());
    let endpoint = "http://127.0.0.1:1".parse().unwrap();
    let traces = Traces::new(Some(&endpoint), &"mail".into(), "a", &metrics).unwrap();
    let trace = traces.begin(&attempt(), Some(&producer(false)));
    let handed = trace.traceparent();
    assert!(
        handed.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && handed.ends_with("-00"),
        "{handed}"
    );
    assert!(traces.begin_settlement(&trace).0.is_none());
    assert!(traces.begin(&attempt(), None).traceparent().ends_with("-01"));
    assert_eq!(trace.tracestate(), "shop=1,other=a b");
    drop(trace);
    traces.finish().await;
}

/// A handler would not get a task with a header that is none.
#[test]
fn a_tracestate_of_another_form_is_left_out() {
    let traces = Traces { queue: "mail".into(), tracing: None };
    for tracestate in ["no list", "UPPER=1", "a=1\r\nevil: 1", "a=\u{e4}", "", ","] {
        let producer = ProducerTrace { tracestate: Some(tracestate.into()), ..producer(false) };
        let trace = traces.begin(&attempt(), Some(&producer));
        assert_eq!((trace.traceparent(), trace.tracestate()), (producer.traceparent, String::new()));
    }
}

/// A server that answers each connection with these bytes, then closes it.
async fn answering(bytes: Vec<u8>) -> Uri {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 16 * 1024];
            let _ = stream.read(&mut request).await;
            // A client that has read enough closes the connection.
            let _ = stream.write_all(&bytes).await;
        }
    });
    url.parse().unwrap()
}

/// None of these may block the only thread, panic or count as exported. If one did, the test would not end.
#[tokio::test]
async fn spans_that_a_hostile_collector_answers_wrongly_are_lost() {
    let answer = |status: &str, headers: &str| format!("HTTP/1.1 {status}\r\n{headers}\r\n\r\n").into_bytes();
    let endless = [answer("200 OK", "content-length: 1000000000"), vec![0; 1024 * 1024]].concat();
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("no HTTP", b"SSH-2.0-OpenSSH\r\n".to_vec()),
        ("half of an answer", answer("200 OK", "content-length: 100")),
        ("an endless body", endless),
        ("a redirect", answer("307 Temporary Redirect", "location: /\r\ncontent-length: 0")),
        ("later", answer("429 Too Many Requests", "retry-after: 86400\r\ncontent-length: 0")),
    ] {
        let metrics = Arc::new(Metrics::new("mail").unwrap());
        let traces = Traces::new(Some(&answering(bytes).await), &"mail".into(), "a", &metrics).unwrap();
        drop(traces.begin(&attempt(), None));
        traces.finish().await;
        let counted = metrics.render().unwrap();
        for (result, spans) in [("exported", 0), ("lost", 1)] {
            let line = format!("rowlock_worker_spans_total{{result=\"{result}\",queue=\"mail\"}} {spans}\n");
            assert!(counted.contains(&line), "{what}: {counted}");
        }
    }
}

/// Before, they counted as exported.
#[tokio::test]
async fn spans_that_a_collector_refuses_in_part_are_rejected() {
    let answer = |rejected_spans| {
        let partial = ExportTracePartialSuccess { rejected_spans, error_message: "too\nold".into() };
        let body = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        [head.into_bytes(), body].concat()
    };
    for (rejected_spans, rejected) in [(0, 0), (1, 1), (i64::MAX, 2), (-1, 0)] {
        let metrics = Arc::new(Metrics::new("mail").unwrap());
        let url = answering(answer(rejected_spans)).await;
        let traces = Traces::new(Some(&url), &"mail".into(), "a", &metrics).unwrap();
        for _ in 0..2 {
            drop(traces.begin(&attempt(), None));
        }
        traces.finish().await;
        let counted = metrics.render().unwrap();
        for (result, spans) in [("exported", 2 - rejected), ("rejected", rejected), ("lost", 0)] {
            let line = format!("rowlock_worker_spans_total{{result=\"{result}\",queue=\"mail\"}} {spans}\n");
            assert!(counted.contains(&line), "{rejected_spans}: {counted}");
        }
    }
}

/// The log says why there was no answer.
#[tokio::test]
async fn the_cause_of_a_failed_request_is_kept() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let collector = Collector::new(&format!("http://{unused}").parse().unwrap()).unwrap();
    let request = http::Request::post("/v1/traces").body(bytes::Bytes::new()).unwrap();
    assert!(collector.send_bytes(request).await.is_err());
    let cause = collector.last_answer().take().error.unwrap();
    assert!(cause.contains("refused"), "{cause}");
}

#[test]
fn a_collector_that_cannot_be_used_is_refused_with_flag_and_variable() {
    let error = parse_endpoint("https://u:secret@collector:4318").unwrap_err().to_string();
    assert!(error.starts_with("--otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT) must look like"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}
