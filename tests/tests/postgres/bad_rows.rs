//! A row on which every operation fails does not delay other rows.

use std::time::Duration;

use rowlock_queue::{InstanceId, Maintainer, Outcome, maintain_partitions};
use rowlock_tests::TestDb;

/// Makes writes of that task to the table fail, as if its row were damaged.
async fn refuse(test: &TestDb, table: &str, is_bad: &str) {
    test.run(format!(
        "create function public.refuse_{table}() returns trigger language plpgsql as $$ begin
           if {is_bad} then raise 'this row is bad'; end if; return new; end $$;
         create trigger refuse before insert on rowlock.{table} for each row \
         execute function public.refuse_{table}()"
    ))
    .await;
}

#[tokio::test]
async fn a_due_task_that_cannot_be_moved_delays_no_other() {
    let test = TestDb::new().await;
    let bad = test.enqueue_due().await;
    let good = test.enqueue_due().await;
    refuse(&test, "ready", &format!("{bad} >= new.id and {bad} < new.id + new.n")).await;
    // Before the fix, no task was moved, no instance rescued and no partition dropped from then on.
    Maintainer::new().run_once(&test.db, None, None).await.unwrap();
    assert_eq!(test.state(good).await.as_deref(), Some("available"));
    assert_eq!(test.state(bad).await.as_deref(), Some("retryable"), "it waits for another attempt");
}

/// Before the fix, one such task prevented the retry of all dead tasks of its queue.
#[tokio::test]
async fn a_dead_task_that_cannot_be_retried_blocks_no_other() {
    let test = TestDb::new().await;
    let ids = test.enqueue_many(2).await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(2).await;
    instance.settle(&claimed, &Outcome::Dead { error: "x".into() }).await;
    refuse(&test, "ready", &format!("{0} >= new.id and {0} < new.id + new.n", ids[0])).await;
    assert_eq!(rowlock_queue::retry_all_dead(&test.db, "mail").await.unwrap(), 2);
    assert_eq!(test.state(ids[1]).await.as_deref(), Some("available"));
    assert_eq!(test.state(ids[0]).await.as_deref(), Some("retryable"), "it waits for another attempt");
}

#[tokio::test]
async fn an_instance_that_cannot_be_rescued_blocks_no_other_rescue() {
    let test = TestDb::new().await;
    let ids = test.enqueue_many(2).await;
    let mut gone = Vec::new();
    for name in ["a", "b"] {
        let mut instance = test.instance(name).await;
        instance.claim(1).await;
        gone.push(instance.id());
    }
    gone.sort_by_key(|instance| instance.0);
    refuse(&test, "task_error", &format!("new.instance = {}", gone[0].0)).await;
    test.run("update rowlock.heartbeat set at = at - interval '1 minute'").await;
    let mut maintainer = Maintainer::of_instance(InstanceId(0), test.instance("c").await.joined.queue);
    let chain = Some(std::time::Instant::now());
    let since = std::time::Instant::now();
    let mut rescued = false;
    while !rescued {
        assert!(since.elapsed() < Duration::from_secs(40), "not rescued");
        let _ = maintainer.run_once(&test.db, chain, None).await;
        rescued = test.one(format!("select gone from rowlock.instance where id = {}", gone[1])).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let open = test.one::<i64>("select count(*) from rowlock.ready").await;
    assert_eq!(open, 1, "one of {ids:?} may start again");
}

#[tokio::test]
async fn a_partition_in_use_does_not_keep_others_from_being_dropped() {
    let test = TestDb::new().await;
    for days in [4, 6] {
        test.run(format!(
            "select rowlock.make_partition('heartbeat', date_trunc('hour', now()) - interval '{days} days', \
                date_trunc('hour', now()) - interval '{days} days' + interval '6 hours')"
        ))
        .await;
    }
    let oldest = "select (array_agg(part order by hi))[1] from rowlock.partitions_of('heartbeat')";
    let old = test.one::<String>(oldest).await;
    test.run(format!("create view public.mine as select * from rowlock.{old}")).await;
    // Before the fix, this one stopped the cleaning of all partitions after it, and of tasks.
    maintain_partitions(&test.db).await.unwrap_err();
    assert_eq!(
        test.one::<i64>(
            "select count(*) from rowlock.partitions_of('heartbeat') where hi < now() - interval '1 day'"
        )
        .await,
        0
    );
    assert!(
        test.one::<bool>(format!("select to_regclass('rowlock.{old}') is not null")).await,
        "the partition is in use"
    );
    test.run("drop view public.mine").await;
    maintain_partitions(&test.db).await.unwrap();
    assert!(test.one::<bool>(format!("select to_regclass('rowlock.{old}') is null")).await);
}
