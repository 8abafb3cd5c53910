//! Certificates of the listeners that are measured: made for one run, trusted by their pin.

use libmux::{Config, TlsConfig};
use mux_transport::tls::Wants;

use super::worker::Trouble;
use crate::cert;

/// What the bare HTTP/2 ends agree on.
pub(super) const HTTP2: Wants<'static> = Wants { alpn: &["h2"], tls13_only: false };
/// What the bare QUIC ends agree on.
pub(super) const QUIC: Wants<'static> = Wants { alpn: &["bench"], tls13_only: true };
/// What bare TLS needs: no word about protocols.
pub(super) const NOTHING: Wants<'static> = Wants { alpn: &[], tls13_only: false };

/// What a bare listener presents, and what it adds to its address for those who dial it.
pub(super) fn presented() -> Result<(TlsConfig, String), Trouble> {
    let mut config = Config::default();
    let pin = present(&mut config)?;
    Ok((config.tls, pin))
}

/// Puts a certificate into `config`; what is added to the listener's URL.
pub(super) fn present(config: &mut Config) -> Result<String, Trouble> {
    Ok(cert::present(config, &["localhost"])?)
}

/// A bare listener's address, and what to trust there.
pub(super) fn trusted(at: &str) -> Result<(&str, TlsConfig), Trouble> {
    let pinned = at.split_once("?pin=").ok_or_else(|| Trouble::Fail(format!("{at}: no pin")))?;
    let mut config = Config::default();
    config.set("pin", pinned.1)?;
    Ok((pinned.0, config.tls))
}
