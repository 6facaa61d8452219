//! Traces from the producer's transaction to the handler.

mod collector;
mod process;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rowlock_queue::{Connect, EnqueueOptions, describe_task, enqueue};
use rowlock_tests::TestDb;
use rowlock_worker::{ExitReason, Fail, Shutdown, Task, Worker};
use sqlx::{AssertSqlSafe, Executor, Row};
use tokio::sync::Notify;

use self::collector::{Collector, PATIENCE, hex, silent, text};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PRODUCER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Runs a worker until `tasks` are done. The first attempt of a task of type `flaky` fails. Returns the
/// `traceparent` of each attempt.
async fn run(test: &TestDb, collector: Option<&str>, tasks: i64) -> Vec<String> {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let handle = {
        let seen = Arc::clone(&seen);
        move |task: Task| {
            seen.lock().unwrap().push(task.traceparent.clone());
            let fails = task.task_type == "flaky" && task.attempt == 1;
            async move { if fails { Err(Fail::retry_after(Duration::ZERO, "again")) } else { Ok(()) } }
        }
    };
    let connect = Connect { max_connections: 2, application_name: "instance".into(), ..test.connect() };
    let mut worker = Worker::builder(connect, "mail").slots(4).name("worker-1");
    worker = worker.handler("send", handle.clone()).handler("flaky", handle);
    if let Some(url) = collector {
        worker = worker.otlp_endpoint(url).unwrap();
    }
    let stop = Shutdown::new();
    let running = tokio::spawn(worker.build().unwrap().run(stop.clone()));
    let done = async {
        while test.audited().await.0 < tasks {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, done).await.expect("all tasks are completed");
    stop.drain();
    running.await.unwrap().unwrap();
    Arc::into_inner(seen).unwrap().into_inner().unwrap()
}

async fn enqueue_traced(test: &TestDb, task_type: &str) -> rowlock_queue::TaskId {
    let options = EnqueueOptions { traceparent: Some(PRODUCER.into()), ..EnqueueOptions::default() };
    enqueue(&test.db, "mail", task_type, "{}", &options).await.unwrap()
}

#[tokio::test]
async fn each_attempt_is_a_child_of_its_producers_span() {
    let test = TestDb::new().await;
    let collector = Collector::start().await;
    let id = enqueue_traced(&test, "flaky").await;
    let handed = run(&test, Some(&collector.url), 1).await;
    let spans = collector.spans();
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "{spans:#?}");
    let attempts: Vec<_> = spans.iter().filter(|span| span.name == "process mail").collect();
    let [first, second] = attempts[..] else { panic!("{spans:#?}") };
    for (span, number, handed) in [(first, "1", &handed[0]), (second, "2", &handed[1])] {
        assert_eq!(hex(&span.parent_span_id), "00f067aa0ba902b7");
        assert_eq!(hex(&span.links[0].span_id), "00f067aa0ba902b7");
        assert_eq!(span.kind, 5, "a consumer");
        assert_eq!(*handed, format!("00-{TRACE}-{}-01", hex(&span.span_id)), "the handler's parent");
        for (key, value) in [
            ("messaging.system", "rowlock"),
            ("messaging.destination.name", "mail"),
            ("messaging.message.id", &id.to_string()),
            ("rowlock.task.type", "flaky"),
            ("rowlock.task.attempt", number),
        ] {
            assert_eq!(text(&span.attributes, key), value, "{key}");
        }
        let settled = spans.iter().find(|other| other.parent_span_id == span.span_id).unwrap();
        assert_eq!(settled.name, "settle mail");
        assert!(span.end_time_unix_nano <= settled.end_time_unix_nano);
    }
    assert_eq!(text(&first.attributes, "error.type"), "error");
    assert_eq!((first.status.clone().unwrap().code, second.status.clone().unwrap().code), (2, 0));
    assert_eq!(text(&collector.resource(), "service.name"), "rowlock-worker");
    assert_eq!(text(&collector.resource(), "service.instance.id"), "worker-1");
    let details = describe_task(&test.db, id).await.unwrap().unwrap();
    assert_eq!(details.trace_id.as_deref(), Some(TRACE));
}

#[tokio::test]
async fn a_batch_and_its_producer_are_linked_and_each_task_has_its_own_trace() {
    let test = TestDb::new().await;
    let collector = Collector::start().await;
    let mut producer = test.session().await;
    let setting = format!("begin; set local rowlock.traceparent = '{PRODUCER}'");
    producer.execute(AssertSqlSafe(setting)).await.unwrap();
    producer.execute("select rowlock.enqueue_many('mail', 'send', array['{}', '{}']::json[])").await.unwrap();
    producer.execute("commit").await.unwrap();
    run(&test, Some(&collector.url), 2).await;
    let spans = collector.spans();
    let attempts: Vec<_> = spans.iter().filter(|span| span.name == "process mail").collect();
    let [one, other] = attempts[..] else { panic!("{spans:#?}") };
    assert_ne!(one.trace_id, other.trace_id);
    for span in attempts {
        assert!(span.parent_span_id.is_empty(), "{span:#?}");
        assert_eq!((hex(&span.links[0].trace_id), span.links.len()), (TRACE.to_owned(), 1));
    }
}

