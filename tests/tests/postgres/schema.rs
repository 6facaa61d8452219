//! Migrations, and the errors for an unsuitable database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rowlock_queue::{Connect, Db, Error, Outcome, SCHEMA_VERSION, Settled};
use rowlock_tests::{TestDb, declaration, server};
use sqlx::{Connection, Executor};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn two_migrations_at_once_make_one_schema() {
    let test = TestDb::empty().await;
    test.run("drop schema rowlock cascade").await;
    assert!(matches!(test.db.check_schema().await, Err(Error::SchemaMissing)));
    let (one, two) = tokio::join!(test.db.migrate(), test.db.migrate());
    assert_eq!((one.unwrap().to, two.unwrap().to), (SCHEMA_VERSION, SCHEMA_VERSION));
    test.db.check_schema().await.unwrap();
    assert_eq!(test.db.migrate().await.unwrap().from, SCHEMA_VERSION);
}

#[tokio::test]
async fn an_older_release_refuses_a_newer_schema() {
    let test = TestDb::empty().await;
    test.run("insert into rowlock.migration values (99, 'of a later release', 99)").await;
    for refused in [test.db.check_schema().await, test.db.migrate().await.map(|_| ())] {
        assert!(matches!(refused, Err(Error::SchemaNewer { found: 99, .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn an_older_release_works_with_a_compatible_newer_schema() {
    let test = TestDb::new().await;
    test.run(format!(
        "insert into rowlock.migration values (98, 'of a later release', {SCHEMA_VERSION}), (99, 'too', \
            {SCHEMA_VERSION})"
    ))
    .await;
    test.db.check_schema().await.unwrap();
    let report = test.db.migrate().await.unwrap();
    assert_eq!((report.from, report.to), (99, 99), "nothing is undone");
    test.run(format!("insert into rowlock.migration values (100, 'the last step', {})", SCHEMA_VERSION + 1))
        .await;
    assert!(matches!(test.db.check_schema().await, Err(Error::SchemaNewer { found: 100, .. })));
}

#[tokio::test]
async fn a_server_that_is_too_old_is_named() {
    let test = TestDb::empty().await;
    test.run(
        "set allow_system_table_mods = on; create or replace function pg_catalog.current_setting(text) \
        returns text language sql stable as 'select ''130014'''",
    )
    .await;
    let refused = Db::connect(&test.connect()).await;
    let Err(Error::ServerTooOld(message)) = refused else { panic!("{refused:?}") };
    assert!(message.contains("13 is too old") && message.contains("14"), "{message}");
}

#[tokio::test]
async fn migrate_warns_of_a_publication_for_all_tables() {
    let test = TestDb::empty().await;
    assert_eq!(test.db.migrate().await.unwrap().notes, Vec::<String>::new());
    test.run("create publication everything for all tables").await;
    let notes = test.db.migrate().await.unwrap().notes;
    assert!(notes[0].contains("FOR ALL TABLES") && notes[0].contains("subscriber"), "{notes:?}");
}

/// An empty database owned by the login `owner`, and the owner's connection options.
async fn owned() -> (TestDb, Db) {
    let test = TestDb::empty().await;
    let connect = test.login("owner", "").await;
    test.run(format!("drop schema rowlock cascade; alter database {0} owner to owner_{0}", test.name)).await;
    (test, Db::connect(&connect).await.unwrap())
}

#[tokio::test]
async fn an_owner_without_other_privileges_can_migrate() {
    let (test, owner) = owned().await;
    assert_eq!(owner.migrate().await.unwrap().notes, Vec::<String>::new());
    owner.check_schema().await.unwrap();
    rowlock_queue::declare(&owner, &declaration("mail")).await.unwrap();
    test.db.check_schema().await.expect("a superuser trusts a schema of the owner of the database");
    assert_eq!(test.db.migrate().await.unwrap().from, SCHEMA_VERSION);
}

/// Before the fix, objects that a superuser's migration created belonged to the superuser, and the owner
/// could no longer migrate.
#[tokio::test]
async fn all_objects_belong_to_the_owner_of_the_schema_after_any_users_migration() {
    let (test, owner) = owned().await;
    owner.migrate().await.unwrap();
    let earlier =
        "drop function rowlock.as_json(text[]) cascade; update rowlock.migration set functions = 'other'";
    for db in [&test.db, &owner] {
        test.run(earlier).await;
        db.migrate().await.unwrap();
        let owners: i64 = test
            .one(
                "select count(distinct x.o) from (
               select p.proowner o from pg_proc p where p.pronamespace = 'rowlock'::regnamespace
               union select c.relowner from pg_class c where c.relnamespace = 'rowlock'::regnamespace) x",
            )
            .await;
        assert_eq!(owners, 1);
    }
}

/// Before the fix, the next migration called the functions it found there, as the owner of the database.
#[tokio::test]
async fn a_schema_of_another_owner_is_refused_and_nothing_in_it_is_called() {
    let (test, owner) = owned().await;
    let mallory = test.login("mallory", "").await;
    test.run(format!("grant create on database {0} to mallory_{0}", test.name)).await;
    let mut session = sqlx::PgConnection::connect(&mallory.url).await.unwrap();
    let trap = format!(
        "create schema rowlock; grant usage on schema rowlock to public; create table rowlock.called ();
         create table rowlock.migration (version int primary key, name text not null, compatible_from int \
         not null, applied_at timestamptz not null default now());
         insert into rowlock.migration values ({SCHEMA_VERSION}, 'mine', {SCHEMA_VERSION}); \
         grant all on all tables in schema rowlock to public;
         create function rowlock.renew_grants() returns void language sql as 'insert into rowlock.called \
         default values'"
    );
    session.execute(sqlx::AssertSqlSafe(trap)).await.unwrap();
    for (who, db) in [("the owner", &owner), ("a superuser", &test.db)] {
        for refused in [db.check_schema().await, db.migrate().await.map(|_| ())] {
            let Err(Error::SchemaOfAnother { owner }) = refused else { panic!("{who}: {refused:?}") };
            assert!(owner.starts_with("mallory"), "{owner}");
        }
    }
    assert_eq!(test.one::<i64>("select count(*) from rowlock.called").await, 0);
}

#[tokio::test]
async fn a_foreign_schema_named_rowlock_is_reported() {
    let (test, owner) = owned().await;
    test.run(format!(
        "create schema rowlock authorization owner_{}; create table rowlock.queue ()",
        test.name
    ))
    .await;
    let refused = owner.migrate().await;
    let Err(error @ Error::SchemaTaken { .. }) = &refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("\"queue\""), "{error}");
}

/// Tables, functions and grants after all migrations, for reading; `make schema` writes the file.
const DUMP: &str = "../queue/schema.sql";

const HEAD: &str = "-- The schema after all migrations, to be read: written by `make schema`, compared by a \
    test. Without partitions.\n\n";

/// Partitions are named after the moment they end.
const PARTITIONS: &str = "rowlock.*_[0-9][0-9][0-9][0-9][0-9][0-9]*";

#[tokio::test]
async fn the_checked_in_schema_is_what_the_migrations_make() {
    // Debian's pg_dump cannot read the newest server; `make test` also runs with the oldest one.
    if std::env::var("ROWLOCK_TEST_POSTGRES").as_deref() != Ok("14") {
        return;
    }
    let test = TestDb::empty().await;
    let dump = std::process::Command::new("pg_dump")
        .args(["--schema-only", "--no-owner", "--schema=rowlock", "--exclude-table", PARTITIONS])
        .arg(rowlock_tests::server::url(&test.name))
        .output()
        .unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let now = HEAD.to_owned() + &readable(&String::from_utf8(dump.stdout).unwrap());
    if std::env::var_os("ROWLOCK_WRITE_SCHEMA").is_some() {
        std::fs::write(DUMP, &now).unwrap();
    }
    let written = std::fs::read_to_string(DUMP).unwrap();
    let differs = written.lines().zip(now.lines()).find(|(written, now)| written != now);
    assert!(written == now, "`make schema` would change queue/schema.sql: {differs:?}");
}

/// Without lines that depend on the server, the client or the time.
fn readable(dump: &str) -> String {
    let noise = [
        "-- Name: ",
        "-- Dumped ",
        "-- PostgreSQL database dump",
        "SET ",
        "SELECT pg_catalog.set_config",
        "\\restrict",
        "\\unrestrict",
    ];
    let mut lines: Vec<&str> = Vec::new();
    for line in
        dump.lines().filter(|line| *line != "--" && !noise.iter().any(|noise| line.starts_with(noise)))
    {
        if !line.is_empty() || lines.last().is_some_and(|last| !last.is_empty()) {
            lines.push(line);
        }
    }
    lines.join("\n").trim_end().to_owned() + "\n"
}

/// The functions of an earlier release: one has another body, and the recorded functions differ.
async fn of_an_earlier_release() -> TestDb {
    let test = TestDb::new().await;
    test.run(
        "create or replace function rowlock.enqueue_many_limit() returns int language sql immutable return 10;
         update rowlock.migration set functions = 'of an earlier release'",
    )
    .await;
    test
}

#[tokio::test]
async fn a_schema_of_an_earlier_release_is_refused_until_migrated() {
    let test = TestDb::empty().await;
    test.run("update rowlock.migration set version = 0").await;
    assert!(matches!(test.db.check_schema().await, Err(Error::SchemaOlder { found: 0, .. })));
}

#[tokio::test]
async fn a_migration_replaces_functions_and_keeps_grants() {
    let test = of_an_earlier_release().await;
    let producer = test.login("producer", "'producer'").await;
    let grants =
        "select count(*) from information_schema.routine_privileges where routine_schema = 'rowlock'";
    let before: i64 = test.one(grants).await;
    test.db.migrate().await.unwrap();
    assert_eq!(test.one::<i32>("select rowlock.enqueue_many_limit()").await, 100_000);
    assert_eq!(test.one::<i64>(grants).await, before);
    let db = Db::connect(&producer).await.unwrap();
    let options = rowlock_queue::EnqueueOptions::default();
    rowlock_queue::enqueue(&db, "mail", "send", "{}", &options).await.unwrap();
}

/// Before the fix, the older release's functions replaced the newer ones, but the newer ones were recorded.
#[tokio::test]
async fn when_two_releases_migrate_at_once_the_newer_functions_stay() {
    let test = of_an_earlier_release().await;
    let mut newer = test.session().await;
    let migrates = format!(
        "begin; lock table rowlock.migration in share row exclusive mode;
         insert into rowlock.migration values (99, 'of a later release', {SCHEMA_VERSION});
         create or replace function rowlock.enqueue_many_limit() returns int language sql immutable return 99"
    );
    newer.execute(sqlx::AssertSqlSafe(migrates)).await.unwrap();
    let db = test.db.clone();
    let older = tokio::spawn(async move { db.migrate().await });
    let waits =
        "select count(*) from pg_locks where not granted and relation = 'rowlock.migration'::regclass";
    while test.one::<i64>(waits).await == 0 {
        assert!(!older.is_finished(), "it waits for the newer one");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    newer.execute("commit").await.unwrap();
    let report = older.await.unwrap().unwrap();
    assert_eq!((report.from, report.to), (99, 99));
    assert_eq!(test.one::<i32>("select rowlock.enqueue_many_limit()").await, 99);
}

/// Before the fix, the migration failed: "tuple concurrently updated".
#[tokio::test]
async fn a_migration_waits_for_a_concurrent_grant() {
    let test = of_an_earlier_release().await;
    test.run(format!("create role clerk_{}", test.name)).await;
    let mut grants = test.session().await;
    let grant = format!("begin; select rowlock.grant_role('clerk_{}', 'producer')", test.name);
    grants.execute(sqlx::AssertSqlSafe(grant)).await.unwrap();
    let db = test.db.clone();
    let migration = tokio::spawn(async move { db.migrate().await });
    test.until_lock_wait().await;
    grants.execute("commit").await.unwrap();
    migration.await.unwrap().unwrap();
    let may = format!(
        "select has_function_privilege('clerk_{}', 'rowlock.enqueue(text,text,json,jsonb)', 'execute')",
        test.name
    );
    assert!(test.one::<bool>(may).await);
    test.run(format!("select rowlock.revoke_role('clerk_{0}'); drop role clerk_{0}", test.name)).await;
}

#[tokio::test]
async fn a_migration_that_changes_nothing_replaces_no_function() {
    let test = TestDb::new().await;
    let written =
        "select max(p.xmin::text::bigint) from pg_proc p where p.pronamespace = 'rowlock'::regnamespace";
    let before: i64 = test.one(written).await;
    test.db.migrate().await.unwrap();
    assert_eq!(test.one::<i64>(written).await, before);
}

/// Applied without a look into their bodies, since they call each other in any order.
#[tokio::test]
async fn sql_functions_name_only_existing_objects() {
    let test = TestDb::empty().await;
    let all = "do $$ declare f record; begin
      for f in select p.oid, p.proname from pg_proc p join pg_language l on l.oid = p.prolang
          where p.pronamespace = 'rowlock'::regnamespace and p.prokind = 'f'
            and l.lanname in ('sql', 'plpgsql') loop
        begin
          execute pg_get_functiondef(f.oid);
        exception when others then raise exception '%: %', f.proname, sqlerrm;
        end;
      end loop; end $$";
    test.run(all).await;
}

/// How much each producer and instance must complete before and after the migration.
const SOME: u64 = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_interrupts_neither_producers_nor_instances() {
    let test = Arc::new(of_an_earlier_release().await);
    let (stop, done) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
    let mut work = JoinSet::new();
    for name in ["mail-0", "mail-1"] {
        work.spawn(produce(Arc::clone(&test), stop.clone(), Arc::clone(&done)));
        work.spawn(perform(name, Arc::clone(&test), stop.clone(), Arc::clone(&done)));
    }
    more(&done, &mut work).await;
    let report = test.db.migrate().await.unwrap();
    assert_eq!((report.from, report.to), (SCHEMA_VERSION, SCHEMA_VERSION));
    assert_eq!(
        test.one::<i32>("select rowlock.enqueue_many_limit()").await,
        100_000,
        "the functions are new"
    );
    more(&done, &mut work).await;
    stop.cancel();
    while let Some(ended) = work.join_next().await {
        ended.expect("no session fails");
    }
    test.db.check_schema().await.unwrap();
    let mut last = test.instance("last").await;
    loop {
        let claimed = last.claim(100).await;
        if claimed.tasks.is_empty() && test.audited().await.3 == 0 {
            break;
        }
        last.settle(&claimed, &COMPLETE).await;
    }
}

async fn produce(test: Arc<TestDb>, stop: CancellationToken, done: Arc<AtomicU64>) {
    while !stop.is_cancelled() {
        test.enqueue_many(3).await;
        done.fetch_add(1, Ordering::Relaxed);
    }
}

async fn perform(name: &'static str, test: Arc<TestDb>, stop: CancellationToken, done: Arc<AtomicU64>) {
    let mut instance = test.instance(name).await;
    while !stop.is_cancelled() {
        let claimed = instance.claim(10).await;
        let settled = instance.settle(&claimed, &COMPLETE).await;
        assert!(settled.iter().all(|settled| *settled == Settled::Done), "{settled:?}");
        instance.heartbeat(0, 10).await;
        done.fetch_add(1, Ordering::Relaxed);
    }
}

const COMPLETE: Outcome = Outcome::Complete { result: None };

/// Waits until this much more is done. A program that ends in the meantime has failed.
async fn more(done: &AtomicU64, work: &mut JoinSet<()>) {
    let enough = done.load(Ordering::Relaxed) + 4 * SOME;
    while done.load(Ordering::Relaxed) < enough {
        let ended = tokio::time::timeout(Duration::from_millis(20), work.join_next()).await;
        assert!(ended.is_err(), "{ended:?}");
    }
}

#[tokio::test]
async fn migrate_refuses_a_sql_ascii_database_before_any_change() {
    let test = TestDb::empty().await;
    let name = format!("{}_ascii", test.name);
    test.run(format!(
        "create database {name} template template0 encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'"
    ))
    .await;
    let connect = Connect { url: server::url(&name), ..test.connect() };
    let db = Db::connect(&connect).await.unwrap();
    let refused = db.migrate().await.unwrap_err();
    assert!(matches!(refused, Error::UnsupportedEncoding(_)), "{refused:?}");
    assert!(
        refused.to_string().contains("SQL_ASCII") && refused.to_string().contains("encoding 'UTF8'"),
        "{refused}"
    );
    assert!(matches!(db.check_schema().await, Err(Error::SchemaMissing)));
    db.close().await;
    test.run(format!("drop database {name} with (force)")).await;
}
