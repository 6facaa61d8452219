//! Read-only servers: a host name that points to a standby for a moment, as in every switchover, and a
//! database that was set to read-only.

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rowlock_local::postgres::{DEFAULT_VERSION, OLDEST_VERSION, Server, ServerConfig};
use rowlock_queue::{Access, Connect, Db, EnqueueOptions, Error, TaskId, TaskState};
use rowlock_tests::{TestDb, declaration, server};
use rowlock_worker::{ExitReason, Shutdown, Worker};
use sqlx::AssertSqlSafe;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
    sync::{Notify, watch},
};

use crate::fake_server::FakeServer;

/// Connections follow a name within this time once it points to the primary.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Copies the stopped cluster as a second one, which follows the first.
const COPY: &str = r#"cp -a "$1/." "$2" && rm -rf "$2/processes" && cd "$2"/postgres-[0-9]* &&
    touch standby.signal && chown --reference=. standby.signal"#;

/// A primary and a standby that follows it.
pub(crate) struct Pair {
    pub(crate) primary: Server,
    pub(crate) standby: Server,
    _folder: tempfile::TempDir,
}

impl Pair {
    /// With the schema and the queue `mail`.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = |name: &str| {
            let mut config = ServerConfig::new(folder.path().join(name));
            config.guard = Some(server::guard().unwrap());
            config.version = match std::env::var("ROWLOCK_TEST_POSTGRES").as_deref() {
                Ok("14") => OLDEST_VERSION.into(),
                _ => DEFAULT_VERSION.into(),
            };
            config
        };
        let mut primary = Server::start(&config("primary")).await.unwrap();
        let db = Db::connect(&Connect::new(primary.url("postgres"), "test", 1)).await.unwrap();
        db.migrate().await.unwrap();
        rowlock_queue::declare(&db, &declaration("mail")).await.unwrap();
        db.close().await;
        primary.stop().await.unwrap();
        let (from, to) = (folder.path().join("primary"), folder.path().join("standby"));
        std::fs::create_dir(&to).unwrap();
        copy(&from, &to);
        primary.restart().await.unwrap();
        let url = primary.url("postgres");
        let password = url.rsplit_once('@').unwrap().0.rsplit_once(':').unwrap().1;
        let mut standby = config("standby");
        let follows = format!("host=127.0.0.1 port={} user=postgres password={password}", primary.port());
        standby.settings.push(("primary_conninfo".into(), follows));
        let standby = Server::start(&standby).await.unwrap();
        Self { primary, standby, _folder: folder }
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("sh").args(["-c", COPY, "copy"]).args([from, to]).output().unwrap();
    assert!(copied.status.success(), "{copied:?}");
}

/// A host name that points to one server or the other.
pub(crate) struct Name {
    fake_server: FakeServer,
    leads_to: Arc<AtomicU16>,
    cuts: watch::Sender<u32>,
    /// The number of connections since the name was pointed elsewhere.
    came: Arc<AtomicU32>,
}

impl Name {
    /// `hides`: like a pooler, it drops the parameters that the server reports.
    pub(crate) async fn of(server: &Server, hides: bool) -> Self {
        let leads_to = Arc::new(AtomicU16::new(server.port()));
        let (cuts, came) = (watch::Sender::new(0), Arc::new(AtomicU32::new(0)));
        let (to, cut, count) = (Arc::clone(&leads_to), cuts.clone(), Arc::clone(&came));
        let fake_server = FakeServer::start(move |mut client| {
            let (mut end, port) = (cut.subscribe(), to.load(Ordering::SeqCst));
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
                let passes = async {
                    if hides {
                        hide(&mut client, &mut server).await?;
                    }
                    copy_bidirectional(&mut client, &mut server).await.map(drop)
                };
                tokio::select! {
                    _ = end.changed() => Ok(()),
                    done = passes => done,
                }
            }
        })
        .await;
        Self { fake_server, leads_to, cuts, came }
    }

    pub(crate) fn lead_to(&self, server: &Server) {
        self.leads_to.store(server.port(), Ordering::SeqCst);
        self.came.store(0, Ordering::SeqCst);
    }

    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub(crate) fn connect(&self, pair: &Pair) -> Connect {
        let url = pair.primary.url("postgres");
        let (before, after) = (format!(":{}/", pair.primary.port()), format!(":{}/", self.fake_server.port));
        Connect::new(url.replace(&before, &after), "test", 2)
    }

    /// Waits until there were this many connections since the name was pointed elsewhere.
    async fn until_came(&self, times: u32) {
        within(Duration::from_secs(30), async || self.came.load(Ordering::SeqCst) >= times).await;
    }
}

