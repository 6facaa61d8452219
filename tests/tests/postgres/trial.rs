//! What a new handler costs that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rowlock_queue::Connect;
use rowlock_tests::TestDb;
use rowlock_worker::{Fail, Shutdown, Task, Worker};

/// Before, the slots of a handler that fails at once were free again at once, so it took most of the tasks.
#[tokio::test]
async fn a_new_handler_that_fails_at_once_costs_less_than_its_share_of_attempts() {
    const TASKS: usize = 2000;
    const GOOD: usize = 9;
    const SLOTS: u32 = 4;
    let test = TestDb::new().await;
    test.enqueue_many(TASKS).await;
    let stop = Shutdown::new();
    let connect = || Connect { max_connections: 2, application_name: "instance".into(), ..test.connect() };
    let (failed, completed) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counter = Arc::clone(&failed);
    let bad = Worker::builder(connect(), "mail").slots(SLOTS).handler("send", move |_: Task| {
        counter.fetch_add(1, Ordering::Relaxed);
        async { Err::<(), _>(Fail::retry("broken")) }
    });
    let mut workers = vec![tokio::spawn(bad.build().unwrap().run(stop.clone()))];
    for _ in 0..GOOD {
        let counter = Arc::clone(&completed);
        let good = Worker::builder(connect(), "mail").slots(SLOTS).handler("send", move |_: Task| {
            let counter = Arc::clone(&counter);
            async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                counter.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        });
        workers.push(tokio::spawn(good.build().unwrap().run(stop.clone())));
    }
    let most = u32::try_from(TASKS / (GOOD + 1)).unwrap();
    let until = async {
        let count = || (completed.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
        while let (completed, failed) = count()
            && usize::try_from(completed).unwrap() < TASKS / 2
        {
            assert!(failed <= most, "{failed} failed, {completed} completed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        count()
    };
    let (completed, failed) = tokio::time::timeout(Duration::from_mins(1), until).await.unwrap();
    stop.drain();
    for worker in workers {
        worker.await.unwrap().unwrap();
    }
    eprintln!("{failed} runs failed and {completed} completed");
    assert!((10..=most / 2).contains(&failed), "{failed} failed, {completed} completed");
}
