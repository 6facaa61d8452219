//! Claims while a transaction pins the xmin horizon, so that vacuum removes nothing: that of a reader with a
//! snapshot, or of a writer with a transaction id.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rowlock_queue::{
    Db, Heartbeat, InstanceId, Outcome, Runs, Settlement, Token, Watermarks, claim, heartbeat, join, leave,
    settle,
};
use sqlx::{Connection, Executor, PgConnection};
use tokio::time::sleep;

use crate::measurements::in_process::Instances;
use crate::measurements::produce::steadily;
use crate::samples::{median, millis};
use crate::table::{Better, Row};
use crate::testbed::{Database, QUEUE, Testbed};

const SLOTS: u32 = 64;
const WORK: Duration = Duration::from_millis(1);
const PER_SECOND: f64 = 5_000.0;
const PINNED: Duration = Duration::from_mins(10);
/// Without a pin nothing accumulates, so a shorter time will do.
const UNPINNED: Duration = Duration::from_mins(1);
/// Claims are timed at the end of that time.
const TIMED: Duration = Duration::from_secs(30);
const GOAL: f64 = 1.2;

/// Tasks of a timed claim, and the time between two.
const WANTED: u32 = 20;
const CLAIM_EVERY: Duration = Duration::from_millis(50);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
enum Pin {
    None,
    Reader,
    Writer,
}

/// Measured once, however many repeats there are, since it takes 21 minutes.
pub(crate) async fn measure(testbed: &Testbed) -> Result<Vec<Row>> {
    let unpinned = claim_p50(testbed, Pin::None).await?;
    let mut rows = Vec::new();
    for (pin, who) in [(Pin::Reader, "reader"), (Pin::Writer, "writer")] {
        let name = format!("claim at 5,000/s, horizon pinned by a {who}, p50");
        let pinned = claim_p50(testbed, pin).await?;
        rows.push(Row::with_peer(&name, pinned, "ms", "not pinned", unpinned, GOAL).better(Better::Lower));
    }
    Ok(rows)
}

async fn claim_p50(testbed: &Testbed, pin: Pin) -> Result<f64> {
    let database = testbed.queue(SLOTS + WANTED).await?;
    let mut pinning = PgConnection::connect(&database.url).await?;
    match pin {
        Pin::None => (),
        Pin::Reader => {
            pinning.execute("begin isolation level repeatable read").await?;
            pinning.execute("select count(*) from rowlock.queue").await?;
        }
        Pin::Writer => {
            pinning.execute("begin").await?;
            pinning.execute("select pg_current_xact_id()").await?;
        }
    }
    let length = testbed.window(if matches!(pin, Pin::None) { UNPINNED } else { PINNED });
    let instances = Instances::start(&database, 1, SLOTS, WORK)?;
    let timing = async {
        sleep(length.saturating_sub(testbed.window(TIMED))).await;
        time_claims(&database, testbed.window(TIMED)).await
    };
    let (_, samples) = tokio::try_join!(steadily(&database, PER_SECOND, length), timing)?;
    instances.drain().await?;
    pinning.close().await?;
    testbed.discard(database).await?;
    Ok(median(&samples))
}

/// Milliseconds of each claim of an instance beside the one that does the work.
async fn time_claims(database: &Database, length: Duration) -> Result<Vec<f64>> {
    let db = database.connect(1).await?;
    let joined = join(&db, QUEUE, "bench-claims", WANTED).await?;
    let (instance, mut watermarks) = (joined.instance, joined.watermarks);
    let (started, mut sent_at, mut samples) = (Instant::now(), None, Vec::new());
    while started.elapsed() < length {
        if sent_at.is_none_or(|sent_at: Instant| HEARTBEAT_EVERY < sent_at.elapsed()) {
            send_heartbeat(&db, instance, &mut watermarks).await?;
            sent_at = Some(Instant::now());
        }
        samples.extend(time_claim(&db, instance, &mut watermarks).await?);
        sleep(CLAIM_EVERY).await;
    }
    leave(&db, instance).await?;
    db.close().await;
    Ok(samples)
}

/// `None`: there was nothing to claim.
async fn time_claim(db: &Db, instance: InstanceId, watermarks: &mut Watermarks) -> Result<Option<f64>> {
    let sent = Instant::now();
    let claimed = claim(db, instance, WANTED, watermarks, Token::random()).await?;
    let took = millis(sent.elapsed());
    watermarks.advance(&claimed.watermark_observation);
    if claimed.tasks.is_empty() {
        return Ok(None);
    }
    let token = claimed.token.context("claimed tasks without a lease")?;
    let outcome = |task: &rowlock_queue::Claim| Settlement {
        token,
        task: task.id,
        outcome: Outcome::Complete { result: None },
    };
    settle(db, instance, &claimed.tasks.iter().map(outcome).collect::<Vec<_>>()).await?;
    Ok(Some(took))
}

async fn send_heartbeat(db: &Db, instance: InstanceId, watermarks: &mut Watermarks) -> Result<()> {
    let reply = heartbeat(
        db,
        &Heartbeat {
            instance,
            held: 0,
            wants: WANTED,
            allocated: 0,
            acknowledged: 0,
            watermarks,
            idle: false,
            runs: Runs::default(),
        },
    )
    .await?;
    watermarks.advance(&reply.watermark_observation);
    Ok(())
}