/// Forwards the start of a session, but drops that the server is a standby.
async fn hide(client: &mut TcpStream, server: &mut TcpStream) -> std::io::Result<()> {
    let (mut asked, mut message) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            n = client.read(&mut asked) => match n? {
                0 => return Ok(()),
                n => server.write_all(&asked[..n]).await?,
            },
            n = server.read(&mut message) => {
                let n = n?;
                let word = b"in_hot_standby\0on\0";
                if let Some(at) = message[..n].windows(word.len()).position(|words| words == word) {
                    message[at + word.len() - 2] = b'o';
                }
                client.write_all(&message[..n]).await?;
                if n == 0 || message[..n].ends_with(b"Z\0\0\0\x05I") {
                    return Ok(());
                }
            }
        }
    }
}

async fn within(time: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !holds().await {
        assert!(since.elapsed() < time, "not within {time:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn enqueue(db: &Db, payload: &str) -> TaskId {
    rowlock_queue::enqueue(db, "mail", "send", payload, &EnqueueOptions::default()).await.unwrap()
}

async fn is_done(db: &Db, task: TaskId) -> bool {
    rowlock_queue::describe_task(db, task)
        .await
        .unwrap()
        .is_some_and(|details| details.state == TaskState::Completed)
}

#[tokio::test]
async fn connections_return_to_the_primary_after_a_host_name_pointed_to_a_standby() {
    let pair = Pair::start().await;
    let name = Name::of(&pair.primary, false).await;
    let primary = Db::connect(&Connect::new(pair.primary.url("postgres"), "test", 2)).await.unwrap();
    let looks = Db::connect(&name.connect(&pair)).await.unwrap();
    let (goes_on, attempts) = (Arc::new(Notify::new()), Arc::new(Mutex::new(Vec::new())));
    let (waits, saw) = (Arc::clone(&goes_on), Arc::clone(&attempts));
    let worker = Worker::builder(name.connect(&pair), "mail").slots(4).handler("send", move |task| {
        let (waits, saw) = (Arc::clone(&waits), Arc::clone(&saw));
        async move {
            saw.lock().unwrap().push(task.attempt);
            if task.payload.contains("wait") {
                waits.notified().await;
            }
            Ok(())
        }
    });
    let stop = Shutdown::new();
    let instance = tokio::spawn(worker.build().unwrap().run(stop.clone()));
    let runs_meanwhile = enqueue(&primary, "\"wait\"").await;
    within(SOON, async || attempts.lock().unwrap().len() == 1).await;

    name.lead_to(&pair.standby);
    name.cut();
    name.until_came(4).await;
    // The operator's queries: the first may find its connection broken.
    let _ = rowlock_queue::overview(&looks).await;
    let error = rowlock_queue::overview(&looks).await.expect_err("it takes no writes");
    assert!(matches!(&error, Error::ReadOnly(message) if message.contains("standby")), "{error:?}");
    assert!(error.is_transient());

    // From here on, no connection is cut. Before the fix, the instances did not notice for minutes.
    name.lead_to(&pair.primary);
    let comes_after = enqueue(&primary, "{}").await;
    goes_on.notify_one();
    within(SOON, async || rowlock_queue::overview(&looks).await.is_ok()).await;
    within(SOON, async || is_done(&primary, comes_after).await && is_done(&primary, runs_meanwhile).await)
        .await;
    assert_eq!(*attempts.lock().unwrap(), [1, 1], "no further attempt was used");
    stop.drain();
    assert_eq!(instance.await.unwrap().unwrap(), ExitReason::Drained);

    several_hosts_and_readers(&pair, runs_meanwhile).await;
}

#[tokio::test]
async fn a_fenced_instance_leaves_at_the_primary_and_uses_no_attempt() {
    let pair = Pair::start().await;
    let name = Name::of(&pair.primary, false).await;
    let primary = Db::connect(&Connect::new(pair.primary.url("postgres"), "test", 2)).await.unwrap();
    let started = Arc::new(AtomicU32::new(0));
    let starts = Arc::clone(&started);
    let worker = Worker::builder(name.connect(&pair), "mail").slots(4).handler("send", move |_| {
        starts.fetch_add(1, Ordering::SeqCst);
        async { std::future::pending::<Result<(), rowlock_worker::Fail>>().await }
    });
    let instance = tokio::spawn(worker.build().unwrap().run(Shutdown::new()));
    let task = enqueue(&primary, "{}").await;
    within(SOON, async || started.load(Ordering::SeqCst) == 1).await;
    name.lead_to(&pair.standby);
    name.cut();
    // While no heartbeat is answered it must not continue. Before the fix, it stayed for five more minutes.
    tokio::time::sleep(rowlock_queue::LEASE_DURATION.saturating_sub(Duration::from_secs(1))).await;
    name.lead_to(&pair.primary);
    let ended = tokio::time::timeout(SOON, instance).await.expect("it has left").unwrap().unwrap();
    assert!(matches!(ended, ExitReason::Fenced(_)), "{ended:?}");
    let details = rowlock_queue::describe_task(&primary, task).await.unwrap().unwrap();
    assert_eq!((details.state, details.attempt), (TaskState::Available, 0));
}

async fn several_hosts_and_readers(pair: &Pair, task: TaskId) {
    let url = |query: &str| {
        let both = format!("127.0.0.1:{},127.0.0.1:{}/", pair.standby.port(), pair.primary.port());
        pair.primary.url("postgres").replace(&format!("127.0.0.1:{}/", pair.primary.port()), &both) + query
    };
    let ports = [pair.standby.port(), pair.primary.port()].map(i32::from);
    let led_to = async |connect: &Connect| {
        let db = Db::connect(connect).await.unwrap_or_else(|error| panic!("{error}"));
        let takes_writes = rowlock_queue::request_notify(&db, &[]).await.is_ok();
        db.close().await;
        if takes_writes { ports[1] } else { ports[0] }
    };
    let reads = |query: &str| Connect { access: Access::ReadOnly, ..Connect::new(url(query), "test", 1) };
    assert_eq!(
        led_to(&Connect::new(url(""), "test", 1)).await,
        ports[1],
        "a program that writes needs the primary"
    );
    assert_eq!(led_to(&reads("")).await, ports[0], "a program that only reads takes the first host");
    assert_eq!(led_to(&reads("?target_session_attrs=read-write")).await, ports[1]);
    assert_eq!(led_to(&reads("?target_session_attrs=prefer-standby")).await, ports[0]);

    // Read-only calls work on a standby.
    let standby =
        Connect { access: Access::ReadOnly, ..Connect::new(pair.standby.url("postgres"), "test", 1) };
    let standby = Db::connect(&standby).await.unwrap();
    standby.check_schema().await.unwrap();
    within(SOON, async || is_done(&standby, task).await).await;
    assert_eq!(rowlock_queue::queue_stats(&standby).await.unwrap().len(), 1);
    rowlock_queue::list_tasks(&standby, None, TaskState::Completed, 10, None).await.unwrap();
}

#[tokio::test]
async fn a_read_only_connection_is_not_reused() {
    let pair = Pair::start().await;
    // The parameters that a server reports may be lost on the way.
    let name = Name::of(&pair.standby, true).await;
    let connect = Connect { max_connections: 1, ..name.connect(&pair) };
    let db = Db::connect(&connect).await.unwrap();
    let refused = async || {
        let options = EnqueueOptions::default();
        rowlock_queue::enqueue(&db, "mail", "send", "{}", &options).await.expect_err("it takes no writes")
    };
    let error = refused().await;
    assert!(matches!(&error, Error::ReadOnly(message) if message.contains("takes no writes")), "{error:?}");
    name.lead_to(&pair.standby);
    refused().await;
    refused().await;
    assert_eq!(name.came.load(Ordering::SeqCst), 2, "each uses its own connection");
    name.lead_to(&pair.primary);
    enqueue(&db, "{}").await;
}

#[tokio::test]
async fn a_read_only_database_is_reported_and_used_again_afterwards() {
    let test = TestDb::new().await;
    let set = |on: bool| {
        AssertSqlSafe(format!("alter database {} set default_transaction_read_only = {on}", test.name))
    };
    sqlx::query(set(true)).execute(&test.pool).await.unwrap();
    let error = Db::connect(&test.connect()).await.expect_err("it takes no writes");
    assert!(
        matches!(&error, Error::ReadOnly(message) if message.contains("default_transaction_read_only")),
        "{error:?}"
    );
    let reads = Connect { access: Access::ReadOnly, ..test.connect() };
    rowlock_queue::queue_stats(&Db::connect(&reads).await.unwrap()).await.unwrap();
    let mut session = test.session().await;
    sqlx::Executor::execute(&mut session, "set default_transaction_read_only = off").await.unwrap();
    sqlx::query(set(false)).execute(&mut session).await.unwrap();
    Db::connect(&test.connect()).await.unwrap();
}
