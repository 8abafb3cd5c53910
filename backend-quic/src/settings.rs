//! From a [`Config`] to the bounds of a session and quinn's settings (docs/quic.md, section 6).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mux_api::{Config, Error, Result, Role, Url};
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::congestion::Ending;
use crate::options::{MAX_MTU, Options};
use crate::places;
use crate::qlog;

/// What a session allows its peer and itself.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) options: Options,
    /// Channels the peer may have open at once.
    pub(crate) max_channels: u32,
    /// Bytes a channel may receive unread: quinn fixes it at connect, the same for every channel.
    pub(crate) window: u32,
    /// Bytes of receive windows that may be granted at once.
    pub(crate) budget: u64,
    /// Channels that wait for `accept`.
    pub(crate) backlog: usize,
    /// Bytes a channel gathers or holds while quinn takes no more.
    pub(crate) send_buffer: usize,
    /// The longest label.
    pub(crate) max_label: usize,
    /// How long a closed channel or session may go on flushing.
    pub(crate) linger: Duration,
    /// How often a silent peer is probed; zero: never.
    pub(crate) keepalive: Duration,
    /// Whether the session has any.
    pub(crate) datagrams: bool,
    /// A session without traffic for so long is ended; zero: never.
    pub(crate) idle: Duration,
}

/// Channels by default: fewer than on other wires, since each is granted a whole window.
const DEFAULT_CHANNELS: u32 = 256;

/// The window that is left when the budget is spread over many channels.
const MIN_WINDOW: u64 = 16 * 1024;

/// The window of few channels: what a long fat link needs.
const MAX_WINDOW: u64 = 8 << 20;

/// Bytes on their way to the peer and not acknowledged, for all channels together.
const SEND_WINDOW: u64 = 16 << 20;

/// Bytes of datagrams that wait to be sent, and as many that wait to be read.
const DATAGRAMS: usize = 256 * 1024;

impl Settings {
    pub(crate) fn new(config: &Config, url: &Url) -> Result<Self> {
        let default = Config::default();
        let given = |name: &str| url.options().iter().any(|(option, _)| option == name);
        let max_channels = if config.max_channels == default.max_channels && !given("max_channels") {
            DEFAULT_CHANNELS
        } else {
            config.max_channels.max(1)
        };
        let window = if config.window == default.window && !given("window") {
            (config.budget / u64::from(max_channels)).clamp(MIN_WINDOW, MAX_WINDOW) as u32
        } else {
            config.window.max(1024)
        };
        Ok(Self {
            options: Options::new(config)?,
            max_channels,
            window,
            budget: config.budget,
            backlog: config.channel_backlog.max(1) as usize,
            send_buffer: (config.send_buffer as usize).max(4096),
            max_label: config.max_label as usize,
            linger: config.linger,
            keepalive: config.keepalive,
            datagrams: config.datagrams,
            idle: config.idle,
        })
    }

    /// Streams that the peer may open beside channels: the dialer's control stream.
    pub(crate) fn beside(role: Role) -> u32 {
        u32::from(role == Role::Server)
    }

    /// Bytes that may be unacknowledged on all channels together.
    pub(crate) fn send_window(&self) -> u64 {
        SEND_WINDOW.max(2 * u64::from(self.window))
    }

    /// quinn's settings for a connection with `peer`.
    pub(crate) fn transport(&self, role: Role, peer: IpAddr, ending: &Ending) -> Result<Arc<TransportConfig>> {
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(places::first(self.max_channels, Self::beside(role)))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(self.datagrams.then_some(DATAGRAMS))
            .datagram_send_buffer_size(DATAGRAMS)
            .mtu_discovery_config(Some(self.mtu_discovery(peer)))
            .stream_receive_window(VarInt::from_u32(self.window))
            // Bounded by channels x window; a smaller one would let unread channels stall the others.
            .receive_window(VarInt::MAX)
            .send_window(self.send_window())
            .congestion_controller_factory(ending.controllers(self.options.congestion));
        if self.keepalive.is_zero() {
            transport.keep_alive_interval(None).max_idle_timeout(None);
        } else {
            // The dialer probes first; the acceptor only when the dialer's setting is slower than its own.
            let interval = if role == Role::Client { self.keepalive.saturating_mul(2) / 3 } else { self.keepalive };
            let dead = IdleTimeout::try_from(self.keepalive.saturating_mul(2)).map_err(|_| {
                Error::invalid_input(format!("option keepalive={:?}: it is longer than QUIC can say", self.keepalive))
            })?;
            transport.keep_alive_interval(Some(interval)).max_idle_timeout(Some(dead));
        }
        qlog::attach(&mut transport, &self.options, role)?;
        Ok(Arc::new(transport))
    }

    fn mtu_discovery(&self, peer: IpAddr) -> MtuDiscoveryConfig {
        let mut discovery = MtuDiscoveryConfig::default();
        // The loopback interface of every system takes that much.
        if let Some(mtu) = self.options.mtu.or(peer.is_loopback().then_some(MAX_MTU)) {
            discovery.upper_bound(mtu);
        }
        discovery
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(options: &str) -> Settings {
        let url = Url::parse(&format!("quic://h:1?{options}")).expect("parses");
        Settings::new(&Config::default().with_url(&url, &[], true).expect("options"), &url).expect("options")
    }

    #[test]
    fn the_window_follows_budget_and_channels_unless_given() {
        let (all, few, many) = (settings(""), settings("max_channels=8"), settings("max_channels=100000"));
        assert_eq!((all.max_channels, all.window), (256, 1 << 20));
        assert_eq!(few.window, 8 << 20);
        assert_eq!(many.window, 16 * 1024);
        assert_eq!(settings("window=256k&max_channels=1024").window, 256 * 1024);
        assert_eq!(settings("max_channels=1024").max_channels, 1024);
    }

    #[test]
    fn a_time_too_long_for_quic_is_an_error() {
        let mut settings = settings("");
        settings.keepalive = Duration::MAX;
        let peer = IpAddr::from([127, 0, 0, 1]);
        for role in [Role::Client, Role::Server] {
            let error = settings.transport(role, peer, &Ending::default()).expect_err("too long");
            assert!(error.message().contains("keepalive"), "{error}");
        }
        settings.keepalive = Duration::ZERO;
        settings.transport(Role::Client, peer, &Ending::default()).expect("never");
    }
}
