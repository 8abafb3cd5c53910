//! What a listener presents and demands.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use mux_api::{ClientAuth, Error, Result, TlsConfig};
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use super::client::internal;
use super::verify::{Accept, LeafVerifier};
use super::{Wants, identity};

/// The rustls configuration of a listener. A certificate given by files is read again when they change, so that it can
/// be replaced while the listener runs.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](mux_api::ErrorKind::InvalidInput) without a certificate, or where clients are asked for
/// one and nothing says which to accept; files that cannot be read or do not hold what they should.
pub fn server_config(config: &TlsConfig, wants: Wants<'_>) -> Result<Arc<ServerConfig>> {
    let identity = identity::identity(config)?.ok_or_else(|| {
        Error::invalid_input("a listener with TLS needs a certificate: give cert=PATH and key=PATH (PEM)")
    })?;
    let files = if config.identity_pem.is_some() { None } else { config.identity_files.clone() };
    let builder = ServerConfig::builder_with_provider(super::provider())
        .with_protocol_versions(wants.versions())
        .map_err(internal)?;
    let builder = match client_verifier(config)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::new(Certificates::new(identity, files)));
    server.alpn_protocols = wants.protocols(config);
    Ok(Arc::new(server))
}

fn client_verifier(config: &TlsConfig) -> Result<Option<Arc<dyn ClientCertVerifier>>> {
    let mandatory = match config.client_auth {
        ClientAuth::None => return Ok(None),
        ClientAuth::Request => false,
        ClientAuth::Require => true,
    };
    if !config.pins.is_empty() {
        return Ok(Some(Arc::new(LeafVerifier::new(Accept::Pins(config.pins.clone()), mandatory))));
    }
    let roots = identity::roots(config)?.ok_or_else(|| {
        Error::invalid_input("clients are asked for certificates: a CA (ca=PATH) or pins must say which to accept")
    })?;
    let builder = WebPkiClientVerifier::builder_with_provider(roots, super::provider());
    let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
    let verifier =
        builder.build().map_err(|error| Error::invalid_input(format!("the given CA cannot be used: {error}")))?;
    Ok(Some(verifier))
}

/// A listener's certificate, followed through changes of its files.
#[derive(Debug)]
struct Certificates {
    files: Option<(PathBuf, PathBuf)>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    looked: Instant,
    modified: Option<(SystemTime, SystemTime)>,
}

/// How often the files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

impl Certificates {
    fn new(key: Arc<CertifiedKey>, files: Option<(PathBuf, PathBuf)>) -> Self {
        let modified = files.as_ref().and_then(modified);
        Self { files, current: Mutex::new(Current { key, looked: Instant::now(), modified }) }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = &self.files
            && current.looked.elapsed() >= LOOK
        {
            current.looked = Instant::now();
            let now = modified(files);
            if now.is_some() && now != current.modified {
                match identity::identity_from_files(&files.0, &files.1) {
                    Ok(key) => {
                        tracing::info!(certificate = %files.0.display(), "the listener's certificate was replaced");
                        current.key = key;
                        current.modified = now;
                    }
                    // The two files change one after the other: the next look may find them whole.
                    Err(error) => tracing::warn!(%error, "a changed certificate cannot be used; the old one stays"),
                }
            }
        }
        Some(Arc::clone(&current.key))
    }
}

fn modified(files: &(PathBuf, PathBuf)) -> Option<(SystemTime, SystemTime)> {
    let of = |path: &PathBuf| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    Some((of(&files.0)?, of(&files.1)?))
}
