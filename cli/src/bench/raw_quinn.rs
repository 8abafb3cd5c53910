//! quinn without libmux: what a program of its own would do, with the settings that the backend uses or with quinn's own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use libmux::TlsConfig;
use mux_transport::tls;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, RecvStream, SendStream, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::backend::Bare;
use super::link::{Channels, Rx, Tx};
use super::scenario::{Kind, Scenario};
use super::secure::QUIC;
use super::worker::Trouble;

/// As libmux asks for it.
const SOCKET_BUFFER: usize = 4 << 20;
const CHANNELS: u32 = 256;
const WINDOW: u32 = 1 << 20;
const SEND_WINDOW: u64 = 16 << 20;
const LOOPBACK_MTU: u16 = 6500;

/// How quinn is set.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    /// As it comes, but for the streams that the scenario needs.
    defaults: bool,
    channels: u32,
    window: Option<u32>,
    /// A stream is unknown to the peer until something is written: where nothing will be, a byte is.
    announce: bool,
}

impl Settings {
    pub(super) fn of(bare: Bare, scenario: &Scenario, window: Option<u32>) -> Self {
        let channels = u32::try_from(scenario.at_once()).unwrap_or(u32::MAX).max(CHANNELS);
        Self { defaults: bare == Bare::QuinnDefaults, channels, window, announce: scenario.kind == Kind::Idle }
    }
}

/// Opens streams.
pub(super) struct Opening {
    conn: Connection,
    announce: bool,
}

/// Accepts streams.
pub(super) struct Accepting(Connection);

/// A listener, and where it can be dialed.
pub(super) fn listen(at: SocketAddr, tls: &TlsConfig, settings: Settings) -> Result<(Endpoint, SocketAddr), Trouble> {
    let crypto = QuicServerConfig::try_from(tls::server_config(tls, QUIC)?).map_err(failed)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(transport(settings, at.ip().is_loopback()));
    let endpoint = endpoint(at, Some(server), settings)?;
    let address = endpoint.local_addr()?;
    Ok((endpoint, address))
}

/// The connection of the client.
pub(super) async fn accept(endpoint: &Endpoint) -> Result<Accepting, Trouble> {
    let incoming = endpoint.accept().await.ok_or_else(|| Trouble::Fail("the endpoint is closed".to_owned()))?;
    Ok(Accepting(incoming.await.map_err(failed)?))
}

/// Connects.
pub(super) async fn dial(to: SocketAddr, tls: &TlsConfig, settings: Settings) -> Result<Opening, Trouble> {
    let crypto = QuicClientConfig::try_from(tls::client_config(tls, QUIC)?).map_err(failed)?;
    let mut client = ClientConfig::new(Arc::new(crypto));
    client.transport_config(transport(settings, to.ip().is_loopback()));
    let from: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let endpoint = endpoint((from, 0).into(), None, settings)?;
    let connecting = endpoint.connect_with(client, to, "localhost").map_err(failed)?;
    Ok(Opening { conn: connecting.await.map_err(failed)?, announce: settings.announce })
}

fn transport(Settings { defaults, channels, window, .. }: Settings, loopback: bool) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(channels));
    if defaults {
        return Arc::new(transport);
    }
    let mut discovery = MtuDiscoveryConfig::default();
    if loopback {
        discovery.upper_bound(LOOPBACK_MTU);
    }
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(window.unwrap_or(WINDOW)))
        .receive_window(VarInt::MAX)
        .send_window(SEND_WINDOW.max(window.unwrap_or(0).into()))
        .mtu_discovery_config(Some(discovery));
    Arc::new(transport)
}

fn endpoint(at: SocketAddr, server: Option<ServerConfig>, settings: Settings) -> io::Result<Endpoint> {
    if settings.defaults {
        let socket = std::net::UdpSocket::bind(at)?;
        return Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime));
    }
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
    // Wanted, not needed: the system may allow less.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&at.into())?;
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(LOOPBACK_MTU).map_err(io::Error::other)?;
    Endpoint::new(config, server, socket.into(), Arc::new(TokioRuntime))
}

fn failed(error: impl std::error::Error) -> Trouble {
    Trouble::Fail(error.to_string())
}

impl Channels for Opening {
    type Tx = SendStream;
    type Rx = RecvStream;

    async fn next(&self) -> io::Result<(SendStream, RecvStream)> {
        let (mut tx, rx) = self.conn.open_bi().await?;
        if self.announce {
            tx.write_all(&[0]).await?;
        }
        Ok((tx, rx))
    }
}

impl Channels for Accepting {
    type Tx = SendStream;
    type Rx = RecvStream;

    async fn next(&self) -> io::Result<(SendStream, RecvStream)> {
        Ok(self.0.accept_bi().await?)
    }
}

impl Tx for SendStream {
    async fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        Ok(SendStream::write_all(self, data).await?)
    }

    async fn write_last(&mut self, data: &[u8]) -> io::Result<()> {
        SendStream::write_all(self, data).await?;
        Ok(self.finish()?)
    }
}

impl Rx for RecvStream {
    async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(RecvStream::read(self, buf).await?.unwrap_or(0))
    }
}
