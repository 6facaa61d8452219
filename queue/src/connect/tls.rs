//! TLS: `verify-ca` and `verify-full` check the server's certificate, lower modes of `sslmode` do not.

use std::{path::PathBuf, sync::Arc};

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
    values::{SslMode, TlsVersion},
};

/// The largest file of certificates that is read: `/dev/zero` has no end.
const FILE_LARGEST: u64 = 4 << 20;

/// The ALPN name of Postgres.
const ALPN: &[u8] = b"postgresql";

/// The TLS settings of a URL and its caller.
#[derive(Debug, Clone)]
pub(super) struct TlsOptions {
    pub(super) mode: SslMode,
    pub(super) roots: Roots,
    pub(super) client: Option<(PathBuf, PathBuf)>,
    pub(super) sni: bool,
    /// Starts with the TLS handshake, without asking the server whether it supports TLS.
    pub(super) direct: bool,
    pub(super) oldest: Option<TlsVersion>,
    pub(super) newest: Option<TlsVersion>,
}

/// The trusted certificate authorities.
#[derive(Debug, Clone)]
pub(super) enum Roots {
    BuiltIn,
    Pem(Arc<str>),
    File(PathBuf),
}

impl TlsOptions {
    /// Whether the handshake proves that this is the right server. A CA signs for many servers, so without a
    /// check of the name each of them could pass for it.
    pub(super) fn proves_the_server(&self) -> bool {
        self.mode == SslMode::VerifyFull
    }

    /// The configuration for one connection. Files are read each time, because they may have changed.
    pub(super) async fn config(&self) -> Result<ClientConfig, Fault> {
        let provider = Arc::new(ring::default_provider());
        let versions: &[&SupportedProtocolVersion] = match (self.oldest, self.newest) {
            (Some(TlsVersion::V13), _) => &[&TLS13],
            (_, Some(TlsVersion::V12)) => &[&TLS12],
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
                    .map_err(|_| wrong("sslcert and sslkey do not belong together"))?
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
            return Ok(Arc::new(NoVerification(Arc::clone(provider))));
        }
        let (roots, pinned) = match &self.roots {
            Roots::BuiltIn => (RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }, Vec::new()),
            Roots::Pem(pem) => roots_of(pem.as_bytes(), "the CA")?,
            Roots::File(path) => roots_of(&read(path, "sslrootcert").await?, "the file of sslrootcert")?,
        };
        let inner =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
        let inner = inner.map_err(|error| Fault::Tls(format!("the CA cannot be used: {error}")))?;
        Ok(Arc::new(Verification { inner, pinned, any_name: self.mode == SslMode::VerifyCa }))
    }
}

/// The authorities of a PEM text, and all its certificates.
pub(super) fn roots_of(
    pem: &[u8],
    what: &str,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), Fault> {
    let pinned = certificates(pem);
    let pinned = pinned.ok_or_else(|| Fault::Tls(format!("{what} holds no certificate: write it as PEM")))?;
    let mut roots = RootCertStore::empty();
    // A certificate that cannot be an authority is the server's own. It is compared as a whole.
    roots.add_parsable_certificates(pinned.iter().cloned());
    if roots.is_empty() {
        return Err(Fault::Tls(format!("{what} holds no certificate of an authority that can be used")));
    }
    Ok((roots, pinned))
}

fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty())
}

/// Reads a regular file up to [`FILE_LARGEST`].
async fn read(path: &std::path::Path, parameter: &str) -> Result<Vec<u8>, Fault> {
    let shown = path.display();
    let wrong = |why: String| Fault::Tls(format!("the file {shown} of {parameter} cannot be read: {why}"));
    let metadata = tokio::fs::metadata(path).await.map_err(|error| wrong(error.to_string()))?;
    if !metadata.is_file() || metadata.len() > FILE_LARGEST {
        return Err(wrong(format!("it is not a regular file of at most {} MiB", FILE_LARGEST >> 20)));
    }
    tokio::fs::read(path).await.map_err(|error| wrong(error.to_string()))
}

/// Explains a failed handshake.
pub(super) fn explain(error: &std::io::Error, host: &str) -> Fault {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<TlsError>()) else {
        return Fault::Unreachable(format!("during the TLS handshake: {error}"));
    };
    let why = match error {
        TlsError::InvalidCertificate(fault) => explain_certificate(fault, host),
        TlsError::AlertReceived(alert) => format!(
            "the server ended the TLS handshake ({alert:?}): it may require a client certificate (sslcert, \
             sslkey), or another version of TLS"
        ),
        TlsError::InvalidMessage(_) | TlsError::InappropriateMessage { .. } => {
            return Fault::Protocol(error.to_string());
        }
        error => format!("TLS failed: {error}"),
    };
    Fault::Tls(why)
}

fn explain_certificate(fault: &CertificateError, host: &str) -> String {
    let why = match fault {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            return format!(
                "the server's certificate is not for the name `{host}`: connect with a name that is in it \
                 (subjectAltName), or write sslmode=verify-ca"
            );
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the server's certificate is signed by an unknown authority: give the CA that signed it \
             (spec.database.caRef, --database-ca-file or sslrootcert)"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it on the server"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: check the clocks of both machines"
        }
        CertificateError::Other(other) if format!("{other:?}").contains("UnsupportedCertVersion") => {
            "the server's certificate has X.509 version 1, which cannot be verified: create one of version \
             3 with subjectAltName, or write sslmode=require, which does not verify it"
        }
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "the server's certificate is a self-signed certificate of an authority: give it as the CA \
             (spec.database.caRef, --database-ca-file or sslrootcert), or create one that a CA signs"
        }
        other => {
            return format!(
                "cannot verify the server's certificate ({other}): check the certificate and the CA"
            );
        }
    };
    why.to_owned()
}

/// Accepts every certificate, including X.509 version 1. `require` and lower modes do not protect from an
/// attacker between client and server.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
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

/// Checks the signature of the certificate, and with `verify-full` the name.
#[derive(Debug)]
struct Verification {
    inner: Arc<WebPkiServerVerifier>,
    /// If the server's own certificate was given as the CA, that server is accepted, like in libpq.
    pinned: Vec<CertificateDer<'static>>,
    any_name: bool,
}

impl ServerCertVerifier for Verification {
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
            Other(_) if self.pinned.iter().any(|pinned| pinned == certificate) => {
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
