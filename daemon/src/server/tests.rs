//! Against clients that send half a request, nothing, or read nothing.

use std::future::pending;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;

/// More than twice what is admitted.
const MANY: usize = 80;

async fn start() -> (SocketAddr, JoinHandle<Infallible>) {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let pages = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/slow", get(async || pending::<&'static str>().await));
    (address, tokio::spawn(serve(listener, pages)))
}

async fn connect(address: SocketAddr, sent: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    stream
}

/// Everything until the end of the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A connection that was closed while we wrote is reset.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn half_requests_without_end_keep_nobody_from_an_answer() {
    let (address, _server) = start().await;
    let mut halves = Vec::new();
    for _ in 0..MANY {
        halves.push(connect(address, "GET /healthz HTTP/1.1\r\nx: ").await);
    }
    let asked = connect(address, "GET /healthz HTTP/1.0\r\n\r\n").await;
    let answer = timeout(Duration::from_secs(1), rest(asked)).await.expect("an answer within a second");
    assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.ends_with("ok\n"), "{answer}");
    // The first ones gave way at once, without waiting for any time-out.
    for half in halves.drain(..MANY - MAX_CONNECTIONS) {
        assert_eq!(timeout(Duration::from_secs(1), rest(half)).await.expect("it was closed"), "");
    }
}

#[tokio::test]
async fn a_connection_that_asks_again_and_again_is_not_the_one_that_gives_way() {
    let (address, _server) = start().await;
    let mut lively = connect(address, "").await;
    for _ in 0..MANY {
        connect(address, "GET /").await;
        lively.write_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok\n") {
            assert_ne!(lively.read_buf(&mut answer).await.unwrap(), 0, "it was closed");
        }
    }
}

/// Before this was mended, probes that sent their request 20 ms after they had connected were all closed.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn who_floods_the_port_closes_its_own_connections_and_not_those_of_others() {
    let (address, _server) = start().await;
    let mut probe = connect(address, "").await;
    let mut flood = Vec::new();
    for _ in 0..MANY {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        flood.push(socket.connect(address).await.unwrap());
    }
    // The first of the flood has been closed, so all of it has been admitted, or nearly.
    assert_eq!(timeout(Duration::from_secs(1), rest(flood.remove(0))).await.expect("it was closed"), "");
    probe.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
    let answer = timeout(Duration::from_secs(1), rest(probe)).await.expect("an answer within a second");
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
}

/// Time runs by itself where all sleep.
#[tokio::test(start_paused = true)]
async fn half_a_head_and_silence_between_requests_have_their_time() {
    let (address, _server) = start().await;
    for sent in ["", "GET /healthz HTTP/1.1\r\n", "GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n"] {
        let began = Instant::now();
        rest(connect(address, sent).await).await;
        let lasted = began.elapsed();
        assert!(HEAD_TIMEOUT <= lasted && lasted < HEAD_TIMEOUT * 2, "{sent:?} lasted {lasted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_not_made_in_time_is_an_error_of_ours() {
    let (address, _server) = start().await;
    let answer = rest(connect(address, "GET /slow HTTP/1.0\r\n\r\n").await).await;
    assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_head_in_drops_is_cut_off() {
    let (address, _server) = start().await;
    let mut drip = connect(address, "GET /healthz HTTP/1.1\r\nx: ").await;
    let began = Instant::now();
    while drip.write_all(b"x").await.is_ok() {
        sleep(Duration::from_millis(500)).await;
        assert!(began.elapsed() < HEAD_TIMEOUT * 2, "it is still taken");
    }
}

#[tokio::test]
async fn every_address_is_one_of_both_families() {
    let listener = bind("[::]:0".parse().unwrap()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // A machine without IPv6 has no loopback of that family either.
    let ipv6 = TcpListener::bind("[::1]:0").await.is_ok();
    for loopback in std::iter::once("127.0.0.1").chain(ipv6.then_some("::1")) {
        TcpStream::connect((loopback, port)).await.unwrap();
    }
}

#[tokio::test]
async fn its_end_closes_what_is_open() {
    let (address, server) = start().await;
    let open = connect(address, "GET /").await;
    // It is admitted once another one behind it was answered.
    rest(connect(address, "GET /healthz HTTP/1.0\r\n\r\n").await).await;
    server.abort();
    assert_eq!(timeout(Duration::from_secs(1), rest(open)).await.expect("it was closed"), "");
}
