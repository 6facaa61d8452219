//! A connection from the first look at its hosts to the last word.

use std::{
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    Connect, Target, UrlTrust,
    dial::{Address, Dialed, Encryption, dial, resolve},
    fault::Fault,
    forwarder::Forwarder,
    panic_guard::{Answer, catch_panic},
    relay::{LocalSocket, PORT, Start, StartedSession},
    target::Host,
    turns::Asked,
    values::Servers,
};
use crate::{Error, QueueId, db::STATEMENT_TIMEOUT};

/// All hosts together have this long to answer, less than a statement: what is wrong with the connection is
/// told, not only that the statement took too long.
pub(crate) const CONNECT_LONGEST: Duration = Duration::from_millis(4500);
/// And each of several at least this long.
const HOST_SHORTEST: Duration = Duration::from_secs(1);

/// How often a server asks whether the client of a running statement is still there. Off by default; on
/// Windows, and with `PostgreSQL` 14 on anything but Linux, it cannot be on, and says so.
const DETECT_DISCONNECT: &str = "-c client_connection_check_interval=1s";
/// Whether sessions are ours alone: a pooler refuses or forgets it, and a server keeps it. The isolation level
/// that the verbs need. And what is not qualified is Postgres' own: a login that may create functions and
/// operators in `public` would run code as us otherwise, since an exact match there is taken before one in
/// `pg_catalog` that needs a cast.
const DIRECT: &str = "-c rowlock.direct=on -c default_transaction_isolation=read\\ committed -c search_path=pg_catalog,pg_temp";
/// For the listener, a little later than for us: a server that does not notice who hangs up would go on with the
/// statement that was given up.
const GIVEN_UP: &str = "-c statement_timeout=6s";

/// Notifications that may wait to be received; more are not needed, since the poll finds what they are for.
const NOTIFICATIONS: usize = 256;

/// What a session is told at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionMode {
    /// Nothing: a pooler refuses what it does not know.
    Pooled,
    /// That it is ours alone.
    Direct,
    /// Also to notice who hangs up, as we do with a statement that is given up: a backend that waits for a
    /// lock would notice only after it, and another one every five seconds would soon be more than the server
    /// lets in.
    DetectDisconnect,
}

impl SessionMode {
    fn options(self, listens: bool) -> Option<String> {
        let parts: &[&str] = match self {
            Self::Pooled => return None,
            Self::Direct => &[DIRECT],
            Self::DetectDisconnect => &[DIRECT, DETECT_DISCONNECT],
        };
        let given_up = listens.then_some(GIVEN_UP);
        Some(parts.iter().copied().chain(given_up).collect::<Vec<_>>().join(" "))
    }
}

/// How connections are made.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    pub(crate) target: Arc<Target>,
    pub(crate) mode: SessionMode,
    application_name: Arc<str>,
    /// Whether notifications are to be received.
    listens: bool,
    /// The host that answered last, and is asked first: the others may be standbys.
    last: Arc<AtomicUsize>,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Session {
    connection: PgConnection,
    forwarder: Forwarder,
    trust: UrlTrust,
    /// Tells the forwarder that a question of ours begins.
    asked: Arc<Asked>,
    fault: Arc<OnceLock<String>>,
    /// Where it listens: notifications, until the connection is lost.
    pub(crate) notifications: mpsc::Receiver<QueueId>,
}

impl Session {
    /// Says goodbye, and waits until the server has been told.
    pub(crate) async fn close(mut self) {
        let _ = self.forwarder.run_with(self.connection.close()).await;
        self.forwarder.end().await;
    }

    /// One statement.
    pub(crate) async fn ask<T: Answer>(
        &mut self,
        asked: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        let Self { connection, forwarder, trust, .. } = self;
        let asked = async {
            let answer = asked(connection).await?;
            if *trust == UrlTrust::Tenant {
                answer.decode_all()?;
            }
            Ok(answer)
        };
        self.asked.begin(true);
        let answer = forwarder.run_with(catch_panic(asked)).await;
        self.asked.end(answer.is_ok());
        answer
    }

    /// For many statements, or for what is said without being asked: from now on a task passes on the bytes.
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        self.asked.begin(false);
        self.forwarder.away();
        &mut self.connection
    }

    /// Why a statement failed: what the relay broke the connection off for, if it did.
    pub(crate) fn error_at(&self, place: &str, error: sqlx::Error) -> Error {
        self.fault().unwrap_or_else(|| Error::at(place, error))
    }

    /// Why the relay broke it off, if it did.
    pub(crate) fn fault(&self) -> Option<Error> {
        self.fault.get().map(|why| Error::Unreachable(why.clone()))
    }
}

