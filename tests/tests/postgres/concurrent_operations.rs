//! Operations that run at the same time: partitions and producers, grants and declarations, pages and
//! receipts.

use rowlock_queue::{CLAIM_MAX, Db, EnqueueOptions, Error, declare, enqueue};
use rowlock_tests::{TestDb, declaration};
use sqlx::{AssertSqlSafe, Executor, Row};

/// Drops all task partitions, as if none had been made for days.
const USED_UP: &str = "do $$ declare p regclass; begin
     for p in select inhrelid::regclass from pg_inherits where inhparent = 'rowlock.task'::regclass loop \
     execute format('drop table %s', p); end loop;
   end $$; update rowlock.queue set partitions_until = 1";

/// Before the fix, the producer dropped the partition that another session had made, with its tasks:
/// its snapshot was older and saw none of them.
#[tokio::test]
async fn a_producer_with_an_old_snapshot_drops_no_partition() {
    let test = TestDb::new().await;
    declare(&test.db, &declaration("other")).await.unwrap();
    test.run(USED_UP).await;
    let mut late = test.session().await;
    late.execute("begin isolation level repeatable read; select count(*) from rowlock.task").await.unwrap();
    // It locks the rows of queues, as a declaration that changes nothing does.
    let mut declares = test.session().await;
    declares.execute("begin; select 1 from rowlock.queue for update").await.unwrap();
    let id = test.enqueue().await;
    declares.execute("commit").await.unwrap();
    let refused = late.execute("select rowlock.enqueue('other', 'late', '{}')").await.unwrap_err();
    let code = refused.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
    assert_eq!(code.as_deref(), Some("40001"), "{refused}");
    assert_eq!(test.state(id).await.as_deref(), Some("available"));
}

/// Before the fix, errors of kept tasks could not be moved, and cleaning stopped (R9).
#[tokio::test]
async fn errors_are_moved_with_a_publication_for_all_tables() {
    let test = TestDb::new().await;
    test.run("create publication everything for all tables").await;
    let failures: String = test
        .one(
            "select inhrelid::regclass::text from pg_inherits \
        where inhparent = 'rowlock.task_error'::regclass limit 1",
        )
        .await;
    test.run(format!(
        "insert into rowlock.task_error (id, attempt, error) values (1, 1, 'no'); delete \
        from {failures}; delete from rowlock.task_error"
    ))
    .await;
}

/// Before the fix, a worker of one queue could release what an instance of another queue held, or block its
/// claims.
#[tokio::test]
async fn a_worker_of_one_queue_cannot_act_on_instances_of_another() {
    let test = TestDb::new().await;
    declare(&test.db, &declaration("other")).await.unwrap();
    let foreign = Db::connect(&test.login("narrow", "'worker', array['other']").await).await.unwrap();
    test.enqueue().await;
    let mut instance = test.instance("a").await;
    assert_eq!(instance.claim(1).await.tasks.len(), 1);
    let handed = rowlock_queue::release_unknown_leases(&foreign, instance.id(), &[]).await;
    assert!(matches!(&handed, Err(Error::Refused { code, .. }) if code == "RL011"), "{handed:?}");
    let awaited = rowlock_queue::claim_again(
        &foreign,
        instance.id(),
        CLAIM_MAX,
        &instance.watermarks,
        rowlock_queue::Token(1),
    )
    .await;
    assert!(matches!(&awaited, Err(Error::Refused { code, .. }) if code == "RL011"), "{awaited:?}");
}

/// Before the fix, a grant for an empty list of queues was a grant for all queues.
#[tokio::test]
async fn a_grant_for_no_queue_is_refused() {
    let test = TestDb::new().await;
    let producer = Db::connect(&test.login("narrow", "'producer', array['mail']").await).await.unwrap();
    let role = format!("narrow_{}", test.name);
    let none = format!("select rowlock.grant_role('{role}', 'producer', '{{}}')");
    let refused = test.pool.execute(AssertSqlSafe(none)).await.unwrap_err();
    assert!(refused.to_string().contains("no queue was named"), "{refused}");
    declare(&test.db, &declaration("other")).await.unwrap();
    let other = enqueue(&producer, "other", "t", "{}", &EnqueueOptions::default()).await;
    assert!(other.is_err(), "{other:?}");
}

