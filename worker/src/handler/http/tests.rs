//! The HTTP handler against a TCP server that sends the bytes of each test.

use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

pub(super) fn task() -> Task {
    Task {
        id: "200000000000000007".parse().unwrap(),
        task_type: "send mail".into(),
        queue: "emails".into(),
        payload: "{\"to\":  1}".into(),
        attempt: 2,
        max_attempts: 6,
        enqueued_at: SystemTime::UNIX_EPOCH,
        deadline: SystemTime::UNIX_EPOCH,
        fencing_token: rowlock_queue::Token(42),
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
        tracestate: "shop=1".into(),
    }
}

/// Reads a complete request: the head, and a body of the announced length.
pub(super) async fn read_request(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
            if length.map_or(0, |l| l.parse().unwrap()) <= body.len() {
                return text;
            }
        }
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "the client closed the connection");
    }
}

pub(super) async fn answer_to(bytes: Vec<u8>) -> (Answer, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/tasks?x=1", listener.local_addr().unwrap());
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_request(&mut stream).await;
        // The client may close the connection once it has read enough.
        let _ = stream.write_all(&bytes).await;
        request
    };
    let handler = HttpHandler::new(url.parse().unwrap(), 2);
    let retry = RetryPolicy::default();
    let (answer, request) = tokio::join!(handler.call(task(), &retry), serve);
    (answer, request)
}

pub(super) fn response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

pub(super) async fn check(bytes: Vec<u8>, expected: Answer) {
    assert_eq!(answer_to(bytes).await.0, expected);
}

async fn check_retry(bytes: Vec<u8>, named: &str) {
    match answer_to(bytes).await.0 {
        Answer::Failed { error, delay: None, .. } | Answer::Broken { error } => {
            assert!(error.contains(named), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_request_carries_payload_and_headers() {
    let (answer, request) = answer_to(response("204 No Content", "", "")).await;
    assert_eq!(answer, Answer::Done { result: None });
    assert!(request.starts_with("POST /tasks?x=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"to\":  1}"), "{request}");
    for line in [
        "content-type: application/json",
        "accept-encoding: identity",
        "ce-specversion: 1.0",
        "ce-id: 200000000000000007",
        "ce-type: send%20mail",
        "ce-source: /rowlock/emails",
        "ce-time: 1970-01-01T00:00:00.000Z",
        "idempotency-key: 200000000000000007",
        "rowlock-queue: emails",
        "rowlock-attempt: 2",
        "rowlock-max-attempts: 6",
        "rowlock-deadline: 1970-01-01T00:00:00.000Z",
        "rowlock-fencing-token: 42",
        "traceparent: 00-",
        "tracestate: shop=1",
    ] {
        assert!(request.contains(&format!("\r\n{line}")), "{line} is not in {request}");
    }
}

#[tokio::test]
async fn success_is_done_with_the_body_as_result() {
    check(response("200 OK", "", "{\"n\":1}"), Answer::Done { result: Some("{\"n\":1}".into()) }).await;
    check(response("201 Created", "", "a\0b"), Answer::Done { result: Some("ab".into()) }).await;
}

#[tokio::test]
async fn a_result_above_the_limit_completes_the_task_without_it() {
    let ten_mebibytes = "x".repeat(10 * 1024 * 1024);
    check(response("200 OK", "", &ten_mebibytes), Answer::Done { result: None }).await;
    let exact = "x".repeat(crate::handler::outcome::RESULT_MAX);
    check(response("200 OK", "", &exact), Answer::Done { result: Some(exact.clone()) }).await;
}

#[tokio::test]
async fn a_huge_error_page_is_cut() {
    let Answer::Failed { error, .. } = answer_to(response("500 Oh", "", &"x".repeat(10 << 20))).await.0
    else {
        panic!("not a retry")
    };
    assert!(error.len() < 5000, "{}", error.len());
}

#[tokio::test]
async fn only_429_and_503_with_retry_after_snooze() {
    let snooze = |seconds| Answer::Snooze { delay: Duration::from_secs(seconds) };
    check(response("503 Busy", "retry-after: 7\r\n", ""), snooze(7)).await;
    check(response("429 Slow", "retry-after: 9999999\r\n", ""), snooze(86_400)).await;
    check(response("429 Slow", "retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n", ""), snooze(0)).await;
    check(response("503 Busy", "", ""), Answer::failed_by(Reason::Http5xx, "HTTP 503")).await;
    check(response("500 Oh", "retry-after: 7\r\n", ""), Answer::failed_by(Reason::Http5xx, "HTTP 500")).await;
}

#[tokio::test]
async fn a_final_status_is_dead_with_the_body_as_reason() {
    let body = response("422 No", "", "no such user");
    check(body, Answer::Final { error: "HTTP 422: no such user".into(), reason: Reason::Http4xx }).await;
}

#[tokio::test]
async fn broken_answers_are_retried_and_the_error_says_what_happened() {
    check_retry(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec(), "the connection broke").await;
    check_retry(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        "the connection broke",
    )
    .await;
    check_retry(b"HTTP/1.1 200".to_vec(), "no complete answer").await;
    check_retry(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(), "no complete answer").await;
    check_retry(Vec::new(), "no complete answer").await;
}

#[tokio::test]
async fn a_refused_connection_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let handler = HttpHandler::new(url.parse().unwrap(), 1);
    let answer = handler.call(task(), &RetryPolicy::default()).await;
    assert!(matches!(answer, Answer::Unreachable { .. }), "{answer:?}");
}

#[tokio::test]
async fn a_timeout_closes_the_connection_to_a_silent_handler() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let handler = HttpHandler::new(url.parse().unwrap(), 1);
    let retry = RetryPolicy::default();
    let call = handler.call(task(), &retry);
    let silent = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream
    };
    // The request has arrived and gets no answer. The future of the call is dropped, as a timeout does.
    let mut stream = tokio::select! {
        answer = call => panic!("{answer:?}"),
        stream = silent => stream,
    };
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).await.unwrap_or(0), 0, "the client must close the connection");
}

#[tokio::test]
async fn the_connection_is_kept_for_the_next_task() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let handler = HttpHandler::new(url.parse().unwrap(), 1);
    let retry = RetryPolicy::default();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..2 {
            read_request(&mut stream).await;
            stream.write_all(&response("200 OK", "", "ok")).await.unwrap();
        }
    };
    let calls = async {
        for _ in 0..2 {
            assert_eq!(handler.call(task(), &retry).await, Answer::Done { result: Some("ok".into()) });
        }
    };
    tokio::join!(serve, calls);
}

#[tokio::test]
async fn a_kept_connection_that_the_handler_closed_costs_no_attempt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let handler = HttpHandler::new(url.parse().unwrap(), 1);
    let retry = RetryPolicy::default();
    for _ in 0..3 {
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream.write_all(&response("200 OK", "", "ok")).await.unwrap();
        };
        let (_closed, answer) = tokio::join!(serve, handler.call(task(), &retry));
        assert_eq!(answer, Answer::Done { result: Some("ok".into()) });
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let handler = HttpHandler::new(url.parse().unwrap(), 1);
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(&response("200 OK", "", "ok")).await.unwrap();
        stream
    };
    let retry = RetryPolicy::default();
    let (mut stream, answer) = tokio::join!(serve, handler.call(task(), &retry));
    assert_eq!(answer, Answer::Done { result: Some("ok".into()) });
    let mut rest = Vec::new();
    tokio::select! {
        () = handler.connections.expire() => (),
        read = stream.read_to_end(&mut rest) => assert_eq!(read.unwrap(), 0),
    }
}
