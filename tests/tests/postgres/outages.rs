//! A server that vanishes, as if its machine lost power: connections to it stay open until TCP gives up, much
//! later.

use std::{str::FromStr, time::Duration};

use rowlock_queue::{Connect, Db, Error, QueueId, listen};
use rowlock_tests::TestDb;
use sqlx::{Executor, postgres::PgConnectOptions};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Forwards both directions until the server behind it vanishes. Later connections reach a new server.
struct Network {
    port: u16,
    vanished: watch::Sender<u32>,
    accepts: JoinHandle<()>,
}

impl Network {
    async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let vanished = watch::Sender::new(0);
        let seen = vanished.clone();
        let accepts = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut end = seen.subscribe();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                    tokio::select! {
                        biased;
                        // Stays open, but nothing is read.
                        _ = end.changed() => std::future::pending().await,
                        _ = copy_bidirectional(&mut client, &mut server) => (),
                    }
                });
            }
        });
        Self { port, vanished, accepts }
    }

    fn server_vanishes(&self) {
        self.vanished.send_modify(|times| *times += 1);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

/// A pool of one connection, as an instance has it.
async fn db_behind(network: &Network, test: &TestDb) -> Db {
    Db::connect(&connect_through(network, test)).await.unwrap()
}

fn connect_through(network: &Network, test: &TestDb) -> Connect {
    let url = test.connect().url.replace(&format!(":{}/", port_of(test)), &format!(":{}/", network.port));
    Connect { url, max_connections: 1, ..test.connect() }
}

fn port_of(test: &TestDb) -> u16 {
    PgConnectOptions::from_str(&test.connect().url).unwrap().get_port()
}

#[tokio::test]
async fn a_server_that_vanishes_during_a_statement_delays_no_other_statement() {
    let test = TestDb::new().await;
    let network = Network::before(port_of(&test)).await;
    let db = db_behind(&network, &test).await;
    let mut lock = test.pool.begin().await.unwrap();
    lock.execute("lock table rowlock.migration").await.unwrap();
    let (lost, ()) = tokio::join!(db.check_schema(), async {
        until_lock_wait(&test).await;
        network.server_vanishes();
    });
    assert!(matches!(lost, Err(Error::Timeout)), "{lost:?}");
    lock.rollback().await.unwrap();
    db.check_schema().await.expect("another connection");
}

#[tokio::test]
async fn a_server_that_vanishes_between_statements_delays_others_briefly() {
    let test = TestDb::new().await;
    let network = Network::before(port_of(&test)).await;
    let db = db_behind(&network, &test).await;
    db.check_schema().await.unwrap();
    // The pool checks each returned connection, but has not done so yet.
    network.server_vanishes();
    let lost = db.check_schema().await;
    assert!(lost.as_ref().is_err_and(Error::is_transient), "{lost:?}");
    db.check_schema().await.expect("another connection");
}

#[tokio::test]
async fn a_listener_reports_a_lost_server() {
    let test = TestDb::new().await;
    let network = Network::before(port_of(&test)).await;
    let mut listener = listen(&connect_through(&network, &test)).await.unwrap();
    network.server_vanishes();
    let lost = listener.wait().await;
    assert!(lost.as_ref().is_err_and(Error::is_transient), "{lost:?}");
}

#[tokio::test]
async fn a_notification_arrives_after_a_long_idle_time() {
    let test = TestDb::new().await;
    let mut listener = listen(&test.connect()).await.unwrap();
    let looks = "select count(*) from pg_stat_activity where datname = current_database() \
        and query = 'LISTEN \"rowlock\"'
                 and query_start > backend_start + interval '10 seconds'";
    let (notified, ()) = tokio::join!(listener.wait(), async {
        while test.one::<i64>(looks).await == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        test.run("notify rowlock, '7'").await;
    });
    assert_eq!(notified.unwrap(), QueueId(7));
}

async fn until_lock_wait(test: &TestDb) {
    let waiting =
        "select count(*) from pg_locks where not granted and relation = 'rowlock.migration'::regclass";
    while test.one::<i64>(waiting).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
