//! A session with the server: connecting to one of the hosts, queries, closing.

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
    answer_permits::QueryState,
    dial::{Address, Dialed, Encryption, dial, resolve},
    dial_error::{DialError, combine},
    fault::Fault,
    forwarder::Forwarder,
    options::{Connect, UrlTrust},
    panic_guard::{Answer, catch_panic},
    startup::{LocalSocket, PORT, StartedSession, Startup},
    target::{Host, Target},
    values::Servers,
};
use crate::{Error, QueueId, timeouts::STATEMENT_TIMEOUT};

/// How long connecting to all hosts together may take. It is shorter than the time for a statement, so that
/// the error describes the problem with the connection and not only a slow statement.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(4500);
/// Each of several hosts gets at least this long.
const HOST_TIMEOUT_SHORTEST: Duration = Duration::from_secs(1);

/// How often the server checks whether the client of a running statement is still connected. It is off by
/// default. A server that does not support it (on Windows, or Postgres 14 on anything but Linux) refuses the
/// option.
const DETECT_DISCONNECT: &str = "-c client_connection_check_interval=1s";
/// `rowlock.direct` detects a pooler: a pooler refuses or drops the setting, and a server keeps it. The
/// isolation level is the one that our functions need. The search path leaves out `public`: a login that may
/// create functions or operators there could run code as this user, because Postgres prefers an exact match
/// in any schema over one in `pg_catalog` that needs a cast.
const DIRECT: &str = "-c rowlock.direct=on -c default_transaction_isolation=read\\ committed \
     -c search_path=pg_catalog,pg_temp";
/// Ends an abandoned statement of the listener even if the server does not notice that the client has
/// disconnected. A little longer than our own timeout.
const SERVER_TIMEOUT: &str = "-c statement_timeout=6s";

/// How many notifications may wait to be received. More may be dropped, because the poll finds the tasks too.
const NOTIFICATIONS: usize = 256;

/// The options of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionMode {
    /// None, because a pooler refuses options that it does not know.
    Pooled,
    /// [`DIRECT`]: for a session that no pooler shares.
    Direct,
    /// Also [`DETECT_DISCONNECT`]: we disconnect when a statement takes too long. Without it, a backend that
    /// waits for a lock would stay. One more every five seconds would soon use up all connections.
    DetectDisconnect,
}

impl SessionMode {
    fn options(self, listens: bool) -> Option<String> {
        let parts: &[&str] = match self {
            Self::Pooled => return None,
            Self::Direct => &[DIRECT],
            Self::DetectDisconnect => &[DIRECT, DETECT_DISCONNECT],
        };
        let timeout = listens.then_some(SERVER_TIMEOUT);
        Some(parts.iter().copied().chain(timeout).collect::<Vec<_>>().join(" "))
    }
}

/// How connections are made.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    pub(crate) target: Arc<Target>,
    pub(crate) mode: SessionMode,
    application_name: Arc<str>,
    /// Whether sessions receive notifications.
    listens: bool,
    /// The host that answered last, which is tried first: the others may be standbys.
    last: Arc<AtomicUsize>,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Session {
    connection: PgConnection,
    forwarder: Forwarder,
    trust: UrlTrust,
    /// Tells the proxy when a query begins.
    query: Arc<QueryState>,
    fault: Arc<OnceLock<String>>,
    /// The notifications of a listening session; ends when the connection is lost.
    pub(crate) notifications: mpsc::Receiver<QueueId>,
}

impl Session {
    /// Closes the session in order, and waits until the server has received that.
    pub(crate) async fn close(mut self) {
        let _ = self.forwarder.run_with(self.connection.close()).await;
        self.forwarder.end().await;
    }

    /// Runs one statement.
    pub(crate) async fn run<T: Answer>(
        &mut self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        let Self { connection, forwarder, trust, .. } = self;
        let statement = async {
            let answer = statement(connection).await?;
            if *trust == UrlTrust::Tenant {
                answer.decode_all()?;
            }
            Ok(answer)
        };
        self.query.begin(true);
        let answer = forwarder.run_with(catch_panic(statement)).await;
        self.query.end(answer.is_ok());
        answer
    }

