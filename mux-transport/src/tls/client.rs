//! What a dialer demands and presents.

use std::sync::Arc;

use mux_api::{Error, ErrorKind, Origin, Result, TlsConfig};
use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;

use super::verify::{Accept, LeafVerifier};
use super::{Wants, identity};

/// The rustls configuration of a dialer. Reads the files that `config` names.
///
/// # Errors
/// Files that cannot be read or do not hold what they should, or platform roots that cannot be loaded.
pub fn client_config(config: &TlsConfig, wants: Wants<'_>) -> Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(super::provider())
        .with_protocol_versions(wants.versions())
        .map_err(internal)?
        .dangerous()
        .with_custom_certificate_verifier(verifier(config)?);
    let mut client = match identity::identity(config)? {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
        None => builder.with_no_client_auth(),
    };
    client.alpn_protocols = wants.protocols(config);
    Ok(Arc::new(client))
}

/// The name to verify: the configured one, or the host that is dialed.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for what is neither a DNS name nor an address.
pub fn server_name(config: &TlsConfig, host: &str) -> Result<ServerName<'static>> {
    let name = config.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned())
        .map_err(|_| Error::invalid_input(format!("'{name}' is neither a DNS name nor an address, as TLS demands")))
}

fn verifier(config: &TlsConfig) -> Result<Arc<dyn ServerCertVerifier>> {
    if config.insecure {
        tracing::warn!("TLS verification is off: anybody on the way can read and change what is sent");
        return Ok(Arc::new(LeafVerifier::new(Accept::All, false)));
    }
    if !config.pins.is_empty() {
        return Ok(Arc::new(LeafVerifier::new(Accept::Pins(config.pins.clone()), false)));
    }
    if let Some(roots) = identity::roots(config)? {
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, super::provider()).build();
        let verifier =
            verifier.map_err(|error| Error::invalid_input(format!("the given CA cannot be used: {error}")))?;
        return Ok(verifier);
    }
    let verifier = rustls_platform_verifier::Verifier::new(super::provider()).map_err(|error| {
        let message = format!(
            "the platform's certificate authorities cannot be loaded ({error}); give a CA (ca=PATH) or a pin (pin=sha256:HEX)"
        );
        Error::new(ErrorKind::Tls, Origin::Os, message)
    })?;
    Ok(Arc::new(verifier))
}

pub(super) fn internal(error: rustls::Error) -> Error {
    Error::new(ErrorKind::Internal, Origin::Local, format!("TLS cannot be configured: {error}"))
}
