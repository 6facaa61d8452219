//! Tenants' servers that send long answers. Some are well-behaved, others never end an answer.

use std::{pin::pin, sync::Arc};

use sqlx::postgres::PgRow;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    task::consume_budget,
    time::{sleep, timeout},
};

use super::*;
use crate::{
    Tenants,
    connect::{
        Connect, Connector, SessionMode, UrlTrust,
        dial::{Dialed, Stream},
        session::Session,
        values::Servers,
    },
};

/// The message with which a client ends a request.
const SYNC: [u8; 5] = [b'S', 0, 0, 0, 4];
/// The number of long answers in memory at a time.
const ALL_PERMITS: usize = 4;
/// Whatever does not have to wait is done within this time, also on a busy machine.
const SOON: Duration = Duration::from_secs(1);
/// Longer than a long answer may take, shorter than a statement may take.
const SLOW: Duration = Duration::from_millis(2500);

/// Rows of an answer that needs a permit.
const LONG_ROWS: usize = SHORT_MESSAGES as usize + 10;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// One column of text.
fn prepared() -> Vec<u8> {
    let column = [b"a\0".as_slice(), &[0; 6], &25_u32.to_be_bytes(), &[0xff; 6], &[0, 0]].concat();
    let columns = message(b'T', &[&[0, 1][..], &column].concat());
    [message(b'1', &[]), message(b't', &[0, 0]), columns, message(b'Z', b"I")].concat()
}

fn rows(count: usize) -> Vec<u8> {
    [message(b'2', &[]), message(b'D', &[0, 1, 0, 0, 0, 1, b'x']).repeat(count)].concat()
}

