//! A row on which every operation fails does not delay other rows.

use std::time::Duration;

use rowlock_queue::{InstanceId, Maintainer, Outcome, Settled, maintain_partitions};
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

/// Rescues the instance. Before the fix, one bad row kept all its tasks leased for ever.
async fn rescue(test: &TestDb, instance: InstanceId) -> i32 {
    test.run("update rowlock.heartbeat set at = at - interval '1 minute'").await;
    test.one(format!(
        "select rowlock.rescue({0}, (select max(n) from rowlock.heartbeat where instance = {0}))",
        instance.0
    ))
    .await
}

#[tokio::test]
async fn a_task_that_cannot_be_taken_back_keeps_no_other_task_leased() {
    let test = TestDb::new().await;
    let ids = test.enqueue_many(5).await;
    let mut instance = test.instance("a").await;
    let claimed = instance.claim(5).await;
    refuse(&test, "task_error", &format!("new.id = {}", ids[2])).await;
    assert_eq!(rescue(&test, instance.id()).await, 4, "all but one");
    for id in &ids {
        let expected = if *id == ids[2] { "running" } else { "available" };
        assert_eq!(test.state(*id).await.as_deref(), Some(expected), "{id}");
    }
    let settled = instance.settle(&claimed, &Outcome::Release).await;
    assert!(settled.iter().all(|answer| *answer == Settled::LeaseLost), "{settled:?}");
    // Maintenance names it, and tries again.
    let error = maintain_partitions(&test.db).await.unwrap_err().to_string();
    assert!(error.contains(&format!("task {} cannot be taken back", ids[2])), "{error}");
    assert!(error.ends_with("this row is bad"), "{error}");
    test.run("drop trigger refuse on rowlock.task_error").await;
    maintain_partitions(&test.db).await.unwrap();
    assert_eq!(test.state(ids[2]).await.as_deref(), Some("available"));
    assert_eq!(test.one::<i64>("select count(*) from rowlock.lease").await, 0);
}

/// Before the fix, the steps were not told apart: a step that worked ended the outage of one that failed.
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
    test.run(format!(
        "create function public.refuse() returns trigger language plpgsql as $$ begin
           if new.id = {} then raise 'this row is bad'; end if; return new; end $$;
         create trigger refuse before update on rowlock.instance for each row \
         execute function public.refuse()",
        gone[0].0
    ))
    .await;
    test.run("update rowlock.heartbeat set at = at - interval '1 minute'").await;
    let mut maintainer = Maintainer::of_instance(InstanceId(0), test.instance("c").await.joined.queue);
    let chain = Some(std::time::Instant::now());
    let since = std::time::Instant::now();
    let mut rescued = false;
    while !rescued {
        assert!(since.elapsed() < Duration::from_secs(40), "not rescued");
        let steps = maintainer.run_steps(&test.db, chain, None).await.steps;
        rescued = test.one(format!("select gone from rowlock.instance where id = {}", gone[1])).await;
        if rescued {
            let failed = |step: &str| steps.iter().any(|(name, done)| *name == step && done.is_err());
            assert!(failed("rescue") && !failed("move due tasks"), "{steps:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let open = test.one::<i64>("select count(*) from rowlock.ready").await;
    assert_eq!(open, 1, "one of {ids:?} may start again");
}

#[tokio::test]
async fn a_lost_or_released_task_that_cannot_be_made_available_delays_no_other() {
    let test = TestDb::new().await;
    let ids = test.enqueue_many(6).await;
    let (mut gone, mut lives) = (test.instance("a").await, test.instance("b").await);
    gone.claim(3).await;
    let claimed = lives.claim(3).await;
    let is_bad = |id| format!("{id} >= new.id and {id} < new.id + new.n");
    refuse(&test, "ready", &format!("({}) or ({})", is_bad(ids[1]), is_bad(ids[4]))).await;
    assert_eq!(rescue(&test, gone.id()).await, 3);
    let settled = lives.settle(&claimed, &Outcome::Release).await;
    assert!(settled.iter().all(|answer| *answer == Settled::Done), "{settled:?}");
    for (place, id) in ids.iter().enumerate() {
        let expected = if [1, 4].contains(&place) { "retryable" } else { "available" };
        assert_eq!(test.state(*id).await.as_deref(), Some(expected), "{place}");
    }
}

#[tokio::test]
async fn an_instance_leaves_although_a_task_cannot_be_released() {
    let test = TestDb::new().await;
    let ids = test.enqueue_many(3).await;
    let mut instance = test.instance("a").await;
    instance.claim(3).await;
    for table in ["ready", "delayed"] {
        refuse(&test, table, &format!("new.id = {}", ids[0])).await;
    }
    let left: i64 = test.one(format!("select rowlock.leave({})", instance.id().0)).await;
    assert_eq!(left, 2, "all but one");
    assert_eq!(test.state(ids[0]).await.as_deref(), Some("running"));
    assert_eq!(test.state(ids[1]).await.as_deref(), Some("available"));
    for table in ["ready", "delayed"] {
        test.run(format!("drop trigger refuse on rowlock.{table}")).await;
    }
    maintain_partitions(&test.db).await.unwrap();
    assert_eq!(test.state(ids[0]).await.as_deref(), Some("available"));
    assert_eq!(test.one::<i32>("select attempt::int from rowlock.ready order by k desc limit 1").await, 0);
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