/// Before the fix, the grant did not see the queue, and users with permissions on other queues could use it.
#[tokio::test]
async fn a_queue_declared_during_a_grant_is_restricted() {
    let test = TestDb::new().await;
    let producer = test.login("narrow", "").await;
    let mut owner = test.session().await;
    let grant =
        format!("begin; select rowlock.grant_role('narrow_{}', 'producer', array['mail'])", test.name);
    owner.execute(AssertSqlSafe(grant)).await.unwrap();
    let declares = {
        let db = test.db.clone();
        tokio::spawn(async move { declare(&db, &declaration("secret")).await })
    };
    test.until_lock_wait().await;
    owner.execute("commit").await.unwrap();
    declares.await.unwrap().unwrap();
    let producer = Db::connect(&producer).await.unwrap();
    let secret = enqueue(&producer, "secret", "t", "{}", &EnqueueOptions::default()).await;
    assert!(secret.is_err(), "{secret:?}");
}

/// Before the fix, a second page of tasks that were cancelled in one transaction was empty.
#[tokio::test]
async fn tasks_cancelled_together_are_paged_without_a_gap() {
    let test = TestDb::new().await;
    let ids: Vec<i64> = test.enqueue_many(50).await.iter().map(|id| id.0).collect();
    sqlx::query("select rowlock.cancel_all($1)").bind(&ids).execute(&test.pool).await.unwrap();
    let (mut seen, mut after) = (Vec::new(), None::<i64>);
    loop {
        let page = sqlx::query("select id from rowlock.list_tasks('mail', 'cancelled', $1, 20)").bind(after);
        let page: Vec<i64> = page.fetch_all(&test.pool).await.unwrap().iter().map(|row| row.get(0)).collect();
        let Some(last) = page.last() else { break };
        after = Some(*last);
        seen.extend(page);
    }
    seen.sort_unstable();
    assert_eq!(seen, ids);
}

/// Before the fix, tasks that the transaction enqueued in another queue counted for this one.
#[tokio::test]
async fn a_large_transaction_fills_only_its_own_queue() {
    let test = TestDb::new().await;
    declare(&test.db, &rowlock_queue::Declaration { backlog_limit: 10, ..declaration("small") })
        .await
        .unwrap();
    let many = "select rowlock.enqueue('mail', 't', '{}') from generate_series(1, 10)";
    let one = "select rowlock.enqueue('small', 't', '{}')";
    let mut session = test.session().await;
    session
        .execute(AssertSqlSafe(format!("begin; {many}; {one}; {many}; {one}; {many}; {one}; commit")))
        .await
        .unwrap();
    assert_eq!(
        test.one::<i64>(
            "select count(*) from rowlock.ready r join rowlock.queue q on q.id = r.queue \
        where q.name = 'small'"
        )
        .await,
        3
    );
}

/// Before the fix, a new role inherited the permissions of a dropped role of the same name.
#[tokio::test]
async fn a_dropped_role_leaves_no_permissions() {
    let test = TestDb::new().await;
    test.login("brief", "'producer', array['mail']").await;
    let role = format!("brief_{}", test.name);
    test.run(format!(
        "drop owned by {role}; drop role {role}; select rowlock.revoke_role('{role}', 'reader')"
    ))
    .await;
    assert!(!test.one::<bool>("select bool_or(restricted) from rowlock.queue").await, "no role is limited");
    let again = Db::connect(&test.login("brief", "").await).await.unwrap();
    test.run("select rowlock.renew_grants()").await;
    let refused = enqueue(&again, "mail", "t", "{}", &EnqueueOptions::default()).await;
    assert!(refused.is_err(), "{refused:?}");
}

/// Before the fix, each claim of part of a range left an entry behind in every index, exactly where claims
/// start reading.
#[tokio::test]
async fn a_claim_of_part_of_a_range_updates_no_index() {
    let test = TestDb::new().await;
    test.enqueue_many(100).await;
    let instance = test.instance("a").await;
    let mut session = test.session().await;
    session.execute("begin").await.unwrap();
    for token in 1..=3 {
        let claim = format!(
            "select * from rowlock.claim({}, 5, array_fill(0::bigint, array[16]), 0, {token})",
            instance.id()
        );
        session.execute(AssertSqlSafe(claim)).await.unwrap();
    }
    let asked = "select pg_stat_get_xact_tuples_updated(c), pg_stat_get_xact_tuples_hot_updated(c) \
        from (select 'rowlock.ready'::regclass) x(c)";
    let row = session.fetch_one(asked).await.unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (3, 3));
}
