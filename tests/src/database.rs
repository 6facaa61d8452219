//! A database per test.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rowlock_crds::Policy;
use rowlock_queue::{Connect, Db, Declaration, EnqueueOptions, InstanceId, TaskId};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, PgPool, Postgres, Row, Type, postgres::PgPoolOptions,
};

use crate::{TestInstance, server};

/// Connections of a pool that many test instances share.
const CONNECTIONS: u32 = 16;

/// A migrated database, dropped with this value. It has a queue called `mail`.
#[derive(Debug)]
pub struct TestDb {
    /// The pool under test.
    pub db: Db,
    /// A superuser's pool, past the code under test.
    pub pool: PgPool,
    /// Its name.
    pub name: String,
}

impl TestDb {
    /// A database with the queue `mail`.
    ///
    /// # Panics
    /// If the server cannot create it.
    pub async fn new() -> Self {
        let test = Self::empty().await;
        rowlock_queue::declare(&test.db, &declaration("mail")).await.expect("a queue is declared");
        test
    }

    /// A database without a queue.
    ///
    /// # Panics
    /// If the server cannot create it.
    pub async fn empty() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("rowlock_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        run_at("postgres", &format!("create database {name} template {}", server::template())).await;
        let db = Db::connect(&connect(&name)).await.expect("the database answers");
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy(&server::url(&name)).expect("a URL");
        Self { db, pool, name }
    }

    /// The connection options.
    #[must_use]
    pub fn connect(&self) -> Connect {
        connect(&self.name)
    }

    /// A new session.
    ///
    /// # Panics
    /// If the server has none left.
    pub async fn session(&self) -> PgConnection {
        PgConnection::connect(&server::url(&self.name)).await.expect("a session")
    }

    /// Runs statements as the superuser.
    ///
    /// # Panics
    /// If they fail.
    pub async fn run(&self, sql: impl Into<String>) {
        let sql = sql.into();
        self.pool.execute(AssertSqlSafe(sql.clone())).await.expect(&sql);
    }

    /// The one value of a query.
    ///
    /// # Panics
    /// If it fails.
    pub async fn one<T>(&self, sql: impl Into<String>) -> T
    where
        T: for<'r> sqlx::Decode<'r, Postgres> + Type<Postgres>,
    {
        let sql = sql.into();
        let row = self.pool.fetch_one(AssertSqlSafe(sql.clone())).await;
        row.expect(&sql).get(0)
    }

    /// Enqueues a task in `mail`.
    ///
    /// # Panics
    /// If that fails.
    pub async fn enqueue(&self) -> TaskId {
        self.enqueue_with(&EnqueueOptions::default()).await
    }

    /// Enqueues a task in `mail`, with options.
    ///
    /// # Panics
    /// If that fails.
    pub async fn enqueue_with(&self, options: &EnqueueOptions) -> TaskId {
        rowlock_queue::enqueue(&self.db, "mail", "send", "{}", options).await.expect("a task is enqueued")
    }

    /// Enqueues a task in `mail` that is due, and that no maintenance has moved yet.
    ///
    /// # Panics
    /// If that fails.
    pub async fn enqueue_due(&self) -> TaskId {
        let later = EnqueueOptions { delay: Some(Duration::from_hours(1)), ..EnqueueOptions::default() };
        let id = self.enqueue_with(&later).await;
        self.run(format!("update rowlock.delayed set due = now() where id = {id}")).await;
        id
    }

    /// Enqueues many tasks in `mail`, in one call.
    ///
    /// # Panics
    /// If that fails.
    pub async fn enqueue_many(&self, n: usize) -> Vec<TaskId> {
        let payloads: Vec<String> = (0..n).map(|i| format!("{{\"i\":{i}}}")).collect();
        rowlock_queue::enqueue_many(&self.db, "mail", "send", &payloads, &EnqueueOptions::default())
            .await
            .expect("tasks are enqueued")
    }

    /// An instance of `mail`.
    pub async fn instance(&self, name: &str) -> TestInstance {
        TestInstance::join(&self.db, name).await
    }

