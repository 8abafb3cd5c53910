//! TLS on a byte stream.

use std::sync::Arc;

use mux_api::backend::ByteStream;
use mux_api::{Error, ErrorKind, Origin, Result, TlsConfig, TlsInfo};
use rustls::{CommonState, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Wants, client_config, io_error, server_name};
use crate::Joined;

/// Puts TLS on a stream that was dialed; `host` is whom to verify unless the settings name somebody else.
///
/// # Errors
/// What is wrong with the settings, or why the handshake failed; [`Alpn`](ErrorKind::Alpn) for a server that chooses none
/// of the protocols wanted.
///
/// # Cancel safety
/// A dropped future drops the stream.
pub async fn connect(
    stream: ByteStream,
    host: &str,
    config: &TlsConfig,
    wants: Wants<'_>,
) -> Result<(ByteStream, TlsInfo)> {
    let name = server_name(config, host)?;
    let connector = TlsConnector::from(client_config(config, wants)?);
    let (joined, addresses) = Addresses::of(stream);
    let stream = connector.connect(name, joined).await.map_err(|error| io_error("the TLS handshake failed", error))?;
    let info = describe(stream.get_ref().1);
    if info.alpn.is_empty() {
        let message = "the server chose no application protocol (ALPN): it is none of this wire";
        return Err(Error::new(ErrorKind::Alpn, Origin::Peer, message));
    }
    Ok((addresses.on(stream), info))
}

/// Puts TLS on a stream that was accepted; `config` is [`server_config`](super::server_config)'s.
///
/// # Errors
/// Why the handshake failed.
///
/// # Cancel safety
/// A dropped future drops the stream.
pub async fn accept(stream: ByteStream, config: Arc<ServerConfig>) -> Result<(ByteStream, TlsInfo)> {
    let (joined, addresses) = Addresses::of(stream);
    let stream = TlsAcceptor::from(config).accept(joined).await;
    let stream = stream.map_err(|error| io_error("the TLS handshake failed", error))?;
    let info = describe(stream.get_ref().1);
    Ok((addresses.on(stream), info))
}

/// What a handshake settled.
pub fn describe(state: &CommonState) -> TlsInfo {
    // "TLSv1_3" to those who wrote it down, "TLS 1.3" to those who read it, on every wire.
    let version =
        state.protocol_version().map(|version| format!("{version:?}").replace("TLSv", "TLS ").replace('_', "."));
    let suite = state.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
    let leaf = state.peer_certificates().and_then(|chain| chain.first());
    let mut info = TlsInfo::default();
    info.summary = version.into_iter().chain(suite).collect::<Vec<_>>().join(" ");
    info.alpn = state.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
    info.peer_certificate = leaf.map(|leaf| bytes::Bytes::copy_from_slice(leaf));
    info
}

/// Who is at both ends of a stream.
struct Addresses(String, String);

impl Addresses {
    fn of(mut stream: ByteStream) -> (Joined, Self) {
        let addresses = Self(std::mem::take(&mut stream.local_addr), std::mem::take(&mut stream.peer_addr));
        (Joined::new(stream), addresses)
    }

    /// The two directions share the state of TLS, so a lock that is held for a call's time.
    fn on(self, stream: impl AsyncRead + AsyncWrite + Send + 'static) -> ByteStream {
        let (reader, writer) = split(stream);
        ByteStream { reader: Box::new(reader), writer: Box::new(writer), local_addr: self.0, peer_addr: self.1 }
    }
}