/// Enqueues a task in this session. Returns the trace that it keeps.
async fn kept_trace(producer: &mut sqlx::PgConnection, options: &str) -> Option<String> {
    let sql = format!("select rowlock.enqueue('mail', 'send', '{{}}'::json, '{options}')");
    let id: i64 = producer.fetch_one(AssertSqlSafe(sql)).await.unwrap().get(0);
    let sql = format!("select trace from rowlock.task where id = {id}");
    producer.fetch_one(AssertSqlSafe(sql)).await.unwrap().get(0)
}

/// Middleware sets it once for a transaction, and plain SQL stays as it is.
#[tokio::test]
async fn the_setting_holds_for_one_transaction_and_the_option_goes_first() {
    let test = TestDb::new().await;
    let mut producer = test.session().await;
    let setting = format!("begin; set local rowlock.traceparent = '{PRODUCER}'");
    producer.execute(AssertSqlSafe(setting)).await.unwrap();
    assert_eq!(kept_trace(&mut producer, "{}").await.as_deref(), Some(PRODUCER));
    let other = PRODUCER.replace("4bf9", "5bf9");
    let option = format!("{{\"traceparent\": \"{other}\"}}");
    assert_eq!(kept_trace(&mut producer, &option).await, Some(other));
    producer.execute("commit").await.unwrap();
    assert_eq!(kept_trace(&mut producer, "{}").await, None);
}

#[tokio::test]
async fn an_invalid_traceparent_is_refused_with_an_example() {
    let test = TestDb::new().await;
    for bad in [
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n",
    ] {
        let options = EnqueueOptions { traceparent: Some(bad.into()), ..EnqueueOptions::default() };
        let error = enqueue(&test.db, "mail", "send", "{}", &options).await.unwrap_err().to_string();
        assert!(error.contains("traceparent is not a W3C trace context"), "{error}");
        let mut producer = test.session().await;
        let setting = format!("set rowlock.traceparent = '{bad}'");
        producer.execute(AssertSqlSafe(setting)).await.unwrap();
        let many = "select rowlock.enqueue_many('mail', 'send', array['{}']::json[])";
        let error = producer.execute(many).await.unwrap_err().to_string();
        assert!(error.contains("traceparent is not a W3C trace context"), "{error}");
    }
}