    /// Frees the buffers of a session that runs no statement.
    pub(crate) fn rest(&mut self) {
        self.connection.shrink_buffers();
        self.forwarder.rest();
    }

    /// The connection for several statements, or for receiving notifications. From now on a separate task
    /// runs the proxy.
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        self.query.begin(false);
        self.forwarder.spawn();
        &mut self.connection
    }

    /// Why a statement failed: the reason for which the proxy closed the connection, if it did.
    pub(crate) fn error_at(&self, location: &str, error: sqlx::Error) -> Error {
        self.fault().unwrap_or_else(|| Error::at(location, error))
    }

    /// Why the proxy closed the connection, if it did.
    pub(crate) fn fault(&self) -> Option<Error> {
        self.fault.get().map(|why| Error::Unreachable(why.clone()))
    }
}

impl Connector {
    pub(crate) fn new(connect: &Connect, mode: SessionMode) -> crate::Result<Self> {
        let target = Arc::new(connect.target()?);
        target.check_ca()?;
        let application_name = connect.application_name.as_str().into();
        Ok(Self { target, mode, application_name, listens: false, last: Arc::default() })
    }

    /// Makes sessions that receive notifications.
    pub(crate) fn listening(self) -> Self {
        Self { listens: true, ..self }
    }

    pub(crate) fn with(&self, mode: SessionMode) -> Self {
        Self { mode, ..self.clone() }
    }

    /// `HOST:PORT/DATABASE`.
    pub(crate) fn location(&self) -> String {
        self.target.location()
    }

    /// Connects to the first suitable host, within [`CONNECT_TIMEOUT`].
    pub(crate) async fn connect(&self) -> Result<Session, DialError> {
        match self.target.servers {
            Servers::PreferStandby => match self.try_hosts(Servers::Standby).await {
                Err(failed) if failed.try_next_host() => self.try_hosts(Servers::Any).await,
                answer => answer,
            },
            servers => self.try_hosts(servers).await,
        }
    }

