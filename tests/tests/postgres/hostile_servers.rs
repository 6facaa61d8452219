//! A hostile program listens where a URL points: it gets no password and cannot exhaust the memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rowlock_queue::{Connect, Db, Error, UrlTrust};
use rowlock_tests::TestDb;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
    sync::mpsc,
};

use crate::fake_server::{FakeServer, SSL_REQUEST, message, port_of, refusal, startup};

/// The error for everything that does not speak the protocol, so that it does not reveal what listens there.
const NO_POSTGRES: &str = "the program at this address does not speak the Postgres protocol";

/// How much a server may send before it is ready, plus the buffers of the sockets. A client without a limit
/// would read gigabytes.
const MOST_TAKEN: u64 = 16 << 20;

async fn refused(connect: &Connect) -> Error {
    let since = Instant::now();
    let error = Db::connect(connect).await.expect_err("it is not a Postgres server");
    assert!(since.elapsed() < Duration::from_secs(9), "{error}: after {:?}", since.elapsed());
    let place = connect.location().unwrap();
    assert!(error.to_string().starts_with(&format!("{place}: ")), "{error}");
    assert!(!error.to_string().contains("SECRET"), "{error}");
    error
}

async fn check_no_postgres(fake_server: &FakeServer) {
    for trust in [UrlTrust::Own, UrlTrust::Tenant] {
        let error = refused(&Connect { trust, ..fake_server.connect("") }).await;
        assert!(matches!(&error, Error::Unreachable(output) if output.contains(NO_POSTGRES)), "{error:?}");
    }
}

/// A server that sends this as soon as it receives anything.
async fn saying(output: Vec<u8>) -> FakeServer {
    FakeServer::start(move |mut stream| {
        let output = output.clone();
        async move {
            startup(&mut stream).await?;
            stream.write_all(&output).await?;
            stream.read_u8().await.map(drop)
        }
    })
    .await
}

#[tokio::test]
async fn impossible_message_lengths_close_the_connection() {
    // Before the fix, a length of 2 caused a panic, and a length of 2 GiB allocated as much memory.
    for length in [0, 2, 3, 1 << 31, u32::MAX] {
        for kind in [b'R', b'S', b'E', b'Z'] {
            let output = [&[kind][..], &u32::to_be_bytes(length)].concat();
            check_no_postgres(&saying(output).await).await;
        }
    }
}

#[tokio::test]
async fn endless_server_parameters_close_the_connection() {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let fake_server = FakeServer::start(move |mut stream| {
        let sent = Arc::clone(&counted);
        async move {
            startup(&mut stream).await?;
            stream.write_all(&message(b'R', &[0; 4])).await?;
            for number in 0_u64.. {
                let report = message(b'S', format!("p{number}\0{}\0", "x".repeat(4000)).as_bytes());
                stream.write_all(&report).await?;
                sent.fetch_add(report.len() as u64, Ordering::Relaxed);
            }
            Ok(())
        }
    })
    .await;
    check_no_postgres(&fake_server).await;
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < MOST_TAKEN, "{sent} bytes were taken in");
}

#[tokio::test]
async fn the_error_does_not_reveal_which_other_protocol_answered() {
    // In answer to the SSLRequest or to the startup message: HTTP, SSH, zeros, and HTTP after a refusal of
    // TLS.
    for output in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "SSH-2.0-x\r\n",
        "\0\0\0\0\0\0\0\0",
        "NHTTP/1.1 400 Bad Request\r\n",
    ] {
        let fake_server = FakeServer::start(move |mut stream| async move {
            stream.write_all(output.as_bytes()).await?;
            stream.read_to_end(&mut Vec::new()).await.map(drop)
        })
        .await;
        check_no_postgres(&fake_server).await;
    }
}

