//! What the statistics say for the number of workers: arrivals by second, runs, and how long tasks have run.

use std::time::{Duration, Instant};

use rowlock_queue::{
    ARRIVAL_SECONDS, Connect, EnqueueOptions, Heartbeat, Outcome, QueueStats, Runs, declare, enqueue,
    heartbeat, leave, queue_stats,
};
use rowlock_tests::{TestDb, TestInstance, declaration};
use rowlock_worker::{Fail, Shutdown, Task, Worker};

/// More than the newest tasks that statistics read.
const BULK: i64 = 110_000;

async fn stats(test: &TestDb, queue: &str) -> QueueStats {
    let all = queue_stats(&test.db).await.unwrap();
    all.into_iter().find(|stats| stats.name == queue).unwrap()
}

/// Inserts tasks as enqueue leaves them, in the second that was `ago` seconds before `second`.
async fn came(test: &TestDb, queue: &str, second: i64, ago: i64, tasks: i64) {
    test.run(format!(
        "insert into rowlock.task (id, queue, k_low, priority, type, payload)
         select (({second} - {ago})::bigint << 31) | ((nextval('rowlock.chunk_seq') & 8388607) << 8),
           (select id from rowlock.queue where name = '{queue}'), 0, 1, 'send', '{{}}'
         from generate_series(1, {tasks})"
    ))
    .await;
}

#[tokio::test]
async fn a_task_with_a_delay_is_no_arrival() {
    let test = TestDb::new().await;
    test.enqueue_many(3).await;
    let delay = Some(Duration::from_hours(1));
    for _ in 0..5 {
        test.enqueue_with(&EnqueueOptions { delay, ..EnqueueOptions::default() }).await;
    }
    let stats = stats(&test, "mail").await;
    assert_eq!((stats.available, stats.scheduled), (3, 5));
    assert_eq!(stats.arrivals.iter().sum::<u64>(), 3);
    assert_eq!(stats.enqueued.iter().sum::<u64>(), 8);
    assert_eq!(stats.arrivals_known, ARRIVAL_SECONDS);
    assert!((stats.arrivals_per_second() - 0.3).abs() < 1e-9, "{stats:?}");
}