    async fn try_hosts(&self, servers: Servers) -> Result<Session, DialError> {
        let hosts = &self.target.hosts;
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let first = self.last.load(Ordering::Relaxed);
        let mut failures: Vec<DialError> = Vec::new();
        for step in 0..hosts.len() {
            let at = (first + step) % hosts.len();
            let remaining = u32::try_from(hosts.len() - step).unwrap_or(u32::MAX);
            let share =
                (deadline.saturating_duration_since(Instant::now()) / remaining).max(HOST_TIMEOUT_SHORTEST);
            let patience = self.target.connect_timeout.map_or(share, |given| given.min(share));
            match self.try_host(&hosts[at], servers, patience).await {
                Err(failed) if failed.try_next_host() => failures.push(failed),
                answer => {
                    self.last.store(at, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(combine(failures))
    }

    /// Tries the addresses of one host, one after the other.
    async fn try_host(
        &self,
        host: &Host,
        servers: Servers,
        patience: Duration,
    ) -> Result<Session, DialError> {
        let location = self.target.location_of(host);
        let late =
            || DialError::from(Error::Unreachable(format!("{location}: no answer within {patience:.1?}")));
        let attempts = async {
            let from_fault = |fault| DialError::from_fault(fault, &location);
            let addresses = resolve(&self.target, host, patience * 9 / 10).await.map_err(from_fault)?;
            let share = patience / u32::try_from(addresses.len().max(1)).unwrap_or(1);
            let mut last = None;
            for address in &addresses {
                match self.try_address(host, address, servers, share).await {
                    Err(failed) if failed.try_next_host() => last = Some(failed),
                    answer => return answer,
                }
            }
            Err(last.unwrap_or_else(late))
        };
        timeout(patience, attempts).await.unwrap_or_else(|_| Err(late()))
    }

    /// Tries the encryptions that `sslmode` allows.
    async fn try_address(
        &self,
        host: &Host,
        address: &Address,
        servers: Servers,
        patience: Duration,
    ) -> Result<Session, DialError> {
        let encryptions = match address {
            Address::Unix(_) => &[Encryption::Plain],
            Address::Tcp(_) => self.target.tls.mode.encryptions(),
        };
        let mut refused = None;
        for encryption in encryptions {
            // Boxed: the future of sqlx is large, and every caller would contain it.
            match Box::pin(self.attempt(host, address, servers, *encryption, patience)).await {
                Err(failed) if failed.try_next_encryption => _ = refused.get_or_insert(failed),
                answer => return answer,
            }
        }
        Err(refused.unwrap_or_else(|| Error::Timeout.into()))
    }

    /// Makes one connection and starts a session on it.
    async fn attempt(
        &self,
        host: &Host,
        address: &Address,
        servers: Servers,
        encryption: Encryption,
        patience: Duration,
    ) -> Result<Session, DialError> {
        let location = self.target.location_of(host);
        let from_fault = |fault| DialError::from_fault(fault, &location);
        let dialed = dial(&self.target, host, address, encryption, patience).await.map_err(from_fault)?;
        self.begin(dialed, servers, location).await
    }

    /// Starts a session on an open connection.
    pub(super) async fn begin(
        &self,
        dialed: Dialed,
        servers: Servers,
        location: String,
    ) -> Result<Session, DialError> {
        let from_fault = |fault| DialError::from_fault(fault, &location);
        let socket = LocalSocket::open().map_err(from_fault)?;
        let options = self.sqlx_options(&socket.folder);
        let mode = self.mode.options(self.listens);
        let startup = Startup {
            target: &self.target,
            options: mode.as_deref(),
            application_name: &self.application_name,
            servers,
        };
        let mut sqlx = pin!(catch_panic(PgConnection::connect_with(&options)));
        let mut start = pin!(startup.run(socket, dialed));
        let mut connection = None;
        let started = loop {
            tokio::select! {
                biased;
                started = &mut start => break started,
                // sqlx may see that the server is ready a moment before `start` returns.
                ended = &mut sqlx, if connection.is_none() => match ended {
                    Ok(ready) => connection = Some(ready),
                    Err(error) => return Err(DialError::from_sqlx(error, &location, true)),
                },
            }
        };
        let started = match started {
            Ok(started) => started,
            Err(Fault::Refused { authenticating }) => {
                let error = sqlx.await.err().unwrap_or(sqlx::Error::PoolClosed);
                return Err(DialError::from_sqlx(error, &location, authenticating));
            }
            Err(fault) => return Err(from_fault(fault)),
        };
        let connection = match connection {
            Some(ready) => ready,
            None => sqlx.await.map_err(|error| DialError::from_sqlx(error, &location, true))?,
        };
        self.session(connection, started, &location)
    }

    /// Options for sqlx, which connects to our local socket. sqlx takes missing options from the environment,
    /// but they do not leave this process.
    fn sqlx_options(&self, folder: &str) -> PgConnectOptions {
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
        location: &str,
    ) -> Result<Session, DialError> {
        let (send, notifications) = mpsc::channel(NOTIFICATIONS);
        let listens = self.listens.then_some(send);
        let fault = Arc::new(OnceLock::new());
        let reported = Arc::clone(&fault);
        let (trust, query) = (self.target.trust, started.query());
        let at = location.to_owned();
        let on_fault = Box::new(move |found: Fault| {
            let _ = reported.set(found.at(&at).to_string());
        });
        let proxy =
            started.proxy(listens, on_fault).map_err(|fault| DialError::from_fault(fault, location))?;
        Ok(Session { connection, forwarder: Forwarder::inline(proxy), trust, query, fault, notifications })
    }
}

// Otherwise a statement would time out before its connection does.
const _: () = assert!(CONNECT_TIMEOUT.as_millis() < STATEMENT_TIMEOUT.as_millis());
