//! How long a program takes for a scrape of its metrics.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::samples::median;

const SAMPLES: u32 = 20;
/// Between two scrapes, so that one does not find what the other has just computed.
const PAUSE: Duration = Duration::from_millis(200);

/// An address that is free at this moment.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The median time of scrapes, from the connection to the last byte, in milliseconds.
pub(crate) async fn median_ms(address: SocketAddr) -> Result<f64> {
    let mut took = Vec::new();
    for _ in 0..SAMPLES {
        sleep(PAUSE).await;
        let started = Instant::now();
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "no metrics: {}", String::from_utf8_lossy(&answer));
        took.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(median(&took))
}
