//! The program of a worker: its variables and its log.

use std::process::Stdio;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowlock_queue::{EnqueueOptions, enqueue};
use rowlock_tests::TestDb;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::collector::{Collector, PATIENCE, hex, text};
use super::{PRODUCER, TRACE};

/// The command line, built with the tests under another name.
const ROWLOCK: &str = env!("CARGO_BIN_EXE_rowlock-tests-guard");

/// A handler that fails every task for good.
async fn failing_handler() -> (String, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/tasks", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(|_: Request<Incoming>| async {
                Response::builder().status(400).body(Full::<Bytes>::default())
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (url, AbortOnDropHandle::new(server))
}

#[tokio::test]
async fn a_workers_variables_and_log_are_as_documented() {
    let (test, collector) = (TestDb::new().await, Collector::start().await);
    let (handler, _server) = failing_handler().await;
    for traceparent in [Some(PRODUCER.to_owned()), None] {
        let options = EnqueueOptions { traceparent, max_attempts: Some(1), ..EnqueueOptions::default() };
        enqueue(&test.db, "mail", "send", "{}", &options).await.unwrap();
    }
    let worker = tokio::process::Command::new(ROWLOCK)
        .args(["worker", "--queue", "mail", "--listen", "127.0.0.1:0", "--handler-url", &handler])
        .env("ROWLOCK_DATABASE_URL", test.connect().url)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
        .env("OTEL_RESOURCE_ATTRIBUTES", "service.name=shop,deployment.environment.name=test")
        // Neither may end a worker.
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        // Only the task whose producer was sampled.
        .env("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let done = async {
        while test.audited().await.1 < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, done).await.expect("all tasks are dead");
    kill(Pid::from_raw(worker.id().unwrap().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let ended = tokio::time::timeout(PATIENCE, worker.wait_with_output()).await.expect("it ends").unwrap();
    let log = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{log}");

    let spans = collector.spans();
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["process mail", "settle mail"], "{log}");
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "{spans:#?}");
    assert_eq!(text(&spans[0].attributes, "error.type"), "http_4xx");
    assert_eq!(text(&collector.resource(), "service.name"), "shop");
    assert_eq!(text(&collector.resource(), "deployment.environment.name"), "test");

    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let attempts: Vec<Value> = lines.filter(|line| line["message"] == "the attempt ended").collect();
    assert_eq!(attempts.len(), 2, "{log}");
    for line in &attempts {
        assert_eq!((&line["level"], &line["queue"]), (&"INFO".into(), &"mail".into()), "{line}");
        assert_eq!((&line["type"], &line["outcome"]), (&"send".into(), &"dead".into()), "{line}");
        assert!(line["ms"].is_u64() && line["attempt"] == 1 && line["task"].is_string(), "{line}");
        assert!(line.get("left_out").is_none(), "{line}");
    }
    assert!(attempts.iter().any(|line| line["trace_id"] == TRACE), "{log}");
}
