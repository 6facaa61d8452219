//! Servers that send almost what Postgres sends: each message stream is mutated at random.

use std::time::Duration;

use sqlx::Row;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    dial::Dialed,
    options::{Connect, UrlTrust},
    session::{Connector, Session, SessionMode},
    values::Servers,
};

/// How many mutated streams are tried.
const CASES: u64 = 2000;
/// Fewer for SCRAM, where each stream costs thousands of rounds.
const CASES_OF_SCRAM: u64 = 40;
/// How long to wait for a server that has sent everything. Other timeouts limit such a server in production.
const PATIENCE: Duration = Duration::from_millis(10);
/// The limit of the tests that forward long messages.
const LONGEST: Duration = Duration::from_secs(30);
/// Several times what the sockets and buffers in between hold.
const LONG: usize = 8 << 20;
const URL: &str = "postgres://u:p@localhost/d?sslmode=disable";

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// A value after its length.
fn value(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// The messages of a server without authentication until it is ready.
fn start() -> Vec<Vec<u8>> {
    vec![
        message(b'R', &[0; 4]),
        message(b'S', b"server_version\x0018.1\0"),
        message(b'S', b"in_hot_standby\0off\0"),
        message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0"),
        message(b'K', &[1; 8]),
        message(b'Z', b"I"),
    ]
}

/// The server's answer to [`QUERY`].
fn answer() -> Vec<Vec<u8>> {
    let column = |name: &str, oid: u32, size: i16| {
        let [numbers, rest] = [0_u32.to_be_bytes(), (-1_i32).to_be_bytes()];
        [name.as_bytes(), &[0], &numbers, &[0, 0], &oid.to_be_bytes(), &size.to_be_bytes(), &rest, &[0, 0]]
            .concat()
    };
    let columns = [
        column("a", 20, 8),
        column("b", 701, 8),
        column("c", 16, 1),
        column("d", 1016, -1),
        column("e", 25, -1),
    ];
    let array = [[1, 0, 20, 2, 1].map(u32::to_be_bytes).concat(), value(&[0; 8]), value(&[1; 8])].concat();
    let row = [
        value(&7_i64.to_be_bytes()),
        value(&0.5_f64.to_be_bytes()),
        value(&[1]),
        value(&array),
        value(b"text"),
    ];
    let row = message(b'D', &[&[0, 5][..], &row.concat()].concat());
    vec![
        message(b'1', &[]),
        message(b't', &[0, 1, 0, 0, 0, 20]),
        message(b'T', &[&[0, 5][..], &columns.concat()].concat()),
        message(b'Z', b"I"),
        message(b'2', &[]),
        row.clone(),
        message(b'A', b"\0\0\0\x01rowlock\x007\0"),
        row,
        message(b'C', b"SELECT 2\0"),
        message(b'Z', b"I"),
    ]
}

const QUERY: &str = "select a, b, c, d, e from f($1)";

fn connector() -> Connector {
    let connect = Connect { trust: UrlTrust::Tenant, ..Connect::new(URL, "test", 1) };
    Connector::new(&connect, SessionMode::Pooled).unwrap()
}

/// Connects to a server that sends these bytes, whatever it receives, and then nothing more.
async fn connect(connector: &Connector, sent: Vec<u8>) -> Option<Session> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move {
        let (mut reader, mut writer) = tokio::io::split(theirs);
        let _ = writer.write_all(&sent).await;
        let _ = reader.read_to_end(&mut Vec::new()).await;
    });
    let dialed = Dialed { stream: Box::new(ours), verified: false };
    let started = connector.begin(dialed, Servers::ReadWrite, "there".to_owned());
    started.await.ok()
}

/// Runs [`QUERY`] and returns the sum of its first column.
async fn ask(session: &mut Session) -> sqlx::Result<i64> {
    let query = sqlx::query(QUERY).bind(1_i64);
    let answer = session.run(async |connection| query.fetch_all(connection).await);
    let rows = answer.await?;
    rows.iter().try_fold(0, |sum, row| {
        let _: (Option<f64>, Option<bool>) = (row.try_get(1)?, row.try_get(2)?);
        let _: (Vec<Option<i64>>, String) = (row.try_get(3)?, row.try_get(4)?);
        Ok(sum + row.try_get::<i64, _>(0)?)
    })
}

