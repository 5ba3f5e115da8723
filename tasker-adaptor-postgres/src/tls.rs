//! TLS by rustls, with the meaning that libpq gives `sslmode`.
//!
//! `disable`, `prefer` (the default) and `require` do what they do in libpq: the last two encrypt and do not ask who
//! answers. `verify-ca` checks that a root of `sslrootcert` signed the certificate, `verify-full` also that it is for the
//! host's name; without `sslrootcert` the system's roots count. One differs: `allow` is taken as `prefer`.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tasker_adaptor::StorageError;
use tokio_postgres::config::SslMode;

/// What a URL asks for beyond what tokio-postgres knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verify {
    /// `verify-ca` or `verify-full`.
    pub(crate) peer: bool,
    /// `verify-full`.
    pub(crate) name: bool,
    /// File of `sslrootcert`.
    pub(crate) roots: Option<String>,
}

/// Takes what tokio-postgres does not know out of a URL: the rest, and what was taken.
pub(crate) fn split_url(url: &str) -> (String, Verify) {
    let mut verify = Verify::default();
    let Some((base, query)) = url.split_once('?') else {
        return (url.to_owned(), verify);
    };
    let mut kept = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", mode @ ("verify-ca" | "verify-full"))) => {
                verify.peer = true;
                verify.name = mode == "verify-full";
                kept.push("sslmode=require".to_owned());
            }
            Some(("sslmode", "allow")) => kept.push("sslmode=prefer".to_owned()),
            // As in libpq: what a public root signed says nothing without the name.
            Some(("sslrootcert", "system")) => (verify.peer, verify.name) = (true, true),
            Some(("sslrootcert", file)) => verify.roots = Some(percent_decode(file)),
            _ => kept.push(pair.to_owned()),
        }
    }
    if kept.is_empty() {
        return (base.to_owned(), verify);
    }
    (format!("{base}?{}", kept.join("&")), verify)
}

/// The TLS configuration for this mode.
pub(crate) fn client_config(mode: SslMode, verify: &Verify) -> Result<ClientConfig, StorageError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(&format!("TLS cannot be set up: {error}")))?;
    // As in libpq: a root file given with `require` is used.
    let checks = verify.peer || (mode == SslMode::Require && verify.roots.is_some());
    let config = if checks && verify.name {
        builder.with_root_certificates(roots(verify)?)
    } else {
        let known = if checks {
            let roots = Arc::new(roots(verify)?);
            let known = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .build()
                .map_err(|error| refused(&format!("TLS cannot be set up: {error}")))?;
            Some(known)
        } else {
            None
        };
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Lenient { provider, known }))
    };
    Ok(config.with_no_client_auth())
}

fn roots(verify: &Verify) -> Result<RootCertStore, StorageError> {
    let mut store = RootCertStore::empty();
    if let Some(file) = &verify.roots {
        let unreadable = |error: &dyn std::fmt::Display| {
            refused(&format!(
                "sslrootcert {file} cannot be read: {error}; give a file with PEM certificates"
            ))
        };
        for certificate in
            CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))?
        {
            let certificate = certificate.map_err(|error| unreadable(&error))?;
            store.add(certificate).map_err(|error| unreadable(&error))?;
        }
    } else {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if store.is_empty() {
        return Err(refused(
            "no root certificate was found to check the server against: give sslrootcert=FILE",
        ));
    }
    Ok(store)
}

fn refused(what: &str) -> StorageError {
    StorageError::Misuse {
        what: what.to_owned(),
    }
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = text.get(at + 1..at + 3).filter(|_| byte == b'%');
        if let Some(value) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            decoded.push(value);
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Asks less of the peer's certificate than TLS does by itself, and still checks that the peer has its key.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    /// A known root must have signed the certificate, for whatever name: what `verify-ca` means. `None`: any certificate will do,
    /// which is what `prefer` and `require` mean.
    known: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(known) = &self.known else {
            return Ok(ServerCertVerified::assertion());
        };
        match known.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: all else was right.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_what_the_driver_knows() {
        let (url, verify) = split_url(
            "postgres://h/db?sslmode=verify-full&sslrootcert=%2Fa%20b.pem&application_name=x",
        );
        assert_eq!(url, "postgres://h/db?sslmode=require&application_name=x");
        assert!(verify.peer && verify.name);
        assert_eq!(verify.roots.as_deref(), Some("/a b.pem"));
        assert_eq!(
            split_url("postgres://h/db"),
            ("postgres://h/db".to_owned(), Verify::default())
        );
        assert_eq!(
            split_url("postgres://h/db?sslmode=require").1,
            Verify::default()
        );
    }

    #[test]
    fn a_root_file_that_is_not_there_is_named() {
        let verify = Verify {
            peer: true,
            name: true,
            roots: Some("/no/such.pem".into()),
        };
        let error = client_config(SslMode::Require, &verify).unwrap_err();
        assert!(error.to_string().contains("/no/such.pem"), "{error}");
    }
}
