//! The queries of an operator.

use std::time::Duration;

use rowlock_queue::{
    ConnectionLimit, Db, Declaration, Error, HORIZON_KINDS, HorizonHolder, Overview, adopt, declare,
    identity, listen, overview, request_notify,
};
use rowlock_tests::{TestDb, declaration, server};
use sqlx::Executor;
use tokio::time::timeout;

/// A busy machine with two slow cores needs a tenth of it.
const TIMEOUT: Duration = Duration::from_mins(1);

const OF_DATABASE: &str = "the connection limit of the database";

const OF_ROLE: &str = "the connection limit of the role";

/// The only connection limit of its kind in an overview, which names the user.
fn limit(seen: &Overview, of: &str, user: Option<&str>) -> Option<ConnectionLimit> {
    let mut those = seen.limits.iter().filter(|limit| limit.limit_of == of && limit.user.as_deref() == user);
    let found = those.next().cloned();
    assert!(those.next().is_none(), "{seen:?}");
    found
}

#[tokio::test]
async fn an_overview_has_the_owner_of_each_queue_and_the_connection_limits() {
    let test = TestDb::empty().await;
    let seen = overview(&test.db).await.unwrap();
    assert!(seen.queues.is_empty());
    assert!(limit(&seen, "max_connections", None).is_some());
    assert_eq!(limit(&seen, OF_DATABASE, None), None);
    declare(&test.db, &declaration("mail")).await.unwrap();
    // Statistics of an empty queue do not report a task that waits since now.
    assert_eq!(overview(&test.db).await.unwrap().queues[0].stats.oldest_available_seconds, None);
    test.enqueue_many(3).await;
    test.run(format!("alter database {} connection limit 30", test.name)).await;
    let _theirs = (test.session().await, test.session().await);
    let seen = overview(&test.db).await.unwrap();
    let (queue, found) = (&seen.queues[0], limit(&seen, OF_DATABASE, None).unwrap());
    assert_eq!((queue.owner.as_str(), queue.generation, queue.stats.available), ("tests", 1, 3));
    assert_eq!(found.limit, 30);
    // This session, one of the superuser's pool, and the two others.
    assert!((4..=6).contains(&found.others), "{found:?}");
    let connect = rowlock_queue::Connect { application_name: "rowlock-worker a-1".into(), ..test.connect() };
    let _instance = Db::connect(&connect).await.unwrap();
    let seen = overview(&test.db).await.unwrap();
    assert_eq!(limit(&seen, OF_DATABASE, None).unwrap().others, found.others);
}

#[tokio::test]
async fn an_overview_by_an_unprivileged_user_counts_all_connections() {
    let test = TestDb::new().await;
    let role = format!("plain_{}", test.name);
    test.run(format!(
        "create role {role} login password 'x' connection limit 7; \
        alter schema rowlock owner to {role};
      grant execute on all functions in schema rowlock to {role}; grant \
      select on all tables in schema rowlock to {role}"
    ))
    .await;
    let (_, host) =
        server::url(&test.name).split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let connect = rowlock_queue::Connect { url: format!("postgres://{role}:x@{host}"), ..test.connect() };
    let db = Db::connect(&connect).await.unwrap();
    assert_eq!(db.user(), Some(role.as_str()));
    // All see the same statistics, so one may read them for all.
    for looks in [&db, &test.db] {
        let seen = overview(looks).await.unwrap();
        let found = limit(&seen, OF_ROLE, Some(&role)).unwrap();
        // The first session, which checked for a pooler, may still be closing.
        assert!(found.limit == 7 && (1..=2).contains(&found.others), "{found:?}");
    }
    assert_eq!(identity(&db).await.unwrap(), identity(&test.db).await.unwrap());
    // Only since when a transaction of another user runs is hidden.
    let mut theirs = test.session().await;
    theirs.execute("begin; create table theirs ()").await.unwrap();
    let [ours, hidden] = [horizon(&test.db).await, horizon(&db).await];
    assert_eq!((&ours.kind, ours.xid, ours.seconds.is_some()), (&hidden.kind, hidden.xid, true));
    assert_eq!(hidden.seconds, None);
    drop(theirs);
    test.run(format!("alter role {role} connection limit -1")).await;
    let seen = overview(&db).await.unwrap();
    assert_eq!(limit(&seen, OF_ROLE, Some(&role)), None);
    let most = limit(&seen, "max_connections", None).unwrap();
    let all: i64 =
        test.one("select count(*) from pg_stat_activity where backend_type = 'client backend'").await;
    assert!(i64::from(most.others) > 1 && i64::from(most.others) <= all + 20, "{most:?} of {all}");
    db.close().await;
    test.run(format!("alter schema rowlock owner to current_user; drop owned by {role}; drop role {role}"))
        .await;
}

