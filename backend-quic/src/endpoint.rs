//! UDP sockets and QUIC endpoints.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mux_api::{Error, ErrorKind, Origin, Result, Url};
use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};

use crate::options::{MAX_MTU, Options};

/// What is asked of the kernel: with the usual 208 KiB, a burst overflows the receive buffer and costs a lossless link
/// most of its speed.
const SOCKET_BUFFER: usize = 4 << 20;

/// The addresses that `url` names, for dialing or binding.
pub(crate) async fn resolve(url: &Url) -> Result<Vec<SocketAddr>> {
    if !matches!(url.path(), "" | "/") {
        return Err(Error::url(format!("URL '{url}' has a path, which QUIC does not know; write quic://host:port")));
    }
    let (host, port) = url.host_port()?;
    let found = tokio::net::lookup_host((host, port)).await.map_err(|error| {
        Error::new(ErrorKind::Dns, Origin::Os, format!("resolving '{host}': {error}")).with_source(error)
    })?;
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        return Err(Error::new(ErrorKind::Dns, Origin::Os, format!("'{host}' has no address")));
    }
    Ok(found)
}

/// An endpoint bound to `address`; with `server` it accepts connections.
pub(crate) fn endpoint(address: SocketAddr, server: Option<ServerConfig>, options: &Options) -> io::Result<Endpoint> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // Wanted, not needed: the system may allow less.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    tracing::debug!(
        %address,
        receive = socket.recv_buffer_size().unwrap_or(0),
        send = socket.send_buffer_size().unwrap_or(0),
        wanted = SOCKET_BUFFER,
        "socket buffers (the system counts its own overhead, often twofold)"
    );
    #[cfg(unix)]
    socket.set_reuse_port(options.reuse_port)?;
    socket.bind(&address.into())?;
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(options.mtu.unwrap_or(MAX_MTU)).map_err(io::Error::other)?;
    Endpoint::new(config, server, socket.into(), Arc::new(TokioRuntime))
}