#[tokio::test]
async fn a_collector_that_is_away_or_silent_delays_no_task_and_no_exit() {
    let (silent, _listener) = silent().await;
    for url in ["http://127.0.0.1:1", &silent] {
        let test = TestDb::new().await;
        test.enqueue_many(200).await;
        let begun = Instant::now();
        run(&test, Some(url), 200).await;
        // The exit alone waits for a second at most; the rest is the time of a loaded machine.
        assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn without_a_collector_the_handler_continues_the_producers_trace() {
    let test = TestDb::new().await;
    enqueue_traced(&test, "send").await;
    test.enqueue_many(1).await;
    let handed = run(&test, None, 2).await;
    let (continued, own): (Vec<_>, Vec<_>) = handed.into_iter().partition(|trace| trace == PRODUCER);
    assert_eq!((continued.len(), own.len()), (1, 1));
    assert!(own[0].starts_with("00-") && own[0].ends_with("-01") && own[0].len() == 55, "{own:?}");
}

/// The name and `error.type` of each span of an attempt that `stopped` stops while its handler runs.
async fn stopped_by(stopped: impl AsyncFnOnce(&TestDb, &Shutdown)) -> (ExitReason, Vec<(String, String)>) {
    let (test, collector, running) = (TestDb::new().await, Collector::start().await, Arc::new(Notify::new()));
    enqueue_traced(&test, "send").await;
    let called = Arc::clone(&running);
    let handler = move |_: Task| {
        called.notify_one();
        std::future::pending::<Result<(), Fail>>()
    };
    let worker = Worker::builder(Connect { max_connections: 2, ..test.connect() }, "mail").slots(1);
    let worker = worker.handler("send", handler).otlp_endpoint(&collector.url).unwrap().build().unwrap();
    let stop = Shutdown::new();
    let ended = tokio::spawn(worker.run(stop.clone()));
    running.notified().await;
    stopped(&test, &stop).await;
    let reason = tokio::time::timeout(PATIENCE, ended).await.expect("it ends").unwrap().unwrap();
    let spans = collector.spans();
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "{spans:#?}");
    let failed = spans.iter().filter(|span| span.status.as_ref().is_some_and(|status| status.code == 2));
    (reason, failed.map(|span| (span.name.clone(), text(&span.attributes, "error.type"))).collect())
}

#[tokio::test]
async fn an_attempt_that_its_worker_stopped_is_an_error() {
    let (reason, failed) = stopped_by(async |_, stop| stop.abort()).await;
    assert!(matches!(reason, ExitReason::Drained), "{reason:?}");
    assert_eq!(failed, [("process mail".into(), "interrupted".into())]);
}

/// Before the fix, it looked like a success.
#[tokio::test]
async fn an_attempt_that_a_fence_stopped_is_an_error() {
    let leave = "select rowlock.leave(id) from rowlock.instance";
    let (reason, failed) = stopped_by(async |test, _| test.run(leave).await).await;
    assert!(matches!(reason, ExitReason::Fenced(_)), "{reason:?}");
    assert_eq!(failed, [("process mail".into(), "interrupted".into())]);
}

/// The tracestate goes with the traceparent: from the same place, to the handler and into spans. One that is
/// none does not make a task fail.
#[tokio::test]
async fn a_tracestate_goes_with_its_traceparent() {
    let test = TestDb::new().await;
    let mut producer = test.session().await;
    let setting =
        format!("set rowlock.traceparent = '{PRODUCER}'; set rowlock.tracestate = 'shop=1,other=a b'");
    producer.execute(AssertSqlSafe(setting)).await.unwrap();
    let of_option = format!("\"traceparent\": \"{PRODUCER}\"");
    for (options, expected) in [
        ("{}", Some("shop=1,other=a b")),
        // It belongs to the other traceparent.
        (&*format!("{{{of_option}}}"), None),
        (&*format!("{{{of_option}, \"tracestate\": \"mine=2\"}}"), Some("mine=2")),
        (&*format!("{{{of_option}, \"tracestate\": \"a=\\u000a\"}}"), None),
        (&*format!("{{{of_option}, \"tracestate\": \"a={}\"}}", "x".repeat(600)), None),
    ] {
        for (call, mark) in
            [("enqueue('mail', 'send', '{}'::json", ""), ("enqueue_many('mail', 'send', '[{}]'::json", "*")]
        {
            let sql = format!("select rowlock.{call}, '{options}'::jsonb)");
            let id: i64 = producer.fetch_one(AssertSqlSafe(sql)).await.unwrap().get(0);
            let kept: String = test.one(format!("select trace from rowlock.task where id = {id}")).await;
            let state = expected.map(|state| format!(" {state}")).unwrap_or_default();
            assert_eq!(kept, format!("{mark}{PRODUCER}{state}"), "{options}");
        }
    }
    let (test, collector) = (TestDb::new().await, Collector::start().await);
    let options = EnqueueOptions {
        traceparent: Some(PRODUCER.into()),
        tracestate: Some("shop=1, other=2".into()),
        ..EnqueueOptions::default()
    };
    enqueue(&test.db, "mail", "send", "{}", &options).await.unwrap();
    run(&test, Some(&collector.url), 1).await;
    let spans = collector.spans();
    assert!(!spans.is_empty() && spans.iter().all(|span| span.trace_state == "shop=1,other=2"), "{spans:#?}");
}

/// Text, `jsonb`, null and numbers, from every function for producers.
#[tokio::test]
async fn every_call_of_a_producer_takes_a_traceparent() {
    let test = TestDb::new().await;
    let option = format!("'{{\"traceparent\": \"{PRODUCER}\"}}'");
    for (call, many) in [
        ("enqueue('mail', 'send', '{}'::json, OPTIONS::jsonb)", false),
        ("enqueue('mail', 'send', '{}'::jsonb, OPTIONS::jsonb)", false),
        ("enqueue('mail', 'send', '{}'::text, OPTIONS::text)", false),
        ("enqueue_many('mail', 'send', array['{}']::json[], OPTIONS::jsonb)", true),
        ("enqueue_many('mail', 'send', array['{}']::jsonb[], OPTIONS::jsonb)", true),
        ("enqueue_many('mail', 'send', array['{}']::text[], OPTIONS::text)", true),
    ] {
        let sql = |options: &str| format!("select rowlock.{}", call.replace("OPTIONS", options));
        let id: i64 = test.one(sql(&option)).await;
        let kept: String = test.one(format!("select trace from rowlock.task where id = {id}")).await;
        assert_eq!(kept, format!("{}{PRODUCER}", if many { "*" } else { "" }), "{call}");
        let id: i64 = test.one(sql("'{\"traceparent\": null}'")).await;
        let kept: Option<String> = test.one(format!("select trace from rowlock.task where id = {id}")).await;
        assert_eq!(kept, None, "{call}");
        let mut producer = test.session().await;
        for wrong in ["1", "[]", "\"\"", &format!("\"{}\"", "0".repeat(1_000_000))] {
            let sql = sql(&format!("'{{\"traceparent\": {wrong}}}'"));
            let error = producer.execute(AssertSqlSafe(sql)).await.unwrap_err().to_string();
            assert!(error.contains("traceparent is not a W3C trace context"), "{call}: {error}");
            assert!(error.len() < 200, "it does not quote the value");
        }
    }
}
