//! The state of the database at the end, read in one snapshot.

use std::collections::HashMap;

use anyhow::{Context, Result};
use sqlx::{Connection, PgConnection, Row};

use crate::history::{Evidence, Failure, Final, State, TaskEnd, Totals};

/// `task_state` reads a day's receipts, so it is called for some tasks; the evidence is read for all.
const ASKED: i64 = 200;

const TASKS: &str = "select t.id, coalesce(t.max_attempts, q.max_attempts),
    case when t.id in (select x.id from rowlock.every_task x \
    order by md5(x.id::text) limit $1) then rowlock.task_state(t.id) end
  from rowlock.every_task t join rowlock.queue q on q.id = t.queue";

/// Every place where a task can be, one row for each that it is in.
const EVIDENCE: &str = "select d.id, 0, d.attempt from rowlock.delayed d
  union all select g, 0, r.attempt from rowlock.ready r, generate_series(r.id, r.id + r.n - 1) g
  union all select g, 0, u.attempt from rowlock.lease l, unnest(l.firsts, l.ns, l.attempts) u(f, n, attempt),
    generate_series(u.f, u.f + u.n - 1) g where g <> all (l.settled)
  union all select d.id, 2, d.attempt from rowlock.dead d
  union all select g, r.state, u.attempt from rowlock.receipt r, unnest(r.firsts, r.ns, r.attempts) u(f, n, \
  attempt),
    generate_series(u.f, u.f + u.n - 1) g";

/// A join whose answer was lost leaves an instance that has only the heartbeat of its join and no process.
const RESCUED: &str = "select i.name from rowlock.instance i
  where i.gone and 1 < (select count(*) from rowlock.heartbeat b where b.instance = i.id)";

/// The state of a database with this one queue.
pub async fn observe(url: &str, queue: &str) -> Result<Final> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query("begin isolation level repeatable read read only").execute(&mut connection).await?;
    let mut evidence: HashMap<i64, Vec<Evidence>> = HashMap::new();
    for row in sqlx::query(EVIDENCE).fetch_all(&mut connection).await? {
        let found = match row.try_get::<i32, _>(1)? {
            0 => State::Open,
            1 => State::Completed,
            2 => State::Dead,
            _ => State::Cancelled,
        };
        let attempt = u16::try_from(row.try_get::<i16, _>(2)?)?;
        evidence.entry(row.try_get(0)?).or_default().push(Evidence { state: found, attempt });
    }
    let mut tasks = Vec::new();
    for row in sqlx::query(TASKS).bind(ASKED).fetch_all(&mut connection).await? {
        let id = row.try_get(0)?;
        let max_attempts = u16::try_from(row.try_get::<i16, _>(1)?)?;
        let evidence = evidence.remove(&id).unwrap_or_default();
        tasks.push(TaskEnd { id, max_attempts, evidence, state: row.try_get(2)? });
    }
    // Evidence of a task without a row: it vanished or never existed.
    tasks.extend(evidence.into_iter().map(|(id, evidence)| TaskEnd {
        id,
        max_attempts: u16::MAX,
        evidence,
        state: None,
    }));
    let failures =
        sqlx::query("select id, attempt, error from rowlock.task_error").fetch_all(&mut connection);
    let failures = failures.await?.iter().map(failure).collect::<Result<_>>()?;
    let rescued = sqlx::query(RESCUED).fetch_all(&mut connection);
    let rescued = rescued.await?.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let totals = totals(&mut connection, queue).await?;
    connection.close().await?;
    Ok(Final { tasks, failures, totals, rescued })
}

fn failure(row: &sqlx::postgres::PgRow) -> Result<Failure> {
    let attempt = u16::try_from(row.try_get::<i16, _>(1)?)?;
    Ok(Failure { id: row.try_get(0)?, attempt, error: row.try_get(2)? })
}

async fn totals(connection: &mut PgConnection, queue: &str) -> Result<Totals> {
    let row = sqlx::query(
        "select enqueued, completed, dead, cancelled, open, untraced from rowlock.audit() where queue = $1",
    )
    .bind(queue)
    .fetch_optional(connection)
    .await?
    .context("the queue is not in the audit")?;
    Ok(Totals {
        enqueued: row.try_get(0)?,
        completed: row.try_get(1)?,
        dead: row.try_get(2)?,
        cancelled: row.try_get(3)?,
        open: row.try_get(4)?,
        untraced: row.try_get(5)?,
    })
}