/// Why there is no connection, and what may be tried instead.
#[derive(Debug)]
pub(crate) struct DialError {
    pub(crate) error: Error,
    /// It was refused before anything was asked: with TLS, or without, it may not be.
    next_way: bool,
    /// The server, or what stands before it, does not take what it was told at the start.
    pub(crate) options: bool,
}

impl From<Error> for DialError {
    fn from(error: Error) -> Self {
        Self { error, next_way: false, options: false }
    }
}

impl From<DialError> for Error {
    fn from(failed: DialError) -> Self {
        failed.error
    }
}

impl DialError {
    fn of_relay(fault: Fault, place: &str) -> Self {
        let next_way = matches!(fault, Fault::Tls(_));
        Self { next_way, ..fault.at(place).into() }
    }

    fn of_sqlx(error: sqlx::Error, place: &str, asked: bool) -> Self {
        let options = rejects_options(&error);
        Self { error: Error::at_start(place, error), next_way: !asked, options }
    }

    /// Whether another host may do better: one that refuses the login says something of us.
    fn is_next(&self) -> bool {
        matches!(self.error, Error::Unreachable(_) | Error::ReadOnly(_) | Error::Tls(_) | Error::Timeout)
    }
}

/// Poolers and proxies refuse `options` each in its own way; a server refuses one that it cannot have. Wrong
/// logins, a database that is not there, too many connections and a server that starts or stops are something
/// else.
fn rejects_options(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(refusal) = error else { return false };
    let code = refusal.code().unwrap_or_default();
    let else_wrong = ["28", "3D", "53", "57"].iter().any(|class| code.starts_with(class));
    let said = refusal.message().to_lowercase();
    let says_so = ["option", "startup parameter"].iter().any(|words| said.contains(words));
    !else_wrong && (["08P01", "0A000", "22023"].contains(&code.as_ref()) || says_so)
}

impl Connector {
    pub(crate) fn new(connect: &Connect, mode: SessionMode) -> crate::Result<Self> {
        let target = Arc::new(connect.target()?);
        target.check_ca()?;
        let application_name = connect.application_name.as_str().into();
        Ok(Self { target, mode, application_name, listens: false, last: Arc::default() })
    }

    /// For a connection on which notifications are received.
    pub(crate) fn listening(self) -> Self {
        Self { listens: true, ..self }
    }

    pub(crate) fn with(&self, mode: SessionMode) -> Self {
        Self { mode, ..self.clone() }
    }

    /// `HOST:PORT/DATABASE`.
    pub(crate) fn place(&self) -> String {
        self.target.place()
    }

    /// Connects to the first host that will do, within [`CONNECT_LONGEST`].
    pub(crate) async fn connect(&self) -> Result<Session, DialError> {
        match self.target.servers {
            Servers::PreferStandby => match self.first_of(Servers::Standby).await {
                Err(failed) if failed.is_next() => self.first_of(Servers::Any).await,
                answer => answer,
            },
            servers => self.first_of(servers).await,
        }
    }

