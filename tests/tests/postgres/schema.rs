//! Migrations, and what is said when a database does not fit.

use rowlock_queue::{Db, Error, SCHEMA_VERSION};
use rowlock_tests::TestDb;
use sqlx::{Executor, Row};

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
    test.run("insert into rowlock.migration (version, name) values (99, 'of a later release')").await;
    for refused in [test.db.check_schema().await, test.db.migrate().await.map(|_| ())] {
        assert!(matches!(refused, Err(Error::SchemaNewer { found: 99, .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_too_old_is_named() {
    let test = TestDb::empty().await;
    test.run("create schema old; create function old.current_setting(text) returns text language sql as 'select ''130014'''").await;
    test.run(format!("alter database {} set search_path = old, pg_catalog", test.name)).await;
    let refused = Db::connect(&test.connect()).await;
    let Err(Error::Unsupported(message)) = refused else { panic!("{refused:?}") };
    assert!(message.contains("13 is too old") && message.contains("14"), "{message}");
}

#[tokio::test]
async fn an_owner_who_may_not_create_roles_is_told_so() {
    let test = TestDb::empty().await;
    let owner = format!("owner_{}", test.name);
    let mut session = test.session().await;
    // One transaction, so that other tests keep their roles.
    let setting = format!(
        "begin; create role {owner}; alter schema rowlock owner to {owner}; alter role rowlock_reader rename to away;
         grant execute on all functions in schema rowlock to {owner}; set local session authorization {owner}"
    );
    session.execute(sqlx::AssertSqlSafe(setting)).await.unwrap();
    let granted: bool = session.fetch_one("select rowlock.grant_roles()").await.unwrap().get(0);
    assert!(!granted);
    session.execute("rollback").await.unwrap();
}
