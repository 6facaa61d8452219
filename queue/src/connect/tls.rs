//! TLS by our own rules: `verify-ca` and `verify-full` check, everything below them looks at no certificate
//! at all.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
    version::{TLS12, TLS13},
};

use super::{
    fault::Fault,
    target::{Roots, TlsOptions},
    values::{SslMode, Tls},
};

/// No file of certificates is larger: `/dev/zero` has no end.
const FILE_LARGEST: u64 = 4 << 20;

/// How Postgres is called in TLS' own negotiation.
const ALPN: &[u8] = b"postgresql";

impl TlsOptions {
    /// For one connection: files may have changed since the last.
    pub(super) async fn config(&self) -> Result<ClientConfig, Fault> {
        let provider = Arc::new(ring::default_provider());
        let versions: &[&SupportedProtocolVersion] = match (self.oldest, self.newest) {
            (Some(Tls::V13), _) => &[&TLS13],
            (_, Some(Tls::V12)) => &[&TLS12],
            _ => &[&TLS13, &TLS12],
        };
        let verifier = self.verifier(&provider).await?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| Fault::Tls(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.client {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let wrong =
                    |what: &str| Fault::Tls(format!("{what}: write the certificate and its key as PEM"));
                let certs = certificates(&read(cert, "sslcert").await?);
                let certs = certs.ok_or_else(|| wrong("the file of sslcert holds no certificate"))?;
                let key = PrivateKeyDer::from_pem_slice(&read(key, "sslkey").await?);
                let key = key.map_err(|_| wrong("the file of sslkey holds no key"))?;
                builder
                    .with_client_auth_cert(certs, key)
                    .map_err(|_| wrong("sslcert and sslkey do not fit"))?
            }
        };
        config.enable_sni = self.sni;
        if self.direct {
            config.alpn_protocols = vec![ALPN.to_vec()];
        }
        Ok(config)
    }

    async fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, Fault> {
        if self.mode < SslMode::VerifyCa {
            return Ok(Arc::new(Unchecked(Arc::clone(provider))));
        }
        let (roots, own) = match &self.roots {
            Roots::BuiltIn => (RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }, Vec::new()),
            Roots::Pem(pem) => roots_of(pem.as_bytes(), "the CA")?,
            Roots::File(path) => roots_of(&read(path, "sslrootcert").await?, "the file of sslrootcert")?,
        };
        let inner =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
        let inner = inner.map_err(|error| Fault::Tls(format!("the CA cannot be used: {error}")))?;
        Ok(Arc::new(Checked { inner, own, any_name: self.mode == SslMode::VerifyCa }))
    }
}

/// The authorities of a PEM text, and its certificates as they are.
pub(super) fn roots_of(
    pem: &[u8],
    what: &str,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), Fault> {
    let own = certificates(pem);
    let own = own.ok_or_else(|| Fault::Tls(format!("{what} holds no certificate: write it as PEM")))?;
    let mut roots = RootCertStore::empty();
    // One that cannot be an authority is a server's own, which is compared as a whole.
    roots.add_parsable_certificates(own.iter().cloned());
    if roots.is_empty() {
        return Err(Fault::Tls(format!("{what} holds no certificate of an authority that can be used")));
    }
    Ok((roots, own))
}

fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty())
}

/// A regular file, and not a large one.
async fn read(path: &std::path::Path, parameter: &str) -> Result<Vec<u8>, Fault> {
    let shown = path.display();
    let wrong = |why: String| Fault::Tls(format!("the file {shown} of {parameter} cannot be read: {why}"));
    let metadata = tokio::fs::metadata(path).await.map_err(|error| wrong(error.to_string()))?;
    if !metadata.is_file() || metadata.len() > FILE_LARGEST {
        return Err(wrong(format!("it is no regular file of at most {} MiB", FILE_LARGEST >> 20)));
    }
    tokio::fs::read(path).await.map_err(|error| wrong(error.to_string()))
}

/// What a failed handshake says to a person.
pub(super) fn explain(error: &std::io::Error, host: &str) -> Fault {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<TlsError>()) else {
        return Fault::Unreachable(format!("during the TLS handshake: {error}"));
    };
    let said = match error {
        TlsError::InvalidCertificate(fault) => of_certificate(fault, host),
        TlsError::AlertReceived(alert) => format!(
            "the server ended the TLS handshake ({alert:?}): it may ask for a client's certificate (sslcert, sslkey), or for another \
             version of TLS"
        ),
        TlsError::InvalidMessage(_) | TlsError::InappropriateMessage { .. } => {
            return Fault::Protocol(error.to_string());
        }
        error => format!("TLS failed: {error}"),
    };
    Fault::Tls(said)
}

fn of_certificate(fault: &CertificateError, host: &str) -> String {
    match fault {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
            "the server's certificate is not for the name `{host}`: connect by a name that is in it (subjectAltName), or write \
             sslmode=verify-ca"
        ),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => "the server's certificate is signed by no authority that is \
             known: give the CA that signed it (spec.database.caRef, --database-ca-file or sslrootcert)"
            .to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate is out of date: renew it on the server".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: check the clocks of both machines".to_owned()
        }
        CertificateError::Other(other) if format!("{other:?}").contains("UnsupportedCertVersion") => "the server's certificate is of \
             X.509 version 1, which cannot be verified: make one of version 3, with subjectAltName, or write sslmode=require, which \
             does not look at it"
            .to_owned(),
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => "the server's certificate is one of \
             an authority, signed by itself: give it as the CA (spec.database.caRef, --database-ca-file or sslrootcert), or make one \
             that a CA signs"
            .to_owned(),
        other => format!("the server's certificate cannot be verified ({other}): check the certificate and the CA"),
    }
}

/// Takes every certificate, also one of X.509 version 1. A machine in between can read everything; `require`
/// and less promise no more.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks who signed it, and with `verify-full` the name.
#[derive(Debug)]
struct Checked {
    inner: Arc<WebPkiServerVerifier>,
    /// A server whose own certificate was given as the CA is the right one, as for libpq.
    own: Vec<CertificateDer<'static>>,
    any_name: bool,
}

impl ServerCertVerifier for Checked {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        use CertificateError::{NotValidForName, NotValidForNameContext, Other};
        let fault = match self.inner.verify_server_cert(certificate, between, name, ocsp, now) {
            Err(TlsError::InvalidCertificate(fault)) => fault,
            answer => return answer,
        };
        match fault {
            NotValidForName | NotValidForNameContext { .. } if self.any_name => {
                Ok(ServerCertVerified::assertion())
            }
            Other(_) if self.own.iter().any(|own| own == certificate) => {
                if !self.any_name {
                    rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            fault => Err(TlsError::InvalidCertificate(fault)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
