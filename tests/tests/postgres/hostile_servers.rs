//! What listens where a URL leads, and is no server of ours: it gets neither the password nor our memory.

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

/// Said of everything that does not speak the protocol, so that nobody learns what listens there.
const NO_POSTGRES: &str = "what listens there does not speak the Postgres protocol";

/// What a server may send before it is ready, with what the sockets in between take in; a client without a
/// bound takes gigabytes.
const MOST_TAKEN: u64 = 16 << 20;

async fn refused(connect: &Connect) -> Error {
    let since = Instant::now();
    let error = Db::connect(connect).await.expect_err("it is no server");
    assert!(since.elapsed() < Duration::from_secs(9), "{error}: after {:?}", since.elapsed());
    let place = connect.location().unwrap();
    assert!(error.to_string().starts_with(&format!("{place}: ")), "{error}");
    assert!(!error.to_string().contains("SECRET"), "{error}");
    error
}

async fn check_no_postgres(fake_server: &FakeServer) {
    for trust in [UrlTrust::Own, UrlTrust::Tenant] {
        let error = refused(&Connect { trust, ..fake_server.connect("") }).await;
        assert!(matches!(&error, Error::Unreachable(said) if said.contains(NO_POSTGRES)), "{error:?}");
    }
}

/// A server that says this as soon as somebody speaks to it.
async fn saying(said: Vec<u8>) -> FakeServer {
    FakeServer::start(move |mut stream| {
        let said = said.clone();
        async move {
            startup(&mut stream).await?;
            stream.write_all(&said).await?;
            stream.read_u8().await.map(drop)
        }
    })
    .await
}

#[tokio::test]
async fn lengths_that_cannot_be_end_the_connection() {
    // Before this was mended, a length of 2 was a panic, and one of 2 GiB took as much memory.
    for length in [0, 2, 3, 1 << 31, u32::MAX] {
        for kind in [b'R', b'S', b'E', b'Z'] {
            let said = [&[kind][..], &u32::to_be_bytes(length)].concat();
            check_no_postgres(&saying(said).await).await;
        }
    }
}

#[tokio::test]
async fn parameters_without_end_end_the_connection() {
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
async fn what_speaks_something_else_is_not_told_apart() {
    // To the question for TLS, and to the start: HTTP, SSH, nothing, and bytes at random.
    for said in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "SSH-2.0-x\r\n",
        "\0\0\0\0\0\0\0\0",
        "NHTTP/1.1 400 Bad Request\r\n",
    ] {
        let fake_server = FakeServer::start(move |mut stream| async move {
            stream.write_all(said.as_bytes()).await?;
            stream.read_to_end(&mut Vec::new()).await.map(drop)
        })
        .await;
        check_no_postgres(&fake_server).await;
    }
}

#[tokio::test]
async fn a_message_without_end_ends_a_session_that_has_begun() {
    let test = TestDb::new().await;
    let server = port_of(&test);
    let fake_server = FakeServer::start(move |mut client| async move {
        let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
        let first = startup(&mut client).await?;
        server.write_all(&first).await?;
        let (mut asks, mut hears) = client.split();
        let (mut answers, mut asked) = server.split();
        let asking = async {
            let mut bytes = [0; 4096];
            loop {
                let n = asks.read(&mut bytes).await?;
                if bytes[..n].windows(19).any(|words| words == b"from rowlock.statis") {
                    return std::io::Result::Ok(());
                }
                asked.write_all(&bytes[..n]).await?;
            }
        };
        tokio::select! {
            _ = tokio::io::copy(&mut answers, &mut hears) => return Ok(()),
            _ = asking => (),
        }
        hears.write_all(&[b'D', 0x7f, 0xff, 0xff, 0xff]).await?;
        asks.read_to_end(&mut Vec::new()).await.map(drop)
    })
    .await;
    let db = Db::connect(&fake_server.connect_to(&test, "")).await.unwrap();
    let error = rowlock_queue::queue_stats(&db).await.expect_err("no row is as long");
    assert!(matches!(&error, Error::Unreachable(said) if said.contains(NO_POSTGRES)), "{error:?}");
}

/// Passes on what both say; once the client has said `words`, the next row has a value without a byte.
async fn empty_value_after(words: &'static [u8], mut client: TcpStream, server: u16) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
    let first = startup(&mut client).await?;
    server.write_all(&first).await?;
    let (mut asks, mut hears) = client.split();
    let (mut answers, mut asked) = server.split();
    let said = AtomicU64::new(0);
    let asking = async {
        let mut bytes = vec![0; 65536];
        loop {
            let n = asks.read(&mut bytes).await?;
            if n == 0 {
                return std::io::Result::Ok(());
            }
            if bytes[..n].windows(words.len()).any(|part| part == words) {
                said.store(1, Ordering::SeqCst);
            }
            asked.write_all(&bytes[..n]).await?;
        }
    };
    let answering = async {
        loop {
            let kind = answers.read_u8().await?;
            let mut body = vec![0; usize::try_from(answers.read_u32().await?).unwrap() - 4];
            answers.read_exact(&mut body).await?;
            if kind == b'D' && said.swap(0, Ordering::SeqCst) == 1 {
                body = [&1_u16.to_be_bytes()[..], &0_u32.to_be_bytes()].concat();
            }
            hears.write_all(&message(kind, &body)).await?;
        }
    };
    tokio::select! {
        ended = asking => ended,
        ended = answering => ended,
    }
}