/// Forwards both directions. Once the client has sent `words`, it begins an endless message.
async fn endless_after(words: &'static str, test: &TestDb) -> FakeServer {
    let server = port_of(test);
    FakeServer::start(move |mut client| async move {
        let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
        let first = startup(&mut client).await?;
        server.write_all(&first).await?;
        let (mut asks, mut to_client) = client.split();
        let (mut answers, mut asked) = server.split();
        let asking = async {
            let mut bytes = [0; 4096];
            loop {
                let n = asks.read(&mut bytes).await?;
                if bytes[..n].windows(words.len()).any(|part| part == words.as_bytes()) {
                    return std::io::Result::Ok(());
                }
                asked.write_all(&bytes[..n]).await?;
            }
        };
        tokio::select! {
            _ = tokio::io::copy(&mut answers, &mut to_client) => return Ok(()),
            _ = asking => (),
        }
        to_client.write_all(&[b'D', 0x7f, 0xff, 0xff, 0xff]).await?;
        asks.read_to_end(&mut Vec::new()).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn an_endless_message_closes_an_established_session() {
    let test = TestDb::new().await;
    let fake_server = endless_after("from rowlock.statis", &test).await;
    let db = Db::connect(&fake_server.connect_to(&test, "")).await.unwrap();
    let error = rowlock_queue::queue_stats(&db).await.expect_err("no row may be that long");
    assert!(matches!(&error, Error::Unreachable(output) if output.contains(NO_POSTGRES)), "{error:?}");
}

/// Before the fix, the error said that the connection was lost, but not why.
#[tokio::test]
async fn an_endless_message_at_the_start_or_while_listening_is_named_as_the_reason() {
    let test = TestDb::new().await;
    for words in ["rowlock.direct', true", "LISTEN"] {
        let fake_server = endless_after(words, &test).await;
        let error = rowlock_queue::listen(&fake_server.connect_to(&test, "")).await.expect_err(words);
        assert!(
            matches!(&error, Error::Unreachable(said) if said.contains(NO_POSTGRES)),
            "{words}: {error:?}"
        );
    }
}

/// Forwards both directions. Once the client has sent `words`, the next row has an empty value.
async fn empty_value_after(words: &'static [u8], mut client: TcpStream, server: u16) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
    let first = startup(&mut client).await?;
    server.write_all(&first).await?;
    let (mut asks, mut to_client) = client.split();
    let (mut answers, mut asked) = server.split();
    let output = AtomicU64::new(0);
    let asking = async {
        let mut bytes = vec![0; 65536];
        loop {
            let n = asks.read(&mut bytes).await?;
            if n == 0 {
                return std::io::Result::Ok(());
            }
            if bytes[..n].windows(words.len()).any(|part| part == words) {
                output.store(1, Ordering::SeqCst);
            }
            asked.write_all(&bytes[..n]).await?;
        }
    };
    let answering = async {
        loop {
            let kind = answers.read_u8().await?;
            let mut body = vec![0; usize::try_from(answers.read_u32().await?).unwrap() - 4];
            answers.read_exact(&mut body).await?;
            if kind == b'D' && output.swap(0, Ordering::SeqCst) == 1 {
                body = [&1_u16.to_be_bytes()[..], &0_u32.to_be_bytes()].concat();
            }
            to_client.write_all(&message(kind, &body)).await?;
        }
    };
    tokio::select! {
        ended = asking => ended,
        ended = answering => ended,
    }
}

/// Before the fix, a value that makes sqlx panic ended the migrating program: in the operator, the controller
/// of a database.
#[tokio::test]
async fn a_server_that_sends_wrong_values_does_not_crash_a_migration() {
    let test = TestDb::new().await;
    let server = port_of(&test);
    let fake_server =
        FakeServer::start(move |client| empty_value_after(b"puballtables", client, server)).await;
    let db = Db::connect(&fake_server.connect_to(&test, "")).await.unwrap();
    let error = db.migrate().await.expect_err("an empty value is not a boolean");
    assert!(matches!(&error, Error::Unreachable(_)), "{error:?}");
    // The failed connection is not used again.
    test.db.migrate().await.unwrap();
}

/// Asks for the password and reports the answer.
async fn asking(question: Vec<u8>, told: mpsc::UnboundedSender<Vec<u8>>) -> FakeServer {
    FakeServer::start(move |mut stream| {
        let (question, told) = (question.clone(), told.clone());
        async move {
            startup(&mut stream).await?;
            stream.write_all(&message(b'R', &question)).await?;
            let mut answer = [0; 100];
            let n = stream.read(&mut answer).await?;
            let _ = told.send(answer[..n].to_vec());
            stream.write_all(&refusal("28P01", "password authentication failed for user \"app\"")).await
        }
    })
    .await
}

#[tokio::test]
async fn the_password_is_never_sent_in_clear_text_over_an_untrusted_connection() {
    // Before the fix, the first one got it in clear text.
    for (question, name) in [(vec![0, 0, 0, 3], "password"), (vec![0, 0, 0, 5, 1, 2, 3, 4], "md5")] {
        let (told, mut answers) = mpsc::unbounded_channel();
        let fake_server = asking(question, told).await;
        for query in
            ["", "?sslmode=disable", "?sslmode=allow", "?require_auth=scram-sha-256", "?require_auth=!none"]
        {
            let error = refused(&fake_server.connect(query)).await;
            let Error::Login(output) = &error else { panic!("{query}: {error:?}") };
            assert!(output.contains("sslmode=verify-full") || output.contains("require_auth"), "{output}");
            let answer = answers.recv().await.unwrap();
            assert!(answer.is_empty(), "{query}: it got {answer:?}");
        }
        let error = refused(&fake_server.connect(&format!("?require_auth={name}"))).await;
        assert!(error.to_string().contains("password authentication failed"), "{error}");
        assert_eq!(answers.recv().await.unwrap()[0], b'p', "the URL says so");
    }
}

#[tokio::test]
async fn an_unverified_server_cannot_raise_the_scram_iteration_count() {
    for rounds in [1, 4000, 4_000_000_000_u32] {
        let fake_server = FakeServer::start(move |mut stream| async move {
            startup(&mut stream).await?;
            stream.write_all(&message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")).await?;
            let asked = stream.read(&mut [0; 1000]).await?;
            assert!(asked > 0);
            let first = format!("\0\0\0\x0br=x,s=QUJD,i={rounds}");
            stream.write_all(&message(b'R', first.as_bytes())).await?;
            let proof = stream.read(&mut [0; 1000]).await?;
            assert_eq!(proof, 0, "no proof from which the password can be guessed");
            Ok(())
        })
        .await;
        // Before the fix, one round was accepted, which protects nothing, and a huge count took seconds of
        // CPU.
        let error = refused(&fake_server.connect("?sslmode=disable")).await;
        assert!(
            matches!(&error, Error::Login(output) if output.contains(&format!("{rounds} SCRAM rounds"))),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn truncated_messages_close_the_connection() {
    // Before the fix, each of these caused a panic.
    for output in [message(b'Z', &[]), message(b'K', &[1]), message(b'S', &[]), message(b'R', &[0; 3])] {
        let output = [message(b'R', &[0; 4]), output].concat();
        check_no_postgres(&saying(output).await).await;
    }
}

#[tokio::test]
async fn an_endless_notice_closes_the_connection() {
    // Before the fix, sqlx read all of it and logged it at the level that the server chose.
    let long = format!("SERROR\0VERROR\0C00000\0M{}\0\0", "x".repeat(1 << 20));
    let fake_server = saying([message(b'R', &[0; 4]), message(b'N', long.as_bytes())].concat()).await;
    check_no_postgres(&fake_server).await;
}

#[tokio::test]
async fn require_auth_refuses_a_server_that_asks_for_no_password() {
    let ready = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
    let fake_server = saying(ready).await;
    let error = refused(&fake_server.connect("?require_auth=scram-sha-256")).await;
    assert!(matches!(&error, Error::Login(output) if output.contains("`none`")), "{error:?}");
}

#[tokio::test]
async fn a_url_from_a_tenant_opens_no_file_and_no_refused_address() {
    let fake_server =
        FakeServer::start(|mut stream: TcpStream| async move { stream.write_all(b"S").await }).await;
    for file in ["/dev/zero", "/etc/hostname", "/nowhere"] {
        let query = format!("?sslmode=verify-full&sslrootcert={file}");
        let connect = Connect { trust: UrlTrust::Tenant, ..fake_server.connect(&query) };
        let error = Db::connect(&connect).await.expect_err("it names a file");
        assert!(matches!(&error, Error::Url(output) if output.contains("sslrootcert")), "{error:?}");
        assert!(!error.to_string().contains(file), "the same message for every file: {error}");
    }
    assert_eq!(fake_server.connections(), 0);
    // The user's own file is also read only up to a limit.
    let error = refused(&fake_server.connect("?sslmode=verify-full&sslrootcert=/dev/zero")).await;
    assert!(matches!(&error, Error::Tls(output) if output.contains("not a regular file")), "{error:?}");
}

/// Refuses `options` in the startup message as proxies do, and forwards everything else.
async fn proxy(test: &TestDb, refuses: Vec<u8>) -> FakeServer {
    let server = port_of(test);
    FakeServer::start(move |mut client| {
        let refuses = refuses.clone();
        async move {
            let first = startup(&mut client).await?;
            if first.windows(8).any(|name| name == b"options\0") {
                return client.write_all(&refuses).await;
            }
            let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
            server.write_all(&first).await?;
            copy_bidirectional(&mut client, &mut server).await.map(drop)
        }
    })
    .await
}

#[tokio::test]
async fn a_proxy_that_refuses_options_is_a_pooler() {
    let test = TestDb::new().await;
    let refusals = [
        // The first is RDS Proxy's; before, only the second was recognized.
        ("0A000", "Feature not supported: RDS Proxy currently doesn't support command-line options."),
        ("08P01", "unsupported startup parameter: options"),
        ("XX000", "unsupported startup parameter in options: rowlock.direct"),
    ];
    for (code, text) in refusals {
        let fake_server = proxy(&test, refusal(code, text)).await;
        let db = Db::connect(&fake_server.connect_to(&test, ""))
            .await
            .unwrap_or_else(|error| panic!("{code}: {error}"));
        assert!(db.is_behind_pooler(), "{code}");
        rowlock_queue::queue_stats(&db).await.unwrap();
        let listener = rowlock_queue::listen(&fake_server.connect_to(&test, "")).await;
        assert!(matches!(listener, Err(Error::NoNotify)), "{listener:?}");
    }
    for (code, text) in [("28P01", "no such options"), ("53300", "too many options"), ("3D000", "no options")]
    {
        let fake_server = proxy(&test, refusal(code, text)).await;
        let error = refused(&fake_server.connect_to(&test, "?sslmode=disable")).await;
        assert!(error.to_string().ends_with(text), "{error}");
        assert_eq!(fake_server.connections(), 1, "{code} says nothing of the options");
    }
}

#[tokio::test]
async fn tls_is_requested_once_and_a_refusal_is_accepted() {
    let (told, mut asked) = mpsc::unbounded_channel();
    let fake_server = FakeServer::start(move |mut stream| {
        let told = told.clone();
        async move {
            let mut first = [0; 8];
            stream.read_exact(&mut first).await?;
            let _ = told.send(first);
            stream.write_all(b"N").await?;
            stream.read_to_end(&mut Vec::new()).await.map(drop)
        }
    })
    .await;
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = refused(&fake_server.connect(&format!("?sslmode={mode}"))).await;
        let Error::Tls(output) = &error else { panic!("{error:?}") };
        assert!(output.contains("does not support TLS") && output.contains(mode), "{output}");
        assert_eq!(asked.recv().await, Some(SSL_REQUEST));
    }
}
