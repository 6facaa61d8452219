//! A TCP proxy in front of Postgres that delays answers and loses some: the server has executed the
//! statement, but the client never gets the answer.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// Statements whose answers can be lost, by the text that identifies them in a client's message.
pub(crate) const STATEMENTS: [(&str, &str); 6] = [
    ("commit", "COMMIT"),
    ("claim", "rowlock.claim("),
    ("settle", "rowlock.settle("),
    ("heartbeat", "rowlock.heartbeat("),
    ("fetch", "rowlock.fetch("),
    ("claim with payloads", "rowlock.claim_with_payloads("),
];
/// The statement after which a producer does not know the outcome of its transaction.
const COMMIT: usize = 0;
/// The statements that read payloads of claimed tasks: attempts start when one is answered.
const PAYLOADS: [usize; 2] = [4, 5];
const CHUNK: usize = 16 << 10;
/// Type and length of a message.
const HEAD: usize = 5;

#[derive(Debug, Default)]
struct Orders {
    /// How many answers of each statement are still to be lost.
    due: [AtomicU32; STATEMENTS.len()],
    lost: [AtomicU32; STATEMENTS.len()],
    /// Whether to hold back payloads, and whether some are held back.
    holds: watch::Sender<bool>,
    held: watch::Sender<bool>,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    orders: Arc<Orders>,
    accepts: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(server: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let orders = Arc::new(Orders::default());
        let shared = Arc::clone(&orders);
        let accepts = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, server, Arc::clone(&shared)));
            }
        });
        Ok(Self { port, orders, accepts })
    }

    /// Loses this many of the next answers of every statement.
    pub(crate) fn lose(&self, answers: u32) {
        for due in &self.orders.due {
            due.store(answers, Ordering::SeqCst);
        }
    }

    /// Starts or stops holding back answers with payloads.
    pub(crate) fn hold_payloads(&self, holds: bool) {
        self.orders.holds.send_replace(holds);
    }

    /// Waits until one is held back.
    pub(crate) async fn held(&self) -> Result<()> {
        self.orders.held.subscribe().wait_for(|held| *held).await?;
        Ok(())
    }

    /// Commits that succeeded but whose answer was lost.
    pub(crate) fn lost_commits(&self) -> u32 {
        self.orders.lost[COMMIT].load(Ordering::SeqCst)
    }

    /// How many answers of each statement were lost.
    pub(crate) fn lost(&self) -> Vec<(&'static str, u32)> {
        let lost = self.orders.lost.iter().map(|lost| lost.load(Ordering::SeqCst));
        STATEMENTS.iter().map(|(name, _)| *name).zip(lost).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

/// When either direction ends, both sides are closed.
async fn connection(client: TcpStream, server: u16, orders: Arc<Orders>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (asks, statement) = watch::channel(None);
    tokio::select! {
        _ = requests(from_client, to_server, asks) => (),
        _ = answers(from_server, to_client, statement, &orders) => (),
    }
}

/// Forwards what the client sends and records which statement it was.
async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    asks: watch::Sender<Option<usize>>,
) -> Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut prepared = HashMap::new();
    loop {
        let n = from.read(&mut chunk).await?;
        if n == 0 {
            return Ok(());
        }
        let answer = |text: &str| chunk[..n].windows(text.len()).any(|window| window == text.as_bytes());
        let which = || STATEMENTS.iter().position(|(_, text)| answer(text));
        match chunk[0] {
            // Parse gives a statement a name; a later Bind or Execute with that name belongs to the same
            // statement.
            b'P' => {
                prepared.insert(word(&chunk[HEAD.min(n)..n]).to_vec(), which());
                asks.send_replace(which());
            }
            // Bind names the portal (here unnamed) and the statement.
            b'B' => {
                if let Some(statement) = prepared.get(word(&chunk[(HEAD + 1).min(n)..n])) {
                    asks.send_replace(*statement);
                }
            }
            b'Q' => _ = asks.send_replace(which()),
            _ => (),
        }
        to.write_all(&chunk[..n]).await?;
    }
}

/// The text before the first NUL.
fn word(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Forwards the server's answers, up to the one to lose. There it closes the connection without
/// sending it.
async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    asked: watch::Receiver<Option<usize>>,
    orders: &Orders,
) -> Result<()> {
    let mut held = Vec::new();
    // Up to here the messages in `held` are complete and inspected.
    let mut whole = 0;
    let mut executed = false;
    let mut has_row = false;
    let mut payloads = false;
    loop {
        if from.read_buf(&mut held).await? == 0 {
            return Ok(());
        }
        while let Some(message) = message(&held[whole..]) {
            let statement = *asked.borrow();
            match message {
                // DataRow. That of a claim has no payloads if it found no task.
                [b'D', ..] => has_row |= has_payload(message),
                // CommandComplete: it was executed, not only prepared. The producer's transaction may have
                // been aborted.
                [b'C', _, _, _, _, tag @ ..] => {
                    executed = statement != Some(COMMIT) || tag.starts_with(b"COMMIT");
                }
                // ReadyForQuery, outside of a transaction: what was done is committed.
                [b'Z', .., b'I'] if executed => {
                    if let Some(statement) = statement
                        && take(&orders.due[statement])
                    {
                        orders.lost[statement].fetch_add(1, Ordering::SeqCst);
                        return Ok(());
                    }
                    payloads = has_row && statement.is_some_and(|statement| PAYLOADS.contains(&statement));
                    (executed, has_row) = (false, false);
                }
                _ => (),
            }
            whole += message.len();
        }
        // The rows of a lost answer are lost with it.
        let whole_only = asked.borrow().is_some_and(|statement| {
            let holds = PAYLOADS.contains(&statement) && *orders.holds.borrow();
            0 < orders.due[statement].load(Ordering::SeqCst) || holds
        });
        let ready = held[..whole].last_chunk::<6>().is_some_and(|last| last[0] == b'Z');
        if std::mem::take(&mut payloads) && *orders.holds.borrow() {
            orders.held.send_replace(true);
            orders.holds.subscribe().wait_for(|holds| !holds).await?;
        }
        if !whole_only || ready {
            to.write_all(&held[..whole]).await?;
            held.drain(..whole);
            whole = 0;
        }
    }
}

/// Whether the third last column of a row is not null: the payload, or the payloads of a claim.
fn has_payload(row: &[u8]) -> bool {
    let Some(columns) = row.get(HEAD..HEAD + 2) else { return false };
    let columns = usize::from(u16::from_be_bytes([columns[0], columns[1]]));
    let mut at = HEAD + 2;
    for column in 1..=columns {
        let Some(length) = row.get(at..).and_then(|rest| rest.first_chunk()) else { return false };
        let length = usize::try_from(i32::from_be_bytes(*length));
        if column + 2 == columns {
            return length.is_ok();
        }
        at += 4 + length.unwrap_or_default();
    }
    false
}

/// The first message, once it is complete.
fn message(bytes: &[u8]) -> Option<&[u8]> {
    let length = u32::from_be_bytes(bytes.get(1..HEAD)?.try_into().ok()?);
    bytes.get(..usize::try_from(length).ok()? + 1)
}

/// Takes one of the remaining answers to lose.
fn take(due: &AtomicU32) -> bool {
    due.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}
