//! Whether an instance can run tasks, as its `/readyz` says.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a worker may take to answer: it is on this machine, and answers without calling another program.
const PATIENCE: Duration = Duration::from_millis(500);

const REQUEST: &[u8] = b"GET /readyz HTTP/1.0\r\n\r\n";

/// How the answer of a ready worker begins.
const READY: &[u8; 12] = b"HTTP/1.0 200";

pub(super) async fn is_ready(port: u16) -> bool {
    matches!(timeout(PATIENCE, ask(port)).await, Ok(Ok(true)))
}

async fn ask(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(REQUEST).await?;
    let mut start = [0; READY.len()];
    stream.read_exact(&mut start).await?;
    Ok(&start == READY)
}
