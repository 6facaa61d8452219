//! Slots in use never exceed the queue's total while instances join, leave and crash (R7).

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use rowlock_queue::{Db, Heartbeat, declare, heartbeat, leave};
use rowlock_tests::{TestDb, TestInstance, declaration};
use sqlx::PgPool;

const TOTAL: u32 = 20;
const FEWER: u32 = 5;

/// An instance that wants 8 slots for some heartbeats and then leaves or crashes. Counts the slots in use and
/// checks the total.
async fn live(db: &Db, pool: &PgPool, heartbeats: usize, lost: bool, in_use: &AtomicI64) {
    let instance = TestInstance::join(db, "a").await;
    let (mut workers, mut number) = (0, 0);
    for _ in 0..heartbeats {
        let says =
            Heartbeat { allocated: workers, acknowledged: number, held: workers, ..instance.says(0, 8) };
        let answer = heartbeat(db, &says).await.unwrap();
        let more = i64::from(answer.slots) - i64::from(workers);
        let now = in_use.fetch_add(more, Ordering::SeqCst) + more;
        assert!(now <= i64::from(TOTAL) || more <= 0, "{now} slots in use");
        (workers, number) = (answer.slots, answer.allocation);
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..10))).await;
    }
    in_use.fetch_sub(i64::from(workers), Ordering::SeqCst);
    if lost {
        let silent = "update rowlock.heartbeat set at = at - interval '20 seconds' where instance = $1";
        sqlx::query(silent).bind(instance.id().0).execute(pool).await.unwrap();
        let lost =
            "select rowlock.rescue($1, heartbeat) from rowlock.newest_heartbeats() where instance = $1";
        sqlx::query(lost).bind(instance.id().0).execute(pool).await.unwrap();
    } else {
        leave(db, instance.id()).await.unwrap();
    }
}

#[tokio::test]
async fn slots_in_use_never_exceed_the_total() {
    let test = TestDb::new().await;
    let in_use = Arc::new(AtomicI64::new(0));
    let end = Instant::now() + Duration::from_secs(4);
    let fleet: Vec<_> = (0..8)
        .map(|i| {
            let (db, pool, in_use) = (test.db.clone(), test.pool.clone(), in_use.clone());
            tokio::spawn(async move {
                while Instant::now() < end {
                    live(&db, &pool, 10 + i, i % 2 == 0, &in_use).await;
                }
            })
        })
        .collect();
    let mut generation = 2;
    while Instant::now() < end {
        let total_workers = if generation % 2 == 0 { TOTAL } else { FEWER };
        let changed = rowlock_queue::Declaration { total_workers, generation, ..declaration("mail") };
        declare(&test.db, &changed).await.unwrap();
        generation += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for instance in fleet {
        instance.await.unwrap();
    }
    assert_eq!(in_use.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_smaller_total_takes_slots_back_and_a_larger_one_allocates_them() {
    let test = TestDb::new().await;
    let instances = [test.instance("a").await, test.instance("b").await];
    let mut holding = [(0, 0); 2];
    for (generation, total) in [(2, 20), (3, 4), (4, 10), (5, 0), (6, 7)] {
        let changed = rowlock_queue::Declaration { total_workers: total, generation, ..declaration("mail") };
        declare(&test.db, &changed).await.unwrap();
        let mut heartbeats = 0;
        // Shares differ by at most one slot, and all slots are allocated.
        while holding[0].0 + holding[1].0 != total || 1 < holding[0].0.abs_diff(holding[1].0) {
            for (instance, held) in instances.iter().zip(&mut holding) {
                let says = Heartbeat {
                    allocated: held.0,
                    acknowledged: held.1,
                    held: held.0,
                    ..instance.says(0, 15)
                };
                let answer = heartbeat(&test.db, &says).await.unwrap();
                *held = (answer.slots, answer.allocation);
            }
            heartbeats += 1;
            assert!(heartbeats < 8, "total {total}: {holding:?}");
        }
    }
}
