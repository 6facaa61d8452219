//! Maintenance with hundreds of queues: waiting times do not depend on their number.

use std::time::{Duration, Instant};

use rowlock_queue::{
    Db, EnqueueOptions, HEARTBEAT_INTERVAL, Heartbeat, HeartbeatReply, Joined, Maintainer, Runs, TaskId,
    Watermarks, declare, enqueue, heartbeat, join,
};
use rowlock_tests::{TestDb, declaration};
use sqlx::{Executor, PgConnection, Row};

const QUEUES: usize = 200;

/// The time a worker leaves between two passes.
const BETWEEN: Duration = Duration::from_millis(1200);

/// The only instance of a queue.
struct Instance {
    db: Db,
    joined: Joined,
    watermarks: Watermarks,
    maintainer: Maintainer,
}

impl Instance {
    async fn join(test: &TestDb, queue: &str) -> Self {
        declare(&test.db, &declaration(queue)).await.unwrap();
        let joined = join(&test.db, queue, "only", 10).await.unwrap();
        let maintainer = Maintainer::of_instance(joined.instance, joined.queue);
        Self { db: test.db.clone(), watermarks: joined.watermarks.clone(), joined, maintainer }
    }

    async fn heartbeat(&mut self) -> HeartbeatReply {
        let says = Heartbeat {
            instance: self.joined.instance,
            held: 0,
            wants: 10,
            allocated: 0,
            acknowledged: 0,
            watermarks: &self.watermarks,
            idle: false,
            runs: Runs::default(),
        };
        let answer = heartbeat(&self.db, &says).await.unwrap();
        self.watermarks.advance(&answer.watermark_observation);
        self.maintainer.note(&answer.noted);
        answer
    }

    async fn pass(&mut self) -> rowlock_queue::MaintenanceReport {
        self.maintainer.run_once(&self.db, None, Some(&self.watermarks)).await.unwrap()
    }
}

/// One instance for each of many queues. Each gets the number of live instances.
async fn fleet(test: &TestDb) -> Vec<Instance> {
    let mut fleet = Vec::new();
    for n in 0..QUEUES {
        fleet.push(Instance::join(test, &format!("q{n}")).await);
    }
    for instance in &mut fleet {
        instance.heartbeat().await;
        instance.pass().await;
    }
    fleet
}

/// A task of queue `q7` below the watermarks of its claims: it is found after the producer commits.
async fn below_the_watermarks(test: &TestDb, instance: &mut Instance) -> PgConnection {
    let mut producer = test.session().await;
    producer.execute("begin; set constraints all immediate").await.unwrap();
    producer.execute("select rowlock.enqueue('q7', 'send', '{}')").await.unwrap();
    let k: i64 = producer.fetch_one("select max(k) from rowlock.ready").await.unwrap().get(0);
    test.run("select nextval('rowlock.k_seq')").await;
    while instance.watermarks.as_slice().iter().any(|watermark| *watermark <= k) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        instance.heartbeat().await;
    }
    producer
}

#[tokio::test]
async fn a_queue_among_hundreds_is_swept_as_soon_as_a_single_one() {
    let test = TestDb::empty().await;
    let mut fleet = fleet(&test).await;
    let instance = &mut fleet[7];
    let mut producer = below_the_watermarks(&test, instance).await;
    producer.execute("commit").await.unwrap();
    let committed = Instant::now();
    while instance.pass().await.missed_moved == 0 {
        assert!(committed.elapsed() < Duration::from_secs(12), "not swept yet");
        tokio::time::sleep(HEARTBEAT_INTERVAL / 2).await;
        instance.heartbeat().await;
    }
    eprintln!("swept {:?} after its commit", committed.elapsed());
}

#[tokio::test]
async fn a_due_task_among_hundreds_of_queues_is_moved_in_time() {
    let test = TestDb::empty().await;
    let end = Instant::now() + Duration::from_mins(1);
    let fleet = fleet(&test).await.into_iter().map(|mut instance| {
        tokio::spawn(async move {
            tokio::time::sleep(BETWEEN.mul_f64(fastrand::f64())).await;
            while Instant::now() < end {
                instance.pass().await;
                tokio::time::sleep(BETWEEN).await;
            }
        })
    });
    let fleet: Vec<_> = fleet.collect();
    let mut late = Vec::new();
    for _ in 0..15 {
        let options = EnqueueOptions { delay: Some(Duration::from_millis(100)), ..Default::default() };
        let id = enqueue(&test.db, "q7", "send", "{}", &options).await.unwrap();
        late.push(moved(&test, id).await);
    }
    fleet.iter().for_each(tokio::task::JoinHandle::abort);
    late.sort_unstable();
    eprintln!("moved p50 {:?}, at most {:?} after it was due", late[late.len() / 2], late[late.len() - 1]);
    assert!(late[late.len() - 1] < Duration::from_secs(5), "{late:?}");
}

/// About how long after its due time.
async fn moved(test: &TestDb, id: TaskId) -> Duration {
    let enqueued = Instant::now();
    while test.state(id).await.as_deref() == Some("scheduled") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    enqueued.elapsed().saturating_sub(Duration::from_millis(100))
}

/// Blocks a pass between its first write and its end.
const HOLD_UP: &str = "begin; lock table rowlock.ready in share mode";

#[tokio::test]
async fn a_delayed_sweep_does_not_skip_keys_drawn_in_the_meantime() {
    let test = TestDb::new().await;
    let mut claimer = test.instance("a").await;
    let mut maintainer = Maintainer::of_instance(claimer.id(), claimer.joined.queue);
    test.enqueue_due().await;
    let mut hold_up = test.session().await;
    hold_up.execute(HOLD_UP).await.unwrap();
    let mut producer = test.session().await;
    let waits =
        "select count(*) > 0 from pg_locks where not granted and relation = 'rowlock.ready'::regclass";
    let (report, k) = tokio::join!(maintainer.run_once(&test.db, None, None), async {
        while !test.one::<bool>(waits).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // It has an xid and then a k, like any producer. It gets no new k, as if its commit were delayed
        // after that.
        producer
            .execute("set session_replication_role = replica; begin; select pg_current_xact_id()")
            .await
            .unwrap();
        let k: i64 = producer.fetch_one("select nextval('rowlock.k_seq')").await.unwrap().get(0);
        test.run("select nextval('rowlock.k_seq')").await;
        hold_up.execute("rollback").await.unwrap();
        k
    });
    assert_eq!(report.unwrap().due_moved, 1);
    assert_eq!(claimer.claim(10).await.tasks.len(), 1);
    claimer.claim_past(k).await;
    for _ in 0..3 {
        maintainer.run_once(&test.db, None, Some(&claimer.watermarks)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    let insert = format!(
        "with t as (insert into rowlock.task (id, queue, priority, type, payload) \
            values (rowlock.id_at(now()) | 77, {0}, 1, 'send', '{{}}') returning id)
         insert into rowlock.ready (queue, shard, priority, k, id, n, attempt, fresh) \
         select {0}, {k} & 3, 1, {k}, id, 1, 0, false from t",
        claimer.joined.queue
    );
    producer.execute(sqlx::AssertSqlSafe(insert)).await.unwrap();
    producer.execute("commit").await.unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while maintainer.run_once(&test.db, None, Some(&claimer.watermarks)).await.unwrap().missed_moved == 0 {
        assert!(Instant::now() < end, "the exact watermark passed a task that no sweep had seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
