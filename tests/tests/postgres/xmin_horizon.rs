//! The xmin horizon is pinned under load: no dead row is removed, and claims stay as fast as before.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rowlock_queue::{Outcome, Token};
use rowlock_tests::{TestDb, TestInstance, soaks};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Enqueued by one statement each, so that each leaves a dead row: 2,000 per second if the machine can.
const BATCH: &str = "select rowlock.enqueue('mail', 'send', '{}') from generate_series(1, 20)";
const EVERY: Duration = Duration::from_millis(10);
const WANT: u32 = 20;
/// How long it is pinned.
const PINNED: Duration = Duration::from_secs(10);
const PINNED_LONG: Duration = Duration::from_mins(1);
const BEFORE: Duration = Duration::from_secs(3);
/// A walk through the dead rows would be this many times as slow; noise makes it twice as slow. And whatever
/// is below a few milliseconds is noise.
const RATIO: u32 = 3;
const NOISE: Duration = Duration::from_millis(3);
/// A claim of an empty queue that touches fewer pages than this reads no dead rows; otherwise it would touch
/// one page per dead row.
const PAGES: i64 = 2500;
/// How far the pages of one claim may vary with where its rows are. A session that must read the catalogs
/// again, because others invalidated its cache, needs 1,500; reading the whole backlog costs 5,000 and more.
const SPREAD: i64 = 2500;
/// With fewer dead rows the test proves nothing.
const DEAD: u64 = 5000;

#[tokio::test]
async fn a_long_read_transaction_slows_no_claim() {
    claims_stay_quick_beside("begin isolation level repeatable read; select count(*) from rowlock.queue")
        .await;
}

#[tokio::test]
async fn a_long_write_transaction_slows_no_claim() {
    let enqueue = "begin; select rowlock.enqueue('mail', 'send', '{}', '{\"priority\": 3}')";
    claims_stay_quick_beside(enqueue).await;
}

async fn claims_stay_quick_beside(pin: &'static str) {
    let test = TestDb::new().await;
    let mut instance = test.instance("a").await;
    let stop = CancellationToken::new();
    let enqueued = Arc::new(AtomicU64::new(0));
    let load = tokio::spawn(load(test.session().await, Arc::clone(&enqueued), stop.clone()));
    let before = work(&mut instance, BEFORE).await;
    let mut pinning = test.session().await;
    pinning.execute(pin).await.unwrap();
    let so_far = enqueued.load(Ordering::SeqCst);
    let during = work(&mut instance, if soaks() { PINNED_LONG } else { PINNED }).await;
    stop.cancel();
    load.await.unwrap();
    let dead = enqueued.load(Ordering::SeqCst) - so_far;
    eprintln!("claims took {before:?} before and {during:?} with {dead} dead rows ({pin})");
    assert!(DEAD < dead, "only {dead} dead rows: too few for this test");
    assert!(
        during < before * RATIO + NOISE,
        "claims took {before:?} before, and {during:?} with {dead} dead rows"
    );
    // All tasks are claimed, and the watermarks pass all dead rows.
    let newest = test.one("select last_value from rowlock.k_seq").await;
    test.run("select nextval('rowlock.k_seq')").await;
    while !instance.claim(1000).await.tasks.is_empty() {}
    instance.claim_past(newest).await;
    let mut session = test.session().await;
    let pages = least_pages(&mut session, &instance).await;
    assert!(pages < PAGES, "a claim of an empty queue touched {pages} pages with {dead} dead rows");
    // The writer's task is available as soon as it commits.
    pinning.execute("commit").await.unwrap();
    let left = instance.claim(10).await.tasks.len();
    assert_eq!(left, usize::from(pin.contains("enqueue")));
}

async fn load(mut session: PgConnection, enqueued: Arc<AtomicU64>, stop: CancellationToken) {
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        every.tick().await;
        let rows = session.fetch_all(BATCH).await.unwrap();
        enqueued.fetch_add(rows.len() as u64, Ordering::SeqCst);
    }
}

/// Claims and completes tasks for this long. Returns the median of the claims that found tasks.
async fn work(instance: &mut TestInstance, duration: Duration) -> Duration {
    let since = Instant::now();
    let mut took = Vec::new();
    while since.elapsed() < duration {
        let asked = Instant::now();
        let claimed = instance.claim(WANT).await;
        if claimed.tasks.is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        }
        took.push(asked.elapsed());
        instance.settle(&claimed, &Outcome::Complete { result: None }).await;
    }
    took.sort_unstable();
    took[took.len() / 2]
}

/// The minimum of several claims: the first of a session, and one after a vacuum, also plans and reads the
/// catalogs.
async fn least_pages(session: &mut PgConnection, instance: &TestInstance) -> i64 {
    let mut least = i64::MAX;
    for _ in 0..8 {
        least = least.min(pages_of_a_claim(session, instance).await);
    }
    least
}

/// Pages of shared buffers, counted by the server.
async fn pages_of_a_claim(session: &mut PgConnection, instance: &TestInstance) -> i64 {
    let watermarks = instance.watermarks.as_slice().iter().map(i64::to_string).collect::<Vec<_>>().join(",");
    let explain = format!(
        "explain (analyze, buffers, format json) select * \
            from rowlock.claim({}, {WANT}, array[{watermarks}]::bigint[], 0, {})",
        instance.id(),
        Token::random()
    );
    let row = session.fetch_one(AssertSqlSafe(explain)).await.unwrap();
    let plan = row.get::<serde_json::Value, _>(0);
    let blocks = |name| plan[0]["Plan"][name].as_i64().unwrap();
    blocks("Shared Hit Blocks") + blocks("Shared Read Blocks")
}

#[tokio::test]
async fn a_claim_costs_the_same_for_any_backlog() {
    let test = TestDb::new().await;
    let instance = test.instance("a").await;
    let mut session = test.session().await;
    let mut few = 0;
    // More than five runs, after which Postgres keeps a generic plan: here that of a small table.
    for _ in 0..10 {
        test.run(BATCH).await;
        few = pages_of_a_claim(&mut session, &instance).await;
    }
    test.run("select count(rowlock.enqueue('mail', 'send', '{}')) from generate_series(1, 20000)").await;
    for session in [&mut session, &mut test.session().await] {
        let many = least_pages(session, &instance).await;
        assert!(many < 2 * few + SPREAD, "{many} pages of a large backlog, {few} of a small one");
    }
}