fn end() -> Vec<u8> {
    [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()
}

fn long() -> Vec<u8> {
    [rows(LONG_ROWS), end()].concat()
}

/// Sends one part of the script per request, each after a delay. After a part without an end it continues
/// with rows, one byte at a time.
async fn serve(mut stream: DuplexStream, script: Vec<(Duration, Vec<u8>)>) -> std::io::Result<()> {
    let start = [message(b'R', &[0; 4]), message(b'K', &[1; 8]), message(b'Z', b"I")].concat();
    stream.write_all(&start).await?;
    let (mut received, mut at) = (Vec::new(), 0);
    for (delay, part) in script {
        loop {
            if let Some(found) = received[at..].windows(SYNC.len()).position(|bytes| *bytes == SYNC) {
                at += found + SYNC.len();
                break;
            }
            if stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        }
        sleep(delay).await;
        stream.write_all(&part).await?;
        if !part.ends_with(&message(b'Z', b"I")) {
            for byte in message(b'D', &[0, 1, 0, 0, 0, 1, b'x']).iter().cycle() {
                sleep(Duration::from_millis(50)).await;
                stream.write_all(&[*byte]).await?;
            }
        }
    }
    stream.read_to_end(&mut Vec::new()).await.map(drop)
}

async fn connect(tenant: &Tenant, script: Vec<(Duration, Vec<u8>)>) -> Session {
    let (ours, theirs) = duplex(1 << 20);
    tokio::spawn(serve(theirs, script));
    begin(tenant, Box::new(ours)).await
}

async fn begin(tenant: &Tenant, stream: Box<dyn Stream>) -> Session {
    let url = "postgres://u:p@localhost/d?sslmode=disable";
    let tenant = Some(tenant.clone());
    let connect = Connect { trust: UrlTrust::Tenant, tenant, ..Connect::new(url, "test", 1) };
    let connector = Connector::new(&connect, SessionMode::Pooled).unwrap();
    let dialed = Dialed { stream, verified: false };
    let started = connector.begin(dialed, Servers::ReadWrite, "there".to_owned()).await;
    started.unwrap_or_else(|failed| panic!("{failed:?}"))
}

async fn ask(session: &mut Session) -> sqlx::Result<Vec<PgRow>> {
    session.run(async |connection| sqlx::query("select a from f()").fetch_all(connection).await).await
}

fn at_once(part: Vec<u8>) -> (Duration, Vec<u8>) {
    (Duration::ZERO, part)
}

#[tokio::test]
async fn a_server_that_does_not_end_a_long_answer_is_cut_off_and_another_tenant_gets_its_permit() {
    let all = Arc::new(Tenants::default());
    let mut hostile = Vec::new();
    for number in 0..ALL_PERMITS {
        let script = vec![at_once(prepared()), at_once(rows(LONG_ROWS))];
        let mut session = connect(&all.tenant(&format!("hostile-{number}")), script).await;
        hostile.push(tokio::spawn(async move {
            let answer = timeout(LONG_ANSWER_TIMEOUT + SOON, ask(&mut session)).await;
            (answer.expect("it is cut off").map(drop), session.fault())
        }));
    }
    let friendly = all.tenant("friendly");
    let mut session = connect(&friendly, vec![at_once(prepared()), at_once(long())]).await;
    while timeout(Duration::from_millis(1), all.tenant("another").answer_permit()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let waited = Instant::now();
    let rows =
        timeout(LONG_ANSWER_TIMEOUT + SOON, ask(&mut session)).await.expect("it gets a permit").unwrap();
    assert_eq!(rows.len(), LONG_ROWS);
    assert!(Duration::from_secs(1) < waited.elapsed(), "all permits were in use");
    for session in hostile {
        let (answer, fault) = session.await.unwrap();
        let fault = fault.expect("the reason is known").to_string();
        assert!(answer.is_err() && fault.contains("was not complete within 2s"), "{fault}");
    }
}

#[tokio::test]
async fn a_short_answer_after_a_long_one_has_no_deadline() {
    let tenant = Arc::new(Tenants::default()).tenant("friendly");
    let short = [rows(1), end()].concat();
    let script = vec![at_once(prepared()), at_once(long()), (SLOW, short)];
    let mut session = connect(&tenant, script).await;
    assert_eq!(ask(&mut session).await.unwrap().len(), LONG_ROWS);
    let answer = ask(&mut session).await;
    assert_eq!(answer.unwrap_or_else(|_| panic!("{:?}", session.fault())).len(), 1);
}

#[tokio::test]
async fn a_connection_can_be_reused_after_a_long_answer() {
    let tenant = Arc::new(Tenants::default()).tenant("friendly");
    let short = || at_once([rows(1), end()].concat());
    let script = vec![at_once(prepared()), at_once(long()), short(), at_once(long()), short()];
    let mut session = connect(&tenant, script).await;
    assert_eq!(ask(&mut session).await.unwrap().len(), LONG_ROWS);
    let question = sqlx::query("select a from f()");
    let answer = question.fetch_all(session.connection()).await;
    assert_eq!(answer.unwrap_or_else(|_| panic!("{:?}", session.fault())).len(), 1);
    // From now on another task forwards the bytes.
    assert_eq!(ask(&mut session).await.unwrap().len(), LONG_ROWS);
    sleep(SLOW).await;
    let answer = ask(&mut session).await;
    assert_eq!(answer.unwrap_or_else(|_| panic!("{:?}", session.fault())).len(), 1);
}

#[tokio::test]
async fn after_an_orderly_close_the_tenant_may_send_another_long_answer_at_once() {
    let tenant = Arc::new(Tenants::default()).tenant("friendly");
    let mut session = connect(&tenant, vec![at_once(prepared()), at_once(long())]).await;
    assert_eq!(ask(&mut session).await.unwrap().len(), LONG_ROWS);
    session.close().await;
    assert!(
        timeout(SOON, tenant.answer_permit()).await.is_ok_and(|permit| permit.is_some()),
        "it has to wait"
    );
}

/// A socket from which there is always more to read: a long answer, then notifications without end.
struct Flood {
    first: Vec<u8>,
    then: Vec<u8>,
    at: usize,
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        // Like every socket of the runtime, it yields to other tasks now and then.
        ready!(pin!(consume_budget()).poll(cx));
        while 0 < buffer.remaining() {
            let from = match self.at.checked_sub(self.first.len()) {
                None => &self.first[self.at..],
                Some(beyond) => &self.then[beyond % self.then.len()..],
            };
            let count = from.len().min(buffer.remaining());
            buffer.put_slice(&from[..count]);
            self.at += count;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The deadline must also be checked while there is always more to read.
#[tokio::test]
async fn a_server_that_never_pauses_in_a_long_answer_is_cut_off_too() {
    let start = [message(b'R', &[0; 4]), message(b'K', &[1; 8]), message(b'Z', b"I")].concat();
    let first = [start, prepared(), rows(LONG_ROWS)].concat();
    let then = message(b'A', b"\0\0\0\x01rowlock\x007\0").repeat(1000);
    let tenant = Arc::new(Tenants::default()).tenant("hostile");
    let mut session = begin(&tenant, Box::new(Flood { first, then, at: 0 })).await;
    let answer = timeout(LONG_ANSWER_TIMEOUT + SOON, ask(&mut session)).await.expect("it is cut off");
    let fault = session.fault().expect("the reason is known").to_string();
    assert!(answer.is_err() && fault.contains("was not complete within 2s"), "{fault}");
}
