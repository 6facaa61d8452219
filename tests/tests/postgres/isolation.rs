//! Isolation levels and settings of the caller: no function decides on a snapshot older than its lock (R7),
//! and none is JIT-compiled (R19).

use rowlock_queue::{Maintainer, Outcome};
use rowlock_tests::{TestDb, TestInstance};
use sqlx::{AssertSqlSafe, Executor};

/// Calls that decide by what they read under a lock. The instance is `$1`.
const DECIDING: [&str; 15] = [
    "rowlock.heartbeat($1, 0, 0, 0, 5, '{0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}', false, 0, 0, 0, 0)",
    "rowlock.claim($1, 1, '{0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}', 0, 4711)",
    "rowlock.claim_suspect($1, 4711)",
    "rowlock.settle($1, '{}', '{}', '{}', '{}', '{}')",
    "rowlock.leave($1)",
    "rowlock.release_unknown_leases($1, '{}')",
    "rowlock.rescue($1, 0)",
    "rowlock.rescue_pod('mail', 'tests', gen_random_uuid(), '')",
    "rowlock.drain_pods('mail', 'tests', array[gen_random_uuid()], '{0}', 1)",
    "rowlock.name_handler_end('mail', 'tests', gen_random_uuid(), '')",
    "rowlock.maintain('-infinity', 1, false, false)",
    "rowlock.move_missed(1, '{0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}', '{0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}', 1)",
    "rowlock.cancel(1)",
    "rowlock.record_scaling_decisions('[]')",
    "rowlock.delete_old_scaling_decisions(1)",
];

#[tokio::test]
async fn functions_that_need_a_fresh_snapshot_refuse_an_old_one() {
    let test = TestDb::new().await;
    let instance = test.instance("a").await;
    instance.heartbeat(0, 5).await;
    let granted = test.one::<i64>("select count(*) from rowlock.allocation").await;
    let heartbeats = test.one::<i64>("select count(*) from rowlock.heartbeat").await;
    let mut session = test.session().await;
    for level in ["repeatable read", "serializable"] {
        for verb in DECIDING {
            let call = format!("select * from {}", verb.replace("$1", &instance.id().to_string()));
            session.execute(AssertSqlSafe(format!("begin isolation level {level}"))).await.unwrap();
            let refused = session.execute(AssertSqlSafe(call)).await.expect_err(verb);
            let code =
                refused.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
            assert_eq!(code, "RL007", "{verb}: {refused}");
            session.execute("rollback").await.unwrap();
        }
    }
    assert_eq!(test.one::<i64>("select count(*) from rowlock.allocation").await, granted);
    assert_eq!(test.one::<i64>("select count(*) from rowlock.heartbeat").await, heartbeats);
    assert!(!instance.heartbeat(0, 5).await.gone, "it was not rescued, and did not leave");
}

#[tokio::test]
async fn allocations_are_granted_by_heartbeats_only() {
    let test = TestDb::new().await;
    let granted = "select count(*) from rowlock.permission_functions() r \
        where r.function = 'rowlock.allocate(int)'::regprocedure";
    assert_eq!(test.one::<i64>(granted).await, 0, "it relies on the heartbeat to refuse an old snapshot");
}

/// Makes Postgres JIT-compile every statement.
const FORCED: [&str; 4] =
    ["jit = on", "jit_above_cost = 0", "jit_inline_above_cost = 0", "jit_optimize_above_cost = 0"];

#[tokio::test]
async fn an_instance_works_with_jit_for_every_statement() {
    let test = TestDb::new().await;
    for setting in FORCED {
        test.run(format!("alter database {} set {setting}", test.name)).await;
    }
    let db = rowlock_queue::Db::connect(&test.connect()).await.unwrap();
    test.enqueue_many(500).await;
    let mut instance = TestInstance::join(&db, "a").await;
    instance.heartbeat(0, 5).await;
    let claimed = instance.claim(200).await;
    assert_eq!(claimed.tasks.len(), 200);
    instance.settle(&claimed, &Outcome::Complete { result: None }).await;
    Maintainer::of_instance(instance.id(), instance.joined.queue)
        .run_once(&db, None, Some(&instance.watermarks))
        .await
        .unwrap();
    assert_eq!(test.audited().await, (200, 0, 0, 300));
}

/// Statements inside a function are planned under the settings that the function has. (The servers of the
/// tests are built without JIT, so only the settings can be checked.)
#[tokio::test]
async fn frequent_functions_are_never_jit_compiled() {
    let test = TestDb::new().await;
    let unpinned = "select coalesce(string_agg(p.proname, ' ' order by p.proname), '') from pg_proc p
      where p.oid in ('rowlock.heartbeat(bigint, int, int, bigint, int, bigint[], boolean, int, \
      int, real, real)'::regprocedure,
        'rowlock.claim(bigint, int, bigint[], int, bigint)'::regprocedure, \
        'rowlock.leave(bigint)'::regprocedure,
        'rowlock.settle(bigint, bigint[], bigint[], smallint[], bigint[], text[])'::regprocedure,
        'rowlock.move_due(timestamptz, int)'::regprocedure, 'rowlock.move_missed(int, bigint[], bigint[], \
        int)'::regprocedure,
        'rowlock.newest_heartbeats()'::regprocedure, 'rowlock.rescue(bigint, bigint)'::regprocedure, \
        'rowlock.rescue_pod(text, text, uuid, text)'::regprocedure, \
        'rowlock.drain_pods(text, text, uuid[], int[], int)'::regprocedure, \
        'rowlock.name_handler_end(text, text, uuid, text)'::regprocedure, \
        'rowlock.claim_suspect(bigint, bigint)'::regprocedure, \
        'rowlock.update_backlog_limits()'::regprocedure,
        'rowlock.statistics()'::regprocedure)
        and not coalesce('jit=off' = any (p.proconfig), false)";
    assert_eq!(test.one::<String>(unpinned).await, "");
}
