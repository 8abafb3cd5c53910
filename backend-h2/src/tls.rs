//! TLS under HTTP/2, with ALPN `h2`.

use std::sync::Arc;

use mux_api::{Config, Error, ErrorKind, Origin, Result, TlsInfo, Url};
use mux_transport::Joined;
use mux_transport::tls::{self, Wants};
use tokio_rustls::client::TlsStream as ClientStream;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream as ServerStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const WANTS: Wants<'static> = Wants { alpn: &["h2"], tls13_only: false };

/// Puts TLS on a connection that was dialed.
pub(crate) async fn connect(stream: Joined, url: &Url, config: &Config) -> Result<(ClientStream<Joined>, TlsInfo)> {
    let (host, _) = url.host_port()?;
    let name = tls::server_name(&config.tls, host)?;
    let connector = TlsConnector::from(tls::client_config(&config.tls, WANTS)?);
    let stream = connector.connect(name, stream).await;
    let stream = stream.map_err(|error| tls::io_error(&format!("connecting to {url}"), error))?;
    let info = tls::describe(stream.get_ref().1);
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
    let info = tls::describe(stream.get_ref().1);
    Ok((stream, info))
}
