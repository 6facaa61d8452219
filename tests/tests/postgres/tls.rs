//! Certificates: what each `sslmode` accepts and refuses, and the errors.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rowlock_queue::{Connect, Db, Error};
use rowlock_tests::TestDb;
use rustls::{
    ServerConfig,
    crypto::ring::{default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::fake_server::{FakeServer, SSL_REQUEST, message, port_of, refusal, startup};

/// A certificate made as the Postgres documentation says: X.509 version 1. Only for these tests.
const VERSION_1: (&str, &str) =
    (include_str!("certificates/version_1.crt"), include_str!("certificates/version_1.key"));

/// Sends its certificate without checking it.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A server that speaks TLS with this certificate, and refuses clients that do not.
async fn server(test: &TestDb, certified: (&str, &str)) -> FakeServer {
    let server = port_of(test);
    speaking_tls(certified, move |mut client| async move {
        let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
        copy_bidirectional(&mut client, &mut server).await.map(drop)
    })
    .await
}

/// A fake server that speaks TLS with this certificate.
async fn speaking_tls<R>(
    (certificate, key): (&str, &str),
    serve: impl Fn(TlsStream<TcpStream>) -> R + Clone + Send + 'static,
) -> FakeServer
where
    R: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = any_supported_type(&PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Always(Arc::new(CertifiedKey::new(chain, key)))));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    FakeServer::start(move |mut client| {
        let (acceptor, serve) = (acceptor.clone(), serve.clone());
        async move {
            let mut first = [0; 8];
            client.read_exact(&mut first).await?;
            if first != SSL_REQUEST {
                let length = u32::from_be_bytes([first[0], first[1], first[2], first[3]]);
                client.read_exact(&mut vec![0; usize::try_from(length).unwrap() - first.len()]).await?;
                let text = refusal("28000", "pg_hba.conf rejects connection, no encryption");
                return client.write_all(&text).await;
            }
            client.write_all(b"S").await?;
            let client = acceptor.accept(client).await?;
            serve(client).await
        }
    })
    .await
}

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key, for a name.
fn signed(ca: &Ca, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
}

async fn check_taken(connect: &Connect) {
    let db = Db::connect(connect).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(!db.is_behind_pooler());
    rowlock_queue::queue_stats(&db).await.unwrap();
    db.close().await;
}

async fn check_refused(connect: &Connect, expected: &str) {
    let error = Db::connect(connect).await.expect_err(expected);
    let Error::Tls(text) = &error else { panic!("{error:?}") };
    assert!(text.starts_with(&format!("{}: ", connect.location().unwrap())), "{text}");
    assert!(text.contains(expected), "{text}");
    assert!(!error.is_transient(), "it needs a change of the configuration");
}

#[tokio::test]
async fn an_x509_version_1_certificate_is_accepted_without_verification() {
    let test = TestDb::new().await;
    let fake_server = server(&test, VERSION_1).await;
    // Before the fix, both were refused, though psql connects.
    for query in ["?sslmode=require", "", "?sslmode=prefer", "?ssl=true", "?sslmode=allow"] {
        check_taken(&fake_server.connect_to(&test, query)).await;
    }
    check_refused(&fake_server.connect_to(&test, "?sslmode=verify-full"), "version 1").await;
}

#[tokio::test]
async fn a_private_certificate_authority_is_trusted_if_configured() {
    let test = TestDb::new().await;
    let (right, wrong) = (ca(), ca());
    let (for_localhost, for_another) = (signed(&right, "localhost"), signed(&right, "db.example"));
    let fake_server = server(&test, (&for_localhost.0, &for_localhost.1)).await;
    let given = |fake_server: &FakeServer, ca: &Ca, query| Connect {
        ca_pem: Some(ca.pem().into()),
        ..fake_server.connect_to(&test, query)
    };
    for query in ["", "?sslmode=verify-full", "?sslmode=verify-ca", "?sslmode=require"] {
        check_taken(&given(&fake_server, &right, query)).await;
        check_refused(&given(&fake_server, &wrong, query), "signed by an unknown authority").await;
    }
    check_refused(
        &fake_server.connect_to(&test, "?sslmode=verify-full"),
        "spec.database.caRef, --database-ca-file",
    )
    .await;

    let folder = tempfile::tempdir().unwrap();
    for (ca, name) in [(&right, "right"), (&wrong, "wrong")] {
        std::fs::write(folder.path().join(name), ca.pem()).unwrap();
    }
    let file = |name: &str, mode| {
        let query = format!("?sslmode={mode}&sslrootcert={}/{name}", folder.path().display());
        fake_server.connect_to(&test, &query)
    };
    // As in libpq, `require` verifies if an authority is configured.
    for mode in ["require", "verify-ca", "verify-full"] {
        check_taken(&file("right", mode)).await;
        check_refused(&file("wrong", mode), "signed by an unknown authority").await;
        check_refused(&file("missing", mode), "cannot be read").await;
    }

    let fake_server = server(&test, (&for_another.0, &for_another.1)).await;
    // Before the fix, `require` accepted any certificate of the authority.
    for query in ["", "?sslmode=require", "?ssl=true"] {
        check_refused(&given(&fake_server, &right, query), "not for the name `localhost`").await;
    }
    check_taken(&given(&fake_server, &right, "?sslmode=verify-ca")).await;
}

#[tokio::test]
async fn a_certificate_of_the_same_authority_for_another_name_gets_no_password() {
    let ca = ca();
    let another = signed(&ca, "db.example");
    let fake_server = speaking_tls((&another.0, &another.1), |mut client| async move {
        startup(&mut client).await?;
        client.write_all(&message(b'R', &[0, 0, 0, 3])).await?;
        // No password arrives: if one did, the error would contain it.
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await?;
        assert!(heard.is_empty(), "the password in clear");
        Ok(())
    })
    .await;
    // Before the fix, it went in clear text to every server with a certificate of the authority.
    let connect = Connect { ca_pem: Some(ca.pem().into()), ..fake_server.connect("?sslmode=verify-ca") };
    let error = Db::connect(&connect).await.expect_err("it asks for the password in clear");
    assert!(matches!(&error, Error::Login(text) if text.contains("sslmode=verify-full")), "{error:?}");
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_if_configured_as_authority() {
    let test = TestDb::new().await;
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).unwrap().pem();
    let fake_server = server(&test, (&own, &key.serialize_pem())).await;
    let given = Connect { ca_pem: Some(own.into()), ..fake_server.connect_to(&test, "") };
    check_taken(&given).await;
    check_refused(
        &fake_server.connect_to(&test, "?sslmode=verify-full"),
        "self-signed certificate of an authority",
    )
    .await;
}
