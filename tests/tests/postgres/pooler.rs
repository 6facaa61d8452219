//! Behind `PgBouncer`.

use std::{
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rowlock_queue::{Connect, Db, EnqueueOptions, Maintainer, Outcome};
use rowlock_tests::{TestDb, TestInstance, server};
use rowlock_worker::{ExitReason, Shutdown, Worker};

/// Connections from the test to the pooler.
const CONNECTIONS: u32 = 6;

pub(crate) struct Pooler {
    process: Child,
    pub(crate) url: String,
    _folder: tempfile::TempDir,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn start(test: &TestDb, mode: &str, servers: u32) -> Pooler {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = server::url(&test.name);
    let (login, place) = url.strip_prefix("postgres://").unwrap().split_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let password = if password.is_empty() { String::new() } else { format!(" password={password}") };
    let server_port = place.split_once(':').unwrap().1.split_once('/').unwrap().0;
    let settings = format!(
        "[databases]\n{0} = host=127.0.0.1 port={server_port} \
            user={user}{password}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = \
         {servers}\nunix_socket_dir =\n",
        test.name
    );
    let file = folder.path().join("pgbouncer.ini");
    std::fs::write(&file, settings).unwrap();
    let mut command = Command::new("pgbouncer");
    if nix::unistd::geteuid().is_root() {
        command.args(["-u", "nobody"]);
    }
    let process = command
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("pgbouncer is installed: tests/install.sh");
    Pooler { process, url: format!("postgres://{user}@127.0.0.1:{port}/{}", test.name), _folder: folder }
}

#[tokio::test]
async fn every_verb_works_behind_pgbouncer_in_session_mode() {
    every_verb_works("session", CONNECTIONS).await;
}

#[tokio::test]
async fn every_verb_works_behind_pgbouncer_in_transaction_mode() {
    every_verb_works("transaction", CONNECTIONS / 2).await;
}

/// `servers`: connections of the pooler to the server.
async fn every_verb_works(mode: &str, servers: u32) {
    let test = TestDb::new().await;
    let pooler = start(&test, mode, servers);
    let connect = Connect::new(pooler.url.clone(), "rowlock-tests", CONNECTIONS);
    let db = Db::connect_with_retry(&connect, Some(Duration::from_secs(20))).await.unwrap();
    db.check_schema().await.unwrap();
    db.migrate().await.unwrap();
    let fleet = (0..8).map(|i| {
        let db = db.clone();
        tokio::spawn(async move {
            let mut instance = TestInstance::join(&db, &format!("m{i}")).await;
            for _ in 0..20 {
                let options = EnqueueOptions::default();
                rowlock_queue::enqueue(&db, "mail", "send", "{}", &options).await.unwrap();
                assert!(!instance.heartbeat(0, 1).await.gone);
                let claimed = instance.claim(1).await;
                let ids: Vec<_> = claimed.tasks.iter().map(|task| task.id).collect();
                if let Some(token) = claimed.token {
                    assert_eq!(rowlock_queue::fetch(&db, token, &ids).await.unwrap().len(), ids.len());
                }
                instance.settle(&claimed, &Outcome::Complete { result: None }).await;
            }
            Maintainer::of_instance(instance.id(), instance.joined.queue)
                .run_once(&db, None, Some(&instance.watermarks))
                .await
                .unwrap();
            rowlock_queue::leave(&db, instance.id()).await.unwrap();
        })
    });
    for instance in fleet.collect::<Vec<_>>() {
        instance.await.unwrap();
    }
    rowlock_queue::queue_stats(&db).await.unwrap();
    let (completed, _, _, open) = test.audited().await;
    assert_eq!(completed + open, 160);
    db.close().await;
}

#[tokio::test]
async fn an_instance_works_behind_pgbouncer_with_a_connection_for_its_heartbeat() {
    let test = TestDb::new().await;
    let pooler = start(&test, "transaction", CONNECTIONS / 2);
    let connect = Connect::new(pooler.url.clone(), "pooled", 2);
    let stop = Shutdown::new();
    let worker = Worker::builder(connect, "mail").slots(4).handler("send", async |_| Ok(()));
    let instance = tokio::spawn(worker.build().unwrap().run(stop.clone()));
    test.enqueue_many(50).await;
    let done = "select coalesce(sum((select sum(n) from unnest(ns) n)), 0) = 50 from rowlock.receipt";
    let waits = async {
        while !test.one::<bool>(done).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waits).await.expect("all are done");
    stop.drain();
    assert_eq!(instance.await.unwrap().unwrap(), ExitReason::Drained);
    assert_eq!(test.audited().await, (50, 0, 0, 0));
}
