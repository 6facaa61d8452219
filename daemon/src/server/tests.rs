//! Clients that send half a request or nothing, or that read nothing.

use std::future::pending;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;

/// More than twice the limit of connections.
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

/// Reads everything until the connection ends.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A connection that is closed while we write is reset.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn unfinished_requests_do_not_block_other_clients() {
    let (address, _server) = start().await;
    let mut halves = Vec::new();
    for _ in 0..MANY {
        halves.push(connect(address, "GET /healthz HTTP/1.1\r\nx: ").await);
    }
    let asked = connect(address, "GET /healthz HTTP/1.0\r\n\r\n").await;
    let answer = timeout(Duration::from_secs(1), rest(asked)).await.expect("an answer within a second");
    assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.ends_with("ok\n"), "{answer}");
    // The first ones were closed at once, without waiting for a timeout.
    for half in halves.drain(..MANY - MAX_CONNECTIONS) {
        assert_eq!(timeout(Duration::from_secs(1), rest(half)).await.expect("it was closed"), "");
    }
}

#[tokio::test]
async fn a_busy_connection_is_not_the_one_that_is_closed() {
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

/// A probe that sends its request 20 ms after it has connected must get an answer too.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_flood_closes_only_connections_of_its_own_address() {
    let (address, _server) = start().await;
    let mut probe = connect(address, "").await;
    let mut flood = Vec::new();
    for _ in 0..MANY {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        flood.push(socket.connect(address).await.unwrap());
    }
    // The first connection of the flood has been closed, so nearly all of them have been accepted.
    assert_eq!(timeout(Duration::from_secs(1), rest(flood.remove(0))).await.expect("it was closed"), "");
    probe.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
    let answer = timeout(Duration::from_secs(1), rest(probe)).await.expect("an answer within a second");
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
}

/// The paused clock advances when all tasks sleep.
#[tokio::test(start_paused = true)]
async fn an_unfinished_head_and_an_idle_connection_time_out() {
    let (address, _server) = start().await;
    for sent in ["", "GET /healthz HTTP/1.1\r\n", "GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n"] {
        let began = Instant::now();
        rest(connect(address, sent).await).await;
        let lasted = began.elapsed();
        assert!(HEAD_TIMEOUT <= lasted && lasted < HEAD_TIMEOUT * 2, "{sent:?} lasted {lasted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_that_hangs_is_a_503() {
    let (address, _server) = start().await;
    let answer = rest(connect(address, "GET /slow HTTP/1.0\r\n\r\n").await).await;
    assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_in_times_out() {
    let (address, _server) = start().await;
    let mut drip = connect(address, "GET /healthz HTTP/1.1\r\nx: ").await;
    let began = Instant::now();
    while drip.write_all(b"x").await.is_ok() {
        sleep(Duration::from_millis(500)).await;
        assert!(began.elapsed() < HEAD_TIMEOUT * 2, "it is still taken");
    }
}

#[tokio::test]
async fn a_wildcard_address_serves_ipv4_and_ipv6() {
    let listener = bind("[::]:0".parse().unwrap()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // A machine without IPv6 has no IPv6 loopback.
    let ipv6 = TcpListener::bind("[::1]:0").await.is_ok();
    for loopback in std::iter::once("127.0.0.1").chain(ipv6.then_some("::1")) {
        TcpStream::connect((loopback, port)).await.unwrap();
    }
}

#[tokio::test]
async fn dropping_the_server_closes_open_connections() {
    let (address, server) = start().await;
    let open = connect(address, "GET /").await;
    // It has been accepted once a later connection has been answered.
    rest(connect(address, "GET /healthz HTTP/1.0\r\n\r\n").await).await;
    server.abort();
    assert_eq!(timeout(Duration::from_secs(1), rest(open)).await.expect("it was closed"), "");
}
