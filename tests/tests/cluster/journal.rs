//! Reports of running handlers: tests/cluster/handler sends each event before it continues.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs::File, io::Write, net::SocketAddr};

use anyhow::Result;
use rowlock_tests::history::Event;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::pod_network::PodNetwork;

/// Within this time a handler that reconnects has announced it.
const REOPENED: Duration = Duration::from_secs(1);

/// Appends events to a file.
#[derive(Debug, Clone)]
pub(crate) struct Notes {
    file: Arc<Mutex<File>>,
    pub(crate) path: PathBuf,
    /// Events of handlers, to recognize repeated ones.
    recorded: Arc<Mutex<HashSet<String>>>,
    /// The number of connections that each handler has opened.
    opened: Arc<Mutex<HashMap<u32, u32>>>,
}

impl Notes {
    fn open(path: &Path) -> Result<Self> {
        let file = Arc::new(Mutex::new(File::create(path)?));
        Ok(Self { file, path: path.to_owned(), recorded: Arc::default(), opened: Arc::default() })
    }

    pub(crate) fn note(&self, event: &Event) {
        self.line(&serde_json::to_string(event).unwrap());
    }

    fn line_once(&self, line: &str) {
        if lock(&self.recorded).insert(line.to_owned()) {
            self.line(line);
        }
    }

    /// The number of a handler's connection.
    fn open_connection(&self, handler: u32) -> u32 {
        let mut opened = lock(&self.opened);
        let count = opened.entry(handler).or_default();
        *count += 1;
        *count
    }

    fn line(&self, line: &str) {
        let mut file = lock(&self.file);
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nanoseconds of the clock that all handlers on this machine share.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A running journal.
pub(crate) struct Journal {
    pub(crate) notes: Notes,
    pub(crate) at: SocketAddr,
}

/// The first line of a handler's connection.
#[derive(Deserialize)]
struct Hello {
    handler: u32,
}

impl Journal {
    pub(crate) fn start(pod_network: &PodNetwork, path: &Path) -> Result<Self> {
        let notes = Notes::open(path)?;
        let at = accept(pod_network, &notes)?;
        Ok(Self { notes, at })
    }

    /// The address for handlers of another cluster.
    pub(crate) fn reached_from(&self, pod_network: &PodNetwork) -> Result<SocketAddr> {
        accept(pod_network, &self.notes)
    }
}

/// Records the events of handlers until the test ends.
fn accept(pod_network: &PodNetwork, notes: &Notes) -> Result<SocketAddr> {
    let (listener, at) = pod_network.listen()?;
    let notes = notes.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(take(stream, notes.clone()));
        }
    });
    Ok(at)
}

async fn take(stream: TcpStream, notes: Notes) -> Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut lines = BufReader::new(reading).lines();
    let Some(first) = lines.next_line().await? else { return Ok(()) };
    let hello: Hello = serde_json::from_str(&first)?;
    let connection = notes.open_connection(hello.handler);
    while let Ok(Some(line)) = lines.next_line().await {
        notes.line_once(&line);
        if writing.write_all(b".").await.is_err() {
            break;
        }
    }
    let at = now();
    // A handler that reconnects opens another connection before it closes this one; otherwise its process has
    // ended.
    tokio::time::sleep(REOPENED).await;
    if lock(&notes.opened).get(&hello.handler) == Some(&connection) {
        notes.note(&Event::HandlerEnded { handler: hello.handler, at });
    }
    Ok(())
}