    /// The state of a task.
    pub async fn state(&self, id: TaskId) -> Option<String> {
        self.one(format!("select rowlock.task_state({id})")).await
    }

    /// Makes every heartbeat of an instance twenty seconds older, so that it may be rescued by the server's
    /// clock.
    pub async fn silence(&self, instance: InstanceId) {
        self.run(format!(
            "update rowlock.heartbeat set at = at - interval '20 seconds' where instance = {instance}"
        ))
        .await;
    }

    /// Creates a login with the permissions given by the remaining arguments of `rowlock.grant_role`, and
    /// returns its connection options. It is dropped with the database.
    ///
    /// # Panics
    /// If a login with this name exists.
    pub async fn login(&self, name: &str, rights: &str) -> Connect {
        let name = format!("{name}_{}", self.name);
        self.run(format!("create role {name} login password 'secret'")).await;
        if !rights.is_empty() {
            self.run(format!("select rowlock.grant_role('{name}', {rights})")).await;
        }
        let url = server::url(&self.name);
        let (_, place) = url.split_once('@').expect("a URL with a user");
        Connect { url: format!("postgres://{name}:secret@{place}"), ..self.connect() }
    }

    /// Waits until some statement on this database waits for a lock.
    ///
    /// # Panics
    /// If none does within ten seconds.
    pub async fn until_lock_wait(&self) {
        let waiting = "select count(*) from pg_stat_activity where datname = current_database() \
            and wait_event_type = 'Lock'";
        let since = std::time::Instant::now();
        while self.one::<i64>(waiting).await == 0 {
            assert!(since.elapsed().as_secs() < 10, "no statement waits for a lock");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Fails unless every task is accounted for. Returns (completed, dead, cancelled, open) of `mail`.
    ///
    /// # Panics
    /// If the sum is wrong.
    pub async fn audited(&self) -> (i64, i64, i64, i64) {
        let audits = rowlock_queue::audit(&self.db).await.expect("an audit");
        let mail = audits.iter().find(|audit| audit.queue == "mail").expect("the queue");
        assert_eq!(mail.untraced, 0, "{mail:?}");
        assert_eq!(mail.enqueued, mail.completed + mail.dead + mail.cancelled + mail.open, "{mail:?}");
        (mail.completed, mail.dead, mail.cancelled, mail.open)
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        // The names of the database's logins end with its name. The only LIKE wildcard in it would be the
        // underscore.
        let drop = format!("drop database if exists {} with (force)", self.name);
        let logins = format!(
            "do $$ declare r name; begin
               for r in select rolname from pg_roles where right(rolname, {}) = '_{}' loop \
               execute format('drop role %I', r); end loop; end $$",
            self.name.len() + 1,
            self.name
        );
        let done = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| {
                runtime.block_on(async {
                    run_at("postgres", &drop).await;
                    run_at("postgres", &logins).await;
                });
            })
        })
        .join();
        assert!(done.is_ok() || std::thread::panicking(), "the database is dropped");
    }
}

/// A queue with six attempts, delays of a minute, and ten slots.
#[must_use]
pub fn declaration(name: &str) -> Declaration {
    Declaration {
        name: name.into(),
        owner: "tests".into(),
        generation: 1,
        policy: Policy::default(),
        max_attempts: 6,
        total_workers: 10,
        paused: false,
        backlog_limit: 1_000_000,
        payload_limit: 1_048_576,
        keep_completed: Duration::from_hours(24),
        keep_dead: Duration::from_hours(168),
        keep_cancelled: Duration::from_hours(24),
        max_delay: Duration::from_hours(365 * 24),
    }
}

fn connect(database: &str) -> Connect {
    Connect::new(server::url(database), "rowlock-tests", CONNECTIONS)
}

async fn run_at(database: &str, sql: &str) {
    let mut admin = PgConnection::connect(&server::url(database)).await.expect("the server answers");
    admin.execute(AssertSqlSafe(sql.to_owned())).await.expect(sql);
}
