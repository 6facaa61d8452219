//! Kept connections that the handler closes while another request is sent.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::tests::{read_request, response, task};
use super::*;

/// A handler, its listener, and the kept connection on which it has answered a first task.
async fn kept() -> (HttpHandler, TcpListener, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let handler = HttpHandler::new(url.parse().unwrap(), 1);
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        answer(&mut stream).await;
        stream
    };
    let retry = RetryPolicy::default();
    let (stream, answer) = tokio::join!(serve, handler.call(task(), &retry));
    assert_eq!(answer, done());
    (handler, listener, stream)
}

async fn answer(stream: &mut TcpStream) -> String {
    let request = read_request(stream).await;
    stream.write_all(&response("200 OK", "", "ok")).await.unwrap();
    request
}

fn done() -> Answer {
    Answer::Done { result: Some("ok".into()) }
}

/// Calls the handler, whose server does what `serve` does, and asserts that the attempt was used.
async fn assert_broken(handler: &HttpHandler, serve: impl Future<Output = ()>) {
    let retry = RetryPolicy::default();
    let ((), answered) = tokio::join!(serve, handler.call(task(), &retry));
    assert!(matches!(answered, Answer::Broken { .. }), "{answered:?}");
}

#[tokio::test]
async fn a_request_lost_on_a_closed_kept_connection_is_sent_again() {
    let (handler, listener, mut stream) = kept().await;
    let serve = async {
        // The request arrives on a connection that the handler no longer reads.
        let swallowed = read_request(&mut stream).await;
        drop(stream);
        let (mut stream, _) = listener.accept().await.unwrap();
        (swallowed, answer(&mut stream).await)
    };
    let retry = RetryPolicy::default();
    let ((swallowed, sent), answered) = tokio::join!(serve, handler.call(task(), &retry));
    assert_eq!(answered, done());
    assert_eq!(swallowed, sent, "the same request, trace and all");
}

#[tokio::test]
async fn a_request_is_sent_again_only_once() {
    let (handler, listener, mut stream) = kept().await;
    let serve = async {
        read_request(&mut stream).await;
        drop(stream);
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
    };
    assert_broken(&handler, serve).await;
}

#[tokio::test]
async fn a_request_with_a_begun_answer_is_not_sent_again() {
    let (handler, _listener, mut stream) = kept().await;
    let serve = async {
        read_request(&mut stream).await;
        stream.write_all(b"H").await.unwrap();
        drop(stream);
    };
    assert_broken(&handler, serve).await;
}

#[tokio::test]
async fn a_request_that_ran_for_a_while_is_not_sent_again() {
    let (handler, _listener, mut stream) = kept().await;
    let serve = async {
        read_request(&mut stream).await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(2)).await;
        tokio::time::resume();
        drop(stream);
    };
    assert_broken(&handler, serve).await;
}

/// Otherwise a task that crashes its handler at once would never use up an attempt.
#[tokio::test]
async fn a_handler_that_crashed_on_the_request_has_used_the_attempt() {
    let (handler, listener, mut stream) = kept().await;
    let serve = async {
        read_request(&mut stream).await;
        drop(listener);
        drop(stream);
    };
    assert_broken(&handler, serve).await;
}
