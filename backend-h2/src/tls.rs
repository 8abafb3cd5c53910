//! TLS under HTTP/2, with ALPN `h2`.

use std::sync::Arc;

use bytes::Bytes;
use mux_api::{Config, Error, ErrorKind, Origin, Result, TlsInfo, Url};
use mux_transport::tls::{self, Wants};
use tokio_rustls::client::TlsStream as ClientStream;
use tokio_rustls::rustls::{CommonState, ServerConfig};
use tokio_rustls::server::TlsStream as ServerStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::io::Joined;

const WANTS: Wants<'static> = Wants { alpn: &["h2"], tls13_only: false };

/// Puts TLS on a connection that was dialed.
pub(crate) async fn connect(stream: Joined, url: &Url, config: &Config) -> Result<(ClientStream<Joined>, TlsInfo)> {
    let (host, _) = url.host_port()?;
    let name = tls::server_name(&config.tls, host)?;
    let connector = TlsConnector::from(tls::client_config(&config.tls, WANTS)?);
    let stream = connector.connect(name, stream).await;
    let stream = stream.map_err(|error| tls::io_error(&format!("connecting to {url}"), error))?;
    let info = describe(stream.get_ref().1);
    if info.alpn.is_empty() {
        let message = format!("connecting to {url}: the server does not speak HTTP/2 (it chose no protocol by ALPN)");
        return Err(Error::new(ErrorKind::Alpn, Origin::Peer, message));
    }
    Ok((stream, info))
}

/// What a listener presents.
pub(crate) fn server_config(config: &Config) -> Result<Arc<ServerConfig>> {
    tls::server_config(&config.tls, WANTS)
}

/// Puts TLS on a connection that was accepted.
pub(crate) async fn accept(stream: Joined, config: Arc<ServerConfig>) -> Result<(ServerStream<Joined>, TlsInfo)> {
    let stream = TlsAcceptor::from(config).accept(stream).await;
    let stream = stream.map_err(|error| tls::io_error("accepting a connection", error))?;
    let info = describe(stream.get_ref().1);
    Ok((stream, info))
}

fn describe(state: &CommonState) -> TlsInfo {
    let mut info = TlsInfo::default();
    // "TLSv1_3" to those who wrote it down, "TLS 1.3" to those who read it, on every wire.
    let version =
        state.protocol_version().map(|version| format!("{version:?}").replace("TLSv", "TLS ").replace('_', "."));
    let suite = state.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
    info.summary = version.into_iter().chain(suite).collect::<Vec<_>>().join(" ");
    info.alpn = state.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
    let leaf = state.peer_certificates().and_then(|chain| chain.first());
    info.peer_certificate = leaf.map(|leaf| Bytes::copy_from_slice(leaf));
    info
}
