//! What handlers say they do, as it comes: tests/cluster/handler tells each event before it goes on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs::File, io::Write, net::SocketAddr};

use anyhow::Result;
use rowlock_tests::history::Event;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::lan::Lan;

/// Appends events to a file.
#[derive(Debug, Clone)]
pub(crate) struct Notes {
    file: Arc<Mutex<File>>,
    pub(crate) path: PathBuf,
}

impl Notes {
    fn open(path: &Path) -> Result<Self> {
        let file = Arc::new(Mutex::new(File::create(path)?));
        Ok(Self { file, path: path.to_owned() })
    }

    pub(crate) fn note(&self, event: &Event) {
        self.line(&serde_json::to_string(event).unwrap());
    }

    fn line(&self, line: &str) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// Nanoseconds of the clock that handlers on this machine share.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A running journal.
pub(crate) struct Journal {
    pub(crate) notes: Notes,
    pub(crate) at: SocketAddr,
    accepting: JoinHandle<()>,
}

/// The first line of a handler's connection.
#[derive(Deserialize)]
struct Hello {
    handler: u32,
}

impl Journal {
    pub(crate) fn start(lan: &Lan, path: &Path) -> Result<Self> {
        let notes = Notes::open(path)?;
        let (listener, at) = lan.listen()?;
        let taken = notes.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(take(stream, taken.clone()));
            }
        });
        Ok(Self { notes, at, accepting })
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn take(stream: TcpStream, notes: Notes) -> Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let Some(first) = lines.next_line().await? else { return Ok(()) };
    let hello: Hello = serde_json::from_str(&first)?;
    while let Ok(Some(line)) = lines.next_line().await {
        notes.line(&line);
    }
    // Its process has ended, or else it would write on.
    notes.note(&Event::HandlerEnded { handler: hello.handler, at: now() });
    Ok(())
}
