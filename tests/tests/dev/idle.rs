//! Statements of idle queues and instances: their rate is bounded.

use std::time::Duration;

use rowlock_tests::{TestDb, server};

use crate::harness::{Home, ROWLOCK, until};
use crate::running_command::Dev;

/// Long enough for everything that happens every ten seconds.
const WINDOW: Duration = Duration::from_secs(20);

/// With the maintenance of an instance, once a minute.
const MINUTE: Duration = Duration::from_mins(1);

/// The first statements are over and counted by then: a session reports its statistics once a second.
const FALL_ASLEEP: Duration = Duration::from_secs(5);

/// Calls that the statistics report too late or too early.
const SLACK: f64 = 4.0;

/// The calls of one more pass of maintenance: a minute may begin with one and end with the next.
const ONE_MORE_PASS: f64 = 12.0;

/// What operators and instances call, each call a statement. What only other functions call is left out.
const FUNCTIONS: [&str; 21] = [
    "statistics",
    "maintain",
    "heartbeat",
    "claim_with_payloads",
    "fetch",
    "settle",
    "move_missed",
    "policy",
    "release_unknown_leases",
    "begin_maintenance",
    "end_maintenance",
    "partition_statistics",
    "mutex_holders",
    "extend_partitions",
    "keep_watermarks",
    "delete_expired_tasks",
    "mark_finished",
    "take_back_left_tasks",
    "move_kept_errors",
    "empty_other_partitions",
    "empty_task_partition",
];

/// How often they were called; refused where one of them does not exist.
async fn calls(test: &TestDb) -> i64 {
    let names = FUNCTIONS.map(|name| format!("'{name}'")).join(", ");
    let existing = format!(
        "select count(distinct p.proname) from pg_proc p
         where p.pronamespace = 'rowlock'::regnamespace and p.proname in ({names})"
    );
    assert_eq!(test.one::<i64>(existing).await, 21, "{names}");
    test.one(format!(
        "select coalesce(sum(f.calls), 0)::bigint from pg_stat_user_functions f
         where f.schemaname = 'rowlock' and f.funcname in ({names})"
    ))
    .await
}

async fn counting(test: &TestDb) {
    test.run(format!("alter database {} set track_functions = 'all'", test.name)).await;
}

/// Whether fewer than `most` statements arrive within `window`.
async fn check(test: &TestDb, window: Duration, most: f64) {
    // A rate is measured over time.
    tokio::time::sleep(FALL_ASLEEP).await;
    let before = calls(test).await;
    tokio::time::sleep(window).await;
    let asked = calls(test).await - before;
    eprintln!("{asked} statements in {window:?}");
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let asked = asked as f64;
    assert!(0.0 < asked && asked < most, "{asked}");
}

/// Before the fix, it was also polled each second for due tasks.
#[tokio::test]
async fn a_queue_scaled_to_zero_sends_few_statements() {
    let test = TestDb::empty().await;
    counting(&test).await;
    let url = server::url(&test.name);
    let home = Home::with_database(&url);
    let mut dev = Dev::spawn(home.command(ROWLOCK, &["dev", "-f", ".", "--database-url", &url]));
    dev.wait_for("metrics   http://");
    until("it is declared", || home.run(&["tasks", "--queue", "mail"]).code == 0);
    // Two polls a second under `rowlock dev`, one in two seconds in a cluster; all else is rarer.
    check(&test, WINDOW, 2.3 * WINDOW.as_secs_f64() + SLACK).await;
    dev.stop();
}

#[tokio::test]
async fn an_idle_instance_sends_fewer_than_two_statements_a_second() {
    let test = TestDb::new().await;
    counting(&test).await;
    let home = Home::with_database(&server::url(&test.name));
    let (_handler, worker, _) = home.worker_without_dev();
    let mut worker = Dev::spawn(worker);
    worker.wait_for("joined");
    check(&test, MINUTE, 2.0 * MINUTE.as_secs_f64() + SLACK + ONE_MORE_PASS).await;
    worker.stop();
}
