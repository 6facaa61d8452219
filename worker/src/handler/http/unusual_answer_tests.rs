//! Answers with many, long or folded headers, redirects, and compression.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::tests::{answer_to, check, response, task};
use super::*;

fn ok() -> Answer {
    Answer::Done { result: Some("ok".into()) }
}

#[tokio::test]
async fn an_answer_with_unusual_headers_counts_by_its_status() {
    let many = |headers: usize| (0..headers).fold(String::new(), |all, n| all + &format!("x-{n}: y\r\n"));
    let long = |bytes: usize| format!("x: {}\r\n", "y".repeat(bytes));
    // More than hyper's defaults of 100 headers or 400 kB must not fail the attempt.
    check(response("200 OK", &many(120), "ok"), ok()).await;
    check(response("200 OK", &many(250), "ok"), ok()).await;
    check(response("200 OK", &long(600_000), "ok"), ok()).await;
    check(response("200 OK", "x: a\r\n  folded\r\n", "ok"), ok()).await;
    check(response("200 OK", "no header at all\r\nx : y\r\n", "ok"), ok()).await;
    // Above the limits only the status is read.
    check(b"HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\nok".to_vec(), Answer::Done { result: None }).await;
    check(response("200 OK", &many(5000), "ok"), Answer::Done { result: None }).await;
    check(response("200 OK", &long(3_000_000), "ok"), Answer::Done { result: None }).await;
    let Answer::Final { error, .. } = answer_to(response("422 No", &many(5000), "no")).await.0 else {
        panic!("422 is final")
    };
    assert!(error.starts_with("HTTP 422: the rest of the answer cannot be read: "), "{error}");
    let (failed, _) = answer_to(response("500 Oh", &long(3_000_000), "no")).await;
    assert!(matches!(&failed, Answer::Failed { error, .. } if error.starts_with("HTTP 500: ")), "{failed:?}");
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let endless = |head: &str| [head.as_bytes(), &vec![b'x'; 8 << 20]].concat();
    check(endless("HTTP/1.1 200 OK\r\nx: "), Answer::Done { result: None }).await;
    check(endless("HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n"), Answer::Done { result: None })
        .await;
    let (failed, _) = answer_to(endless("HTTP/1.1 500 Oh\r\ncontent-length: 999999999999\r\n\r\n")).await;
    assert!(matches!(&failed, Answer::Failed { error, .. } if error.len() < 5000), "{failed:?}");
}

#[tokio::test]
async fn interim_answers_are_skipped() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000).into_bytes();
    check([interim, response("200 OK", "", "ok")].concat(), ok()).await;
}

/// Only the timeout of the attempt limits it.
#[tokio::test]
async fn an_answer_that_trickles_in_ends_with_the_attempt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let handler = HttpHandler::new(url.parse().unwrap(), 1);
    let drip = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n").await.unwrap();
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let retry = RetryPolicy::default();
    let attempt = tokio::time::timeout(Duration::from_millis(300), handler.call(task(), &retry));
    // The server's loop ends when its connection is closed.
    let ((), answer) = tokio::join!(drip, attempt);
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test]
async fn the_error_of_a_redirect_names_the_target_and_what_to_change() {
    for (to, cure) in [
        ("https://shop.example/tasks?x=1", "let the handler accept plain HTTP on its port"),
        (
            "/tasks/?x=1",
            "only a slash differs: set spec.handler.http.path, or the path of --handler-url, to /tasks/?x=1",
        ),
        (
            "http://127.0.0.1/tasks/?x=1",
            "only a slash differs: set spec.handler.http.path, or the path of --handler-url, to /tasks/?x=1",
        ),
        ("/login", "let the handler answer at /tasks?x=1 itself"),
    ] {
        let (answer, _) =
            answer_to(response("307 Elsewhere", &format!("location: {to}\r\n"), "<html>")).await;
        let Answer::Failed { error, delay: None, .. } = answer else { panic!("{answer:?}") };
        let expected = format!("HTTP 307: it redirects to {to}, and redirects are not followed; ");
        assert!(error.starts_with(&expected) && error.contains(cure), "{error}");
    }
    check(response("304 Not Modified", "", ""), Answer::failed("HTTP 304")).await;
}

#[tokio::test]
async fn a_compressed_answer_is_not_kept_as_garbled_text() {
    let gzip = "content-encoding: gzip\r\n";
    check(response("200 OK", gzip, "\u{1f}\u{8b}garbled"), Answer::Done { result: None }).await;
    let expected = "HTTP 500: the body is compressed (gzip) and cannot be read";
    check(response("500 Oh", gzip, "\u{1f}\u{8b}garbled"), Answer::failed_by(Reason::Http5xx, expected))
        .await;
    check(response("200 OK", "content-encoding: identity\r\n", "ok"), ok()).await;
}
