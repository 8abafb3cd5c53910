//! UDP sockets and QUIC endpoints.

use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use mux_api::{Error, ErrorKind, Origin, Result, Url};
use quinn::{Connection, Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime;
use tokio::time::{sleep, timeout};

use crate::options::{MAX_MTU, Options};
use crate::probe::any_address;
use crate::shared::lock;

/// What is asked of the kernel: with the usual 208 KiB, a burst overflows the receive buffer and costs a lossless link
/// most of its speed.
const SOCKET_BUFFER: usize = 4 << 20;

/// Endpoints that several dials share, by what they have in common. A socket belongs to the runtime that made it.
static SHARED: Mutex<Vec<(Sharing, Weak<Endpoint>)>> = Mutex::new(Vec::new());

type Sharing = (runtime::Id, bool, Option<u16>);

/// A dialer's endpoint; the socket is closed with the last.
#[derive(Clone)]
pub(crate) enum Dialer {
    /// Of one session alone.
    Own(Endpoint),
    /// Of all that asked for it.
    Shared(Arc<Endpoint>),
}

impl Dialer {
    /// To dial `peer`.
    pub(crate) fn new(peer: SocketAddr, options: &Options) -> io::Result<Self> {
        if !options.shared_socket {
            return endpoint(any_address(peer), None, options).map(Self::Own);
        }
        let wanted = (runtime::Handle::current().id(), peer.is_ipv4(), options.mtu);
        let mut shared = lock(&SHARED);
        shared.retain(|(_, endpoint)| endpoint.strong_count() > 0);
        let found = shared.iter().find(|(sharing, _)| *sharing == wanted);
        if let Some(endpoint) = found.and_then(|(_, endpoint)| endpoint.upgrade()) {
            return Ok(Self::Shared(endpoint));
        }
        let made = Arc::new(endpoint(any_address(peer), None, options)?);
        shared.push((wanted, Arc::downgrade(&made)));
        Ok(Self::Shared(made))
    }

    /// Waits until QUIC has let go of the connections of this dial, of which `conn` is left; at most for `limit`.
    pub(crate) async fn wait_idle(&self, conn: Option<&Connection>, limit: Duration) {
        match self {
            Self::Own(endpoint) => drop(timeout(limit, endpoint.wait_idle()).await),
            // quinn does not tell when one of several is over: three probe timeouts, by what is known of the way.
            Self::Shared(_) => {
                let probe = conn.map_or(Duration::ZERO, |conn| 3 * conn.rtt() + Duration::from_millis(25));
                sleep(limit.min(3 * probe)).await;
            }
        }
    }
}

impl Deref for Dialer {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        match self {
            Self::Own(endpoint) => endpoint,
            Self::Shared(endpoint) => endpoint,
        }
    }
}

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