/// The only holder of the horizon.
async fn horizon(db: &Db) -> HorizonHolder {
    let seen = overview(db).await.unwrap().horizon;
    let [holder] = <[_; 1]>::try_from(seen).unwrap();
    holder
}

#[tokio::test]
async fn an_overview_says_who_holds_back_the_horizon_of_the_database() {
    let (test, other) = (TestDb::new().await, TestDb::empty().await);
    let mut elsewhere = other.session().await;
    elsewhere.execute("begin; create table elsewhere ()").await.unwrap();
    let xid: i64 = sqlx::query_scalar("select pg_current_xact_id()::text::bigint")
        .fetch_one(&mut elsewhere)
        .await
        .unwrap();
    assert_eq!(overview(&test.db).await.unwrap().horizon, []);
    // A snapshot, without a transaction id of its own.
    let mut reads = test.session().await;
    reads.execute("begin isolation level repeatable read; select 1").await.unwrap();
    let reader = horizon(&test.db).await;
    assert!(HORIZON_KINDS.contains(&reader.kind.as_str()), "{reader:?}");
    assert_eq!((reader.kind.as_str(), reader.xid <= xid), ("session", true));
    assert!(reader.seconds.is_some_and(|seconds| (0.0..60.0).contains(&seconds)), "{reader:?}");
    reads.execute("rollback").await.unwrap();
    assert_eq!(overview(&test.db).await.unwrap().horizon, []);
}

#[tokio::test]
async fn a_database_has_a_unique_identity() {
    let (one, two) = (TestDb::empty().await, TestDb::empty().await);
    let (first, second) = (identity(&one.db).await.unwrap(), identity(&two.db).await.unwrap());
    assert_eq!(first.started_at, second.started_at);
    let (first, second) = (first.database.unwrap(), second.database.unwrap());
    assert_ne!(first, second);
    assert!(first.starts_with(&format!("{}@", one.name)), "{first}");
    assert_eq!(first.split_once('@').unwrap().1, second.split_once('@').unwrap().1);
}

#[tokio::test]
async fn a_queue_is_adopted_only_from_the_named_owner() {
    let test = TestDb::new().await;
    let ours = Declaration { owner: "another".into(), ..declaration("mail") };
    for from in [None, Some("somebody")] {
        let refused = adopt(&test.db, &ours, from).await;
        assert!(matches!(refused, Err(Error::Refused { ref code, .. }) if code == "RL008"), "{refused:?}");
    }
    adopt(&test.db, &ours, Some("tests")).await.unwrap();
    declare(&test.db, &ours).await.unwrap();
    // A former owner does not get the queue back by an adoption that names another owner.
    let refused = adopt(&test.db, &declaration("mail"), Some("a third")).await;
    assert!(
        matches!(refused, Err(Error::Refused { ref message, .. }) if message.contains("another")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn notify_is_sent_for_a_queue_without_instances_while_an_operator_asks_for_it() {
    let test = TestDb::new().await;
    let mut listener = listen(&test.connect()).await.unwrap();
    let queue = overview(&test.db).await.unwrap().queues[0].stats.queue;
    request_notify(&test.db, &[queue]).await.unwrap();
    test.enqueue().await;
    assert_eq!(timeout(TIMEOUT, listener.wait()).await.unwrap().unwrap(), queue);
    // It is not renewed too early: the row stays unchanged.
    let version = || test.one::<String>("select xmin::text from rowlock.queue");
    let before = version().await;
    request_notify(&test.db, &[queue]).await.unwrap();
    assert_eq!(version().await, before);
    test.run("update rowlock.queue set notify_until = now() + interval '20 seconds'").await;
    request_notify(&test.db, &[queue]).await.unwrap();
    let kept: bool = test.one("select notify_until > now() + interval '50 seconds' from rowlock.queue").await;
    assert!(kept);
}

/// An operator of many databases frees the buffers of its sessions after each pass.
#[tokio::test]
async fn a_session_whose_buffers_were_freed_gets_long_answers_and_notifications() {
    let test = TestDb::empty().await;
    let mut listener = listen(&test.connect()).await.unwrap();
    for number in 0..100 {
        declare(&test.db, &declaration(&format!("queue-{number:03}"))).await.unwrap();
    }
    let overview = async || {
        test.db.rest();
        let queues = overview(&test.db).await.unwrap().queues;
        assert_eq!((queues.len(), queues[99].stats.name.as_str()), (100, "queue-099"));
        queues[99].stats.queue
    };
    let queue = overview().await;
    assert_eq!(overview().await, queue);
    request_notify(&test.db, &[queue]).await.unwrap();
    test.run("select rowlock.enqueue('queue-099', 'send', '{}')").await;
    assert_eq!(timeout(TIMEOUT, listener.wait()).await.unwrap().unwrap(), queue);
}
