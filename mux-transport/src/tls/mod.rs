//! TLS by rustls, shared by every backend: what a [`TlsConfig`](mux_api::TlsConfig) says becomes a rustls
//! configuration here and nowhere else.
//!
//! A client verifies its server by the platform's roots, by a CA of its own, or by a pin: the SHA-256 of the leaf
//! certificate's DER, which replaces the checks of chain and name, not that of the validity period. Not verifying is a
//! setting of its own that logs a warning. A listener may ask its clients for a certificate, verified by a CA or a pin.

mod client;
mod error;
mod identity;
#[cfg(feature = "self-signed")]
mod self_signed;
mod server;
mod stream;
mod verify;

use std::fmt::Write as _;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use client::{client_config, server_name};
pub use error::{handshake_error, io_error};
#[cfg(feature = "self-signed")]
pub use self_signed::{SelfSigned, self_signed};
pub use server::server_config;
pub use stream::{Connected, accept, connect, describe};

/// The SHA-256 of a certificate's DER, which is its pin.
pub fn pin_of(certificate: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let mut pin = [0; 32];
    pin.copy_from_slice(digest.as_ref());
    pin
}

/// A pin as the option `pin` takes it: `sha256:` and 64 hex digits.
pub fn pin_text(pin: &[u8; 32]) -> String {
    let mut text = String::from("sha256:");
    for byte in pin {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The versions and application protocols that a wire asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wants<'a> {
    /// Application protocols, the preferred one first; [`TlsConfig::alpn`](mux_api::TlsConfig::alpn) replaces them.
    pub alpn: &'a [&'a str],
    /// TLS 1.3 and nothing older, as QUIC demands.
    pub tls13_only: bool,
}

static TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

impl Wants<'_> {
    fn versions(&self) -> &'static [&'static rustls::SupportedProtocolVersion] {
        if self.tls13_only { TLS13 } else { rustls::DEFAULT_VERSIONS }
    }

    fn protocols(&self, config: &mux_api::TlsConfig) -> Vec<Vec<u8>> {
        if config.alpn.is_empty() {
            self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
        } else {
            config.alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
        }
    }
}

/// The cryptography in use, whatever a host program installed as its own default.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
