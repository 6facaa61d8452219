//! Finds out whether a server accepts connections, by a start-up message, which needs no password.

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Version 3.0 of the protocol, which all supported servers speak.
const PROTOCOL: i32 = 196_608;

/// The first byte of the answer of a server that accepts connections: a request for authentication.
const AUTHENTICATION: u8 = b'R';

pub(super) enum Answer {
    /// It takes connections.
    Ready,
    /// It refuses the connection: it is starting up, recovering or shutting down.
    Starting,
    /// It does not answer.
    Silent,
}

pub(super) async fn probe(port: u16) -> Answer {
    match timeout(PATIENCE, ask(port)).await {
        Ok(Ok(AUTHENTICATION)) => Answer::Ready,
        Ok(Ok(_)) => Answer::Starting,
        Ok(Err(_)) | Err(_) => Answer::Silent,
    }
}

async fn ask(port: u16) -> std::io::Result<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let parameters = b"user\0rowlock\0database\0postgres\0\0";
    let length = i32::try_from(parameters.len() + 8).map_err(std::io::Error::other)?;
    let mut message = length.to_be_bytes().to_vec();
    message.extend(PROTOCOL.to_be_bytes());
    message.extend(parameters);
    stream.write_all(&message).await?;
    stream.read_u8().await
}