/// Changes a few bytes of a few messages, or removes, repeats or truncates a message.
fn mutated(random: &mut fastrand::Rng, mut messages: Vec<Vec<u8>>) -> Vec<u8> {
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..messages.len());
        let message = &mut messages[at];
        match random.u8(..8) {
            0 => message.clear(),
            1 => message.extend_from_within(..),
            // The length is made to fit what is left.
            2 if message.len() > 5 => {
                message.truncate(random.usize(5..message.len()));
                let length = u32::try_from(message.len() - 1).unwrap();
                message[1..5].copy_from_slice(&length.to_be_bytes());
            }
            _ if message.is_empty() => (),
            3 => message[0] = *random.choice(b"RSKZETDtCNA123nIs").unwrap(),
            4 => {
                let at = random.usize(..message.len());
                message[at] = *random.choice(&[0, 1, 0x7f, 0x80, 0xff]).unwrap();
            }
            _ => {
                let at = random.usize(..message.len());
                message[at] = random.u8(..);
            }
        }
    }
    messages.concat()
}

#[tokio::test]
async fn a_mutated_stream_ends_in_an_answer_or_an_error() {
    let connector = connector();
    let all = || [start(), answer()].concat();
    let mut session = connect(&connector, all().concat()).await.expect("the unchanged stream is valid");
    assert_eq!(ask(&mut session).await.unwrap(), 14);
    let (mut began, mut answered) = (0, 0);
    for seed in 0..CASES {
        let sent = mutated(&mut fastrand::Rng::with_seed(seed), all());
        if let Ok(Some(mut session)) = timeout(PATIENCE, connect(&connector, sent)).await {
            began += 1;
            answered += u64::from(matches!(timeout(PATIENCE, ask(&mut session)).await, Ok(Ok(_))));
        }
    }
    assert!(0 < answered && answered < began && began < CASES, "{answered} of {began} of {CASES}");
}

#[tokio::test]
async fn messages_longer_than_the_buffers_are_passed_on() {
    let long = "x".repeat(LONG);
    let mut own = connector();
    own.target = Connect::new(URL, "test", 1).target().unwrap().into();
    let row = [
        value(&[0; 8]),
        value(&[0; 8]),
        value(&[1]),
        value(&0_u32.to_be_bytes().repeat(3)),
        value(long.as_bytes()),
    ];
    let mut answer = answer();
    answer[5] = message(b'D', &[&[0, 5][..], &row.concat()].concat());
    let sent = [start(), answer].concat().concat();
    for (parameter, sent) in [(long.as_str(), [start(), self::answer()].concat().concat()), ("short", sent)] {
        let mut inline = connect(&own, sent.clone()).await.expect("the unchanged stream is valid");
        let answer =
            inline.run(async |connection| sqlx::query(QUERY).bind(parameter).fetch_all(connection).await);
        assert_eq!(timeout(LONGEST, answer).await.expect("the answer arrives").unwrap().len(), 2);
        let mut spawned = connect(&own, sent).await.expect("the unchanged stream is valid");
        let answer = sqlx::query(QUERY).bind(parameter).fetch_all(spawned.connection());
        assert_eq!(timeout(LONGEST, answer).await.expect("the answer arrives").unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_mutated_scram_exchange_ends_in_an_error() {
    let connector = connector();
    let asks = |body: &[u8], code: u8| message(b'R', &[&[0, 0, 0, code][..], body].concat());
    let all = [
        asks(b"SCRAM-SHA-256\0\0", 10),
        asks(b"r=abcdef,s=QUJDREVGR0g=,i=4096", 11),
        asks(b"v=QUJDREVGR0g=", 12),
    ];
    for seed in 0..CASES_OF_SCRAM {
        let sent = mutated(&mut fastrand::Rng::with_seed(seed), all.to_vec());
        let started = timeout(20 * PATIENCE, connect(&connector, sent)).await;
        assert!(!matches!(started, Ok(Some(_))), "{seed}: the server does not know the password");
    }
}
