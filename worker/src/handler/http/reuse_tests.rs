//! A kept connection that is gone just when it gets another request.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::tests::{read_request, response, task};
use super::*;

/// A handler, its listener, and the connection on which it has answered a first task.
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

#[tokio::test]
async fn what_a_kept_connection_swallowed_is_sent_again() {
    let (handler, listener, mut stream) = kept().await;
    let serve = async {
        // The request arrives where nobody looks any more.
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
async fn it_is_sent_again_once_only() {
    let (handler, listener, mut stream) = kept().await;
    let serve = async {
        read_request(&mut stream).await;
        drop(stream);
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
    };
    let retry = RetryPolicy::default();
    let ((), answered) = tokio::join!(serve, handler.call(task(), &retry));
    assert!(matches!(answered, Answer::Broken { .. }), "{answered:?}");
}

#[tokio::test]
async fn a_handler_that_began_to_answer_is_not_asked_again() {
    let (handler, _listener, mut stream) = kept().await;
    let serve = async {
        read_request(&mut stream).await;
        stream.write_all(b"H").await.unwrap();
        drop(stream);
    };
    let retry = RetryPolicy::default();
    let ((), answered) = tokio::join!(serve, handler.call(task(), &retry));
    assert!(matches!(answered, Answer::Broken { .. }), "{answered:?}");
}

#[tokio::test]
async fn a_handler_that_ended_at_work_is_not_asked_again() {
    let (handler, _listener, mut stream) = kept().await;
    let serve = async {
        read_request(&mut stream).await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(2)).await;
        tokio::time::resume();
        drop(stream);
    };
    let retry = RetryPolicy::default();
    let ((), answered) = tokio::join!(serve, handler.call(task(), &retry));
    assert!(matches!(answered, Answer::Broken { .. }), "{answered:?}");
}

/// A task that ends its handler at once would otherwise never use an attempt.
#[tokio::test]
async fn a_handler_that_is_gone_with_the_first_one_has_had_its_attempt() {
    let (handler, listener, mut stream) = kept().await;
    let serve = async {
        read_request(&mut stream).await;
        drop(listener);
        drop(stream);
    };
    let retry = RetryPolicy::default();
    let ((), answered) = tokio::join!(serve, handler.call(task(), &retry));
    assert!(matches!(answered, Answer::Broken { .. }), "{answered:?}");
}
