//! A fake Postgres server: a listener that a test scripts, connection by connection.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use rowlock_queue::Connect;
use rowlock_tests::TestDb;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The `SSLRequest` message.
pub(crate) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

pub(crate) struct FakeServer {
    pub(crate) port: u16,
    connections: Arc<AtomicU32>,
    accepts: JoinHandle<()>,
}

impl FakeServer {
    pub(crate) async fn start<R>(serve: impl Fn(TcpStream) -> R + Send + 'static) -> Self
    where
        R: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&connections);
        let accepts = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                seen.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream));
            }
        });
        Self { port, connections, accepts }
    }

    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> u32 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Options to connect through it to a database, which need not exist.
    pub(crate) fn connect(&self, query: &str) -> Connect {
        Connect::new(format!("postgres://app:SECRET@localhost:{}/shop{query}", self.port), "test", 1)
    }

    /// Options to connect through it to the test's database.
    pub(crate) fn connect_to(&self, test: &TestDb, query: &str) -> Connect {
        let before = format!("127.0.0.1:{}/", port_of(test));
        let url = test.connect().url.replace("localhost:", "127.0.0.1:");
        let url = url.replace(&before, &format!("localhost:{}/", self.port));
        Connect { url: url + query, max_connections: 1, ..test.connect() }
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

/// The server's port.
pub(crate) fn port_of(test: &TestDb) -> u16 {
    let url = test.connect().url;
    url.rsplit_once(':').unwrap().1.split_once('/').unwrap().0.parse().unwrap()
}

/// Reads the startup message of a client. An `SSLRequest` before it is refused.
pub(crate) async fn startup(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<Vec<u8>> {
    loop {
        let length = stream.read_u32().await?;
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        stream.read_exact(&mut body).await?;
        if body != SSL_REQUEST[4..] {
            return Ok([&length.to_be_bytes()[..], &body].concat());
        }
        stream.write_all(b"N").await?;
    }
}

/// A message from a server.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// An error message from a server.
pub(crate) fn refusal(code: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{code}\0M{text}\0\0").as_bytes())
}
