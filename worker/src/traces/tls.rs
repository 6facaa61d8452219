//! TLS to the collector, with the standard variables of `OpenTelemetry`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The largest file that is read: `/dev/zero` has no end.
const FILE_LARGEST: u64 = 4 << 20;

/// The part of the variables' names after `OTEL_EXPORTER_OTLP_` or, which goes first,
/// `OTEL_EXPORTER_OTLP_TRACES_`.
const CA: &str = "CERTIFICATE";
const CLIENT_CERTIFICATE: &str = "CLIENT_CERTIFICATE";
const CLIENT_KEY: &str = "CLIENT_KEY";

/// A file that a variable names.
#[derive(Debug)]
struct Named {
    variable: String,
    path: PathBuf,
}

/// How to prove the collector's identity, and our own.
#[derive(Debug)]
pub(super) struct Tls {
    host: ServerName<'static>,
    /// Without one, the authorities that browsers trust.
    ca: Option<Named>,
    /// Certificate and key.
    client: Option<(Named, Named)>,
}

impl Tls {
    /// Reads the variables, and the files once: a mistake in them would else lose all spans.
    pub(super) fn from_variables(
        host: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let named = |name: &str| {
            let names =
                ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"].map(|prefix| prefix.to_owned() + name);
            let given = |name: String| Some((variable(&name).filter(|path| !path.is_empty())?, name));
            names.into_iter().find_map(given).map(|(path, variable)| Named { variable, path: path.into() })
        };
        let client = match (named(CLIENT_CERTIFICATE), named(CLIENT_KEY)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => {
                return Err(format!(
                    "{} is set alone: a client needs its certificate and its key (\
                     OTEL_EXPORTER_OTLP_{CLIENT_CERTIFICATE} and OTEL_EXPORTER_OTLP_{CLIENT_KEY})",
                    one.variable
                ));
            }
        };
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| "the host of the URL is no name".to_owned())?;
        let tls = Self { host: name, ca: named(CA), client };
        tls.config()?;
        Ok(tls)
    }

    /// Files are read each time, because certificates are renewed. They are small, and a request is sent once
    /// a second at most.
    fn config(&self) -> Result<ClientConfig, String> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(ca) = &self.ca {
            roots = RootCertStore::empty();
            roots.add_parsable_certificates(ca.certificates()?);
            if roots.is_empty() {
                return Err(ca.wrong("it holds no certificate of an authority that can be used"));
            }
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let Some((certificate, key)) = &self.client else { return Ok(builder.with_no_client_auth()) };
        let private = PrivateKeyDer::from_pem_slice(&key.read()?);
        let private = private.map_err(|_| key.wrong("it holds no private key: write it as PEM"))?;
        let client = builder.with_client_auth_cert(certificate.certificates()?, private);
        client.map_err(|_| key.wrong("it does not belong to the certificate of the client"))
    }

    pub(super) async fn connect(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let connector = TlsConnector::from(Arc::new(self.config()?));
        connector.connect(self.host.clone(), stream).await.map_err(|error| format!("TLS: {error}"))
    }
}

impl Named {
    fn wrong(&self, why: &str) -> String {
        format!("the file {} of {}: {why}", self.path.display(), self.variable)
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        let read = |path: &Path| {
            let metadata = std::fs::metadata(path)?;
            if metadata.is_file() && metadata.len() <= FILE_LARGEST {
                return std::fs::read(path);
            }
            Err(std::io::Error::other(format!("not a regular file of at most {} MiB", FILE_LARGEST >> 20)))
        };
        read(&self.path).map_err(|error| self.wrong(&format!("it cannot be read: {error}")))
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.read()?).collect();
        let found = found.ok().filter(|found| !found.is_empty());
        found.ok_or_else(|| self.wrong("it holds no certificate: write it as PEM"))
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use opentelemetry_http::HttpClient as _;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::ServerConfig;
    use rustls::server::WebPkiClientVerifier;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::traces::collector::Collector;

    /// An authority, and a certificate of it with its key, as PEM.
    fn certificates() -> (String, String, String) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
        (ca.pem(), certificate.pem(), key.serialize_pem())
    }

    /// A collector that wants a certificate of the authority from its clients.
    async fn collector(ca: &str, certificate: &str, key: &str) -> u16 {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(ca.as_bytes()).map(Result::unwrap));
        let provider = Arc::new(ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let own = CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(own, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                let _ = stream.shutdown().await;
            }
        });
        port
    }

    #[tokio::test]
    async fn a_collector_with_a_private_authority_is_reached_and_may_ask_for_a_certificate() {
        let (ca, certificate, key) = certificates();
        let port = collector(&ca, &certificate, &key).await;
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (ca, other_ca) = (file("ca", &ca), file("other", &certificates().0));
        let client = [file("cert", &certificate), file("key", &key)];
        let send = async |authority: Option<&str>, with_certificate: bool| {
            let find = |name: &str| match name {
                "OTEL_EXPORTER_OTLP_CERTIFICATE" => authority.map(str::to_owned),
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE" => with_certificate.then(|| client[0].clone()),
                "OTEL_EXPORTER_OTLP_CLIENT_KEY" => with_certificate.then(|| client[1].clone()),
                _ => None,
            };
            let url = format!("https://localhost:{port}").parse().unwrap();
            let collector = Collector::with_variables(&url, find).unwrap();
            let request = Request::post("/v1/traces").body(bytes::Bytes::new()).unwrap();
            collector.send_bytes(request).await.map(|answer: Response<_>| answer.status().as_u16())
        };
        assert_eq!(send(Some(&ca), true).await.unwrap(), 200);
        for authority in [None, Some(other_ca.as_str())] {
            let error = send(authority, true).await.unwrap_err().to_string();
            assert!(error.contains("TLS: invalid peer certificate"), "{error}");
        }
        assert!(send(Some(&ca), false).await.is_err(), "it asks for a certificate");
    }

    fn refused(variables: &[(&str, &str)]) -> String {
        let find = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Tls::from_variables("collector", find).unwrap_err()
    }

    #[test]
    fn a_mistake_in_the_variables_is_refused_with_the_file_and_what_to_change() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no certificate").unwrap();
        let path = file.path().to_str().unwrap();
        for (variables, expected) in [
            (
                vec![("OTEL_EXPORTER_OTLP_CERTIFICATE", "/does/not/exist")],
                "/does/not/exist of OTEL_EXPORTER_OTLP_CERTIFICATE: it cannot be read",
            ),
            (vec![("OTEL_EXPORTER_OTLP_CERTIFICATE", "/dev/zero")], "not a regular file"),
            (
                vec![
                    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/x"),
                    ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", path),
                ],
                "of OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE: it holds no certificate",
            ),
            (vec![("OTEL_EXPORTER_OTLP_CLIENT_KEY", path)], "OTEL_EXPORTER_OTLP_CLIENT_KEY is set alone"),
            (
                vec![
                    ("OTEL_EXPORTER_OTLP_CLIENT_KEY", path),
                    ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", path),
                ],
                "of OTEL_EXPORTER_OTLP_CLIENT_KEY: it holds no private key",
            ),
        ] {
            let error = refused(&variables);
            assert!(error.contains(expected), "{error}");
        }
        assert!(Tls::from_variables("collector", |_| Some(String::new())).is_ok(), "empty is not set");
    }
}