    async fn first_of(&self, servers: Servers) -> Result<Session, DialError> {
        let hosts = &self.target.hosts;
        let deadline = Instant::now() + CONNECT_LONGEST;
        let first = self.last.load(Ordering::Relaxed);
        let mut all: Vec<DialError> = Vec::new();
        for step in 0..hosts.len() {
            let at = (first + step) % hosts.len();
            let others = u32::try_from(hosts.len() - step).unwrap_or(u32::MAX);
            let share = (deadline.saturating_duration_since(Instant::now()) / others).max(HOST_SHORTEST);
            let patience = self.target.connect_timeout.map_or(share, |asked| asked.min(share));
            match self.at_host(&hosts[at], servers, patience).await {
                Err(failed) if failed.is_next() => all.push(failed),
                answer => {
                    self.last.store(at, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(together(all))
    }

    /// The addresses of one host, one after the other.
    async fn at_host(&self, host: &Host, servers: Servers, patience: Duration) -> Result<Session, DialError> {
        let place = self.target.place_of(host);
        let late =
            || DialError::from(Error::Unreachable(format!("{place}: no answer within {patience:.1?}")));
        let tried = async {
            let of_relay = |fault| DialError::of_relay(fault, &place);
            let addresses = resolve(&self.target, host, patience * 9 / 10).await.map_err(of_relay)?;
            let share = patience / u32::try_from(addresses.len().max(1)).unwrap_or(1);
            let mut last = None;
            for address in &addresses {
                match self.at_address(host, address, servers, share).await {
                    Err(failed) if failed.is_next() => last = Some(failed),
                    answer => return answer,
                }
            }
            Err(last.unwrap_or_else(late))
        };
        timeout(patience, tried).await.unwrap_or_else(|_| Err(late()))
    }

    /// Encrypted or not, as `sslmode` allows.
    async fn at_address(
        &self,
        host: &Host,
        address: &Address,
        servers: Servers,
        patience: Duration,
    ) -> Result<Session, DialError> {
        let ways = match address {
            Address::Unix(_) => &[Encryption::Plain],
            Address::Tcp(_) => self.target.tls.mode.ways(),
        };
        let mut refused = None;
        for way in ways {
            // Boxed: what sqlx keeps would swell every caller.
            match Box::pin(self.attempt(host, address, servers, *way, patience)).await {
                Err(failed) if failed.next_way => _ = refused.get_or_insert(failed),
                answer => return answer,
            }
        }
        Err(refused.unwrap_or_else(|| Error::Timeout.into()))
    }

    /// One connection, from the first byte until it is ready.
    async fn attempt(
        &self,
        host: &Host,
        address: &Address,
        servers: Servers,
        way: Encryption,
        patience: Duration,
    ) -> Result<Session, DialError> {
        let place = self.target.place_of(host);
        let of_relay = |fault| DialError::of_relay(fault, &place);
        let dialed = dial(&self.target, host, address, way, patience).await.map_err(of_relay)?;
        self.begin(dialed, servers, place).await
    }

    /// On a connection that is there.
    pub(super) async fn begin(
        &self,
        dialed: Dialed,
        servers: Servers,
        place: String,
    ) -> Result<Session, DialError> {
        let of_relay = |fault| DialError::of_relay(fault, &place);
        let socket = LocalSocket::open().map_err(of_relay)?;
        let options = self.of_sqlx(&socket.folder);
        let mode = self.mode.options(self.listens);
        let start = Start {
            target: &self.target,
            options: mode.as_deref(),
            application_name: &self.application_name,
            servers,
        };
        let mut sqlx = pin!(catch_panic(PgConnection::connect_with(&options)));
        let mut start = pin!(start.run(socket, dialed));
        let mut connection = None;
        let started = loop {
            tokio::select! {
                biased;
                started = &mut start => break started,
                // It may hear that the server is ready a moment before the relay has noted that it said so.
                ended = &mut sqlx, if connection.is_none() => match ended {
                    Ok(ready) => connection = Some(ready),
                    Err(error) => return Err(DialError::of_sqlx(error, &place, true)),
                },
            }
        };
        let started = match started {
            Ok(started) => started,
            Err(Fault::Refused { asked }) => {
                let said = sqlx.await.err().unwrap_or(sqlx::Error::PoolClosed);
                return Err(DialError::of_sqlx(said, &place, asked));
            }
            Err(fault) => return Err(of_relay(fault)),
        };
        let connection = match connection {
            Some(ready) => ready,
            None => sqlx.await.map_err(|error| DialError::of_sqlx(error, &place, true))?,
        };
        self.session(connection, started, &place)
    }

    /// For sqlx, which speaks to our local socket alone. It fills in from the environment what is not said; none of
    /// that leaves this process.
    fn of_sqlx(&self, folder: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(folder)
            .port(PORT)
            .ssl_mode(PgSslMode::Disable)
            .username(&self.target.user)
            .password(self.target.password.as_deref().unwrap_or_default())
            .database(&self.target.database)
    }

    fn session(
        &self,
        connection: PgConnection,
        started: StartedSession,
        place: &str,
    ) -> Result<Session, DialError> {
        let (send, notifications) = mpsc::channel(NOTIFICATIONS);
        let listens = self.listens.then_some(send);
        let fault = Arc::new(OnceLock::new());
        let told = Arc::clone(&fault);
        let (trust, asked) = (self.target.trust, started.asked());
        let at = place.to_owned();
        let broken = Box::new(move |found: Fault| {
            let _ = told.set(found.at(&at).to_string());
        });
        let flow = started.flow(listens, broken).map_err(|fault| DialError::of_relay(fault, place))?;
        Ok(Session { connection, forwarder: Forwarder::here(flow), trust, asked, fault, notifications })
    }
}

/// What all hosts said. That one of them could be reached, and takes no writes, is what counts.
fn together(mut all: Vec<DialError>) -> DialError {
    if all.len() == 1 {
        return all.remove(0);
    }
    let text = all.iter().map(|failed| failed.error.to_string()).collect::<Vec<_>>().join("; ");
    let options = all.iter().any(|failed| failed.options);
    let error = if all.iter().any(|failed| matches!(failed.error, Error::ReadOnly(_))) {
        Error::ReadOnly(text)
    } else if all.iter().all(|failed| matches!(failed.error, Error::Tls(_))) {
        Error::Tls(text)
    } else {
        Error::Unreachable(text)
    };
    DialError { options, ..error.into() }
}

/// Longer than a connect takes, and no longer than a statement may.
const _: () = assert!(CONNECT_LONGEST.as_millis() < STATEMENT_TIMEOUT.as_millis());