#[tokio::test]
async fn an_arrival_counts_for_the_second_in_its_id() {
    let test = TestDb::new().await;
    let id = test.enqueue().await;
    for _ in 0..2 {
        let stats = stats(&test, "mail").await;
        let ago = usize::try_from(stats.arrivals_second - (id.0 >> 31)).unwrap();
        let mut expected = [0; ARRIVAL_SECONDS];
        expected[ago] = 1;
        assert_eq!(stats.arrivals, expected);
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
}

#[tokio::test]
async fn a_bulk_hides_older_arrivals_of_other_queues_and_the_statistics_say_so() {
    let test = TestDb::new().await;
    declare(&test.db, &declaration("small")).await.unwrap();
    let second = stats(&test, "small").await.arrivals_second;
    came(&test, "small", second, 6, 2).await;
    came(&test, "small", second, 1, 3).await;
    let before = stats(&test, "small").await;
    assert_eq!((before.arrivals.iter().sum::<u64>(), before.arrivals_known), (5, ARRIVAL_SECONDS));
    came(&test, "mail", second, 4, BULK).await;
    let after = stats(&test, "small").await;
    // The second of the bulk is counted in part.
    let bulk_ago = usize::try_from(after.arrivals_second - second + 4).unwrap();
    assert_eq!(after.arrivals_known, bulk_ago, "{after:?}");
    assert_eq!(after.arrivals.iter().sum::<u64>(), 3, "the others are zero: {after:?}");
    let bulk = stats(&test, "mail").await;
    assert_eq!(bulk.arrivals, [0; ARRIVAL_SECONDS], "its own arrivals are unknown too");
    // Ids from before a step of the clock may be of later seconds. They hide nothing.
    came(&test, "mail", after.arrivals_second, -30, BULK).await;
    assert!(stats(&test, "small").await.arrivals_known >= bulk_ago);
}

/// Before the fix, one instance could turn the sums of the whole queue into NaN, and no run counted.
#[tokio::test]
async fn what_no_run_can_take_counts_for_nothing() {
    let test = TestDb::new().await;
    let [honest, liar] = [test.instance("a").await, test.instance("b").await];
    reports(&honest, Runs { completed: 10, seconds: 5.0, seconds_squared: 2.5, failed: 1 }).await;
    for lie in [f64::NAN, f64::INFINITY, -1.0, 1e30] {
        reports(&liar, Runs { completed: 0, seconds: lie, seconds_squared: lie, failed: 0 }).await;
        let runs = stats(&test, "mail").await.runs;
        assert_eq!(runs, Runs { completed: 10, seconds: 5.0, seconds_squared: 2.5, failed: 1 }, "{lie}");
    }
}

/// What an instance reports.
async fn reports(instance: &TestInstance, runs: Runs) {
    let says = Heartbeat { runs, ..instance.says(0, 1) };
    heartbeat(&instance.db, &says).await.unwrap();
}

#[tokio::test]
async fn the_runs_of_all_live_instances_are_added_up() {
    let test = TestDb::new().await;
    let none = stats(&test, "mail").await;
    assert_eq!((none.runs, none.mean_service_seconds()), (Runs::default(), None));
    let (busy, slow) = (test.instance("busy").await, test.instance("slow").await);
    reports(&busy, Runs { completed: 1, seconds: 100.0, seconds_squared: 1e4, failed: 50 }).await;
    // Only the newest heartbeat counts: it is about the last two minutes.
    reports(&busy, Runs { completed: 90, seconds: 9.0, seconds_squared: 0.9, failed: 4 }).await;
    reports(&slow, Runs { completed: 10, seconds: 101.0, seconds_squared: 1021.0, failed: 1 }).await;
    let both = stats(&test, "mail").await;
    assert_eq!((both.runs.completed, both.runs.failed), (100, 5));
    assert!((both.runs.seconds_squared - 1021.9).abs() < 0.001, "{both:?}");
    // An average of both instances' averages would be 5.1 s.
    assert!(both.mean_service_seconds().is_some_and(|mean| (mean - 1.1).abs() < 1e-6), "{both:?}");
    leave(&test.db, slow.id()).await.unwrap();
    assert_eq!(stats(&test, "mail").await.runs.completed, 90);
}

#[tokio::test]
async fn a_worker_reports_runs_that_completed_or_failed_and_no_snooze() {
    let test = TestDb::new().await;
    let options = EnqueueOptions { max_attempts: Some(1), ..EnqueueOptions::default() };
    for kind in ["sleep", "sleep", "sleep", "fail", "fail", "snooze"] {
        enqueue(&test.db, "mail", kind, "{}", &options).await.unwrap();
    }
    let stop = Shutdown::new();
    let connect = Connect { max_connections: 2, ..test.connect() };
    let worker = Worker::builder(connect, "mail")
        .slots(2)
        .handler("sleep", async |_: Task| {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Ok(())
        })
        .handler("fail", async |_: Task| Err::<(), _>(Fail::retry("no")))
        .handler("snooze", async |_: Task| Err::<(), _>(Fail::snooze(Duration::from_hours(1))));
    let worker = tokio::spawn(worker.build().unwrap().run(stop.clone()));
    let began = Instant::now();
    let runs = loop {
        let stats = stats(&test, "mail").await;
        if stats.runs.completed + stats.runs.failed >= 5 && stats.retryable == 1 {
            break stats.runs;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "{stats:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    // One more heartbeat: a snooze that is reported late would show.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(stats(&test, "mail").await.runs, runs);
    assert_eq!((runs.completed, runs.failed), (3, 2));
    let mean = runs.mean_seconds().unwrap();
    assert!((0.2..2.0).contains(&mean), "{runs:?}");
    assert!(runs.seconds_squared >= 0.12, "{runs:?}");
    stop.drain();
    worker.await.unwrap().unwrap();
}

#[tokio::test]
async fn how_long_tasks_have_run_is_an_average_over_tasks() {
    let test = TestDb::new().await;
    test.enqueue_many(4).await;
    let mut instance = test.instance("a").await;
    assert_eq!(stats(&test, "mail").await.mean_running_seconds, None);
    let three = instance.claim(3).await;
    test.run("update rowlock.lease set at = at - interval '40 seconds'").await;
    instance.claim(1).await;
    let mean = async || stats(&test, "mail").await.mean_running_seconds.unwrap();
    let all = mean().await;
    assert!((30.0..33.0).contains(&all), "three of 40 s and one of 0 s: {all}");
    let mut one = rowlock_tests::settlements(&three, &Outcome::Complete { result: None });
    one.truncate(2);
    rowlock_queue::settle(&test.db, instance.id(), &one).await.unwrap();
    let rest = mean().await;
    assert!((20.0..23.0).contains(&rest), "one of 40 s and one of 0 s: {rest}");
    test.run("update rowlock.lease set at = at + interval '1 hour'").await;
    assert!(mean().await.abs() < f64::EPSILON, "after a step of the clock");
}