/// Before, a value that makes sqlx panic ended whoever migrated: in the operator, the loop over a database.
#[tokio::test]
async fn a_server_that_lies_to_a_migration_ends_nobody() {
    let test = TestDb::new().await;
    let server = port_of(&test);
    let fake_server =
        FakeServer::start(move |client| empty_value_after(b"puballtables", client, server)).await;
    let db = Db::connect(&fake_server.connect_to(&test, "")).await.unwrap();
    let error = db.migrate().await.expect_err("no truth value is empty");
    assert!(matches!(&error, Error::Unreachable(_)), "{error:?}");
    // What ended there is not used again.
    test.db.migrate().await.unwrap();
}

/// Asks for the password, and tells what it was told.
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
async fn nobody_gets_the_password_by_asking_for_it() {
    // Before this was mended, the first one got it in clear.
    for (question, name) in [(vec![0, 0, 0, 3], "password"), (vec![0, 0, 0, 5, 1, 2, 3, 4], "md5")] {
        let (told, mut answers) = mpsc::unbounded_channel();
        let fake_server = asking(question, told).await;
        for query in
            ["", "?sslmode=disable", "?sslmode=allow", "?require_auth=scram-sha-256", "?require_auth=!none"]
        {
            let error = refused(&fake_server.connect(query)).await;
            let Error::Login(said) = &error else { panic!("{query}: {error:?}") };
            assert!(said.contains("sslmode=verify-full") || said.contains("require_auth"), "{said}");
            let answer = answers.recv().await.unwrap();
            assert!(answer.is_empty(), "{query}: it was told {answer:?}");
        }
        let error = refused(&fake_server.connect(&format!("?require_auth={name}"))).await;
        assert!(error.to_string().contains("password authentication failed"), "{error}");
        assert_eq!(answers.recv().await.unwrap()[0], b'p', "the URL says so");
    }
}

#[tokio::test]
async fn a_server_that_nothing_proves_does_not_choose_the_rounds_of_scram() {
    for rounds in [1, 4000, 4_000_000_000_u32] {
        let fake_server = FakeServer::start(move |mut stream| async move {
            startup(&mut stream).await?;
            stream.write_all(&message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")).await?;
            let asked = stream.read(&mut [0; 1000]).await?;
            assert!(asked > 0);
            let first = format!("\0\0\0\x0br=x,s=QUJD,i={rounds}");
            stream.write_all(&message(b'R', first.as_bytes())).await?;
            let proof = stream.read(&mut [0; 1000]).await?;
            assert_eq!(proof, 0, "what the password can be guessed from");
            Ok(())
        })
        .await;
        // Before this was mended, one round was as good as none, and many were as many seconds.
        let error = refused(&fake_server.connect("?sslmode=disable")).await;
        assert!(
            matches!(&error, Error::Login(said) if said.contains(&format!("{rounds} SCRAM rounds"))),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn messages_that_are_too_short_end_the_connection() {
    // Before this was mended, each of these was a panic.
    for said in [message(b'Z', &[]), message(b'K', &[1]), message(b'S', &[]), message(b'R', &[0; 3])] {
        let said = [message(b'R', &[0; 4]), said].concat();
        check_no_postgres(&saying(said).await).await;
    }
}

#[tokio::test]
async fn a_notice_without_end_ends_the_connection() {
    // Before this was mended, sqlx took it in whole, and logged it as loudly as the server wanted.
    let long = format!("SERROR\0VERROR\0C00000\0M{}\0\0", "x".repeat(1 << 20));
    let fake_server = saying([message(b'R', &[0; 4]), message(b'N', long.as_bytes())].concat()).await;
    check_no_postgres(&fake_server).await;
}

#[tokio::test]
async fn a_server_that_asks_for_nothing_is_refused_where_the_url_wants_to_be_asked() {
    let ready = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
    let fake_server = saying(ready).await;
    let error = refused(&fake_server.connect("?require_auth=scram-sha-256")).await;
    assert!(matches!(&error, Error::Login(said) if said.contains("`none`")), "{error:?}");
}

#[tokio::test]
async fn a_tenants_file_is_not_opened_nor_its_server_called() {
    let fake_server =
        FakeServer::start(|mut stream: TcpStream| async move { stream.write_all(b"S").await }).await;
    for file in ["/dev/zero", "/etc/hostname", "/nowhere"] {
        let query = format!("?sslmode=verify-full&sslrootcert={file}");
        let connect = Connect { trust: UrlTrust::Tenant, ..fake_server.connect(&query) };
        let error = Db::connect(&connect).await.expect_err("it names a file");
        assert!(matches!(&error, Error::Url(said) if said.contains("sslrootcert")), "{error:?}");
        assert!(!error.to_string().contains(file), "the same words for every file: {error}");
    }
    assert_eq!(fake_server.connections(), 0);
    // One's own file is no reason to read without end.
    let error = refused(&fake_server.connect("?sslmode=verify-full&sslrootcert=/dev/zero")).await;
    assert!(matches!(&error, Error::Tls(said) if said.contains("not a regular file")), "{error:?}");
}

/// Refuses `options` at the start as proxies do, and passes on everything else.
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
        // RDS Proxy; before this was mended, only the second was understood.
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
async fn a_question_for_tls_is_asked_once_and_no_is_an_answer() {
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
        let Error::Tls(said) = &error else { panic!("{error:?}") };
        assert!(said.contains("does not support TLS") && said.contains(mode), "{said}");
        assert_eq!(asked.recv().await, Some(SSL_REQUEST));
    }
}
