//! What can be asked of a live session.

use std::time::Duration;

use bytes::Bytes;

/// Which end of a session we are. Channels do not care; handshakes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The side that dialed.
    Client,
    /// The side that accepted the session.
    Server,
}

/// Facts that are fixed once a session is up: what whoever accepts a session looks at before taking channels.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Which end we are.
    pub role: Role,
    /// The URL it was dialed with, or that of its listener.
    pub url: String,
    /// Our address, as the transport writes it; empty where it has none.
    pub local_addr: String,
    /// The peer's address; empty where it has none.
    pub peer_addr: String,
    /// TLS, where the transport has it.
    pub tls: Option<TlsInfo>,
}

impl SessionInfo {
    /// Facts of a session without TLS.
    pub fn new(role: Role, url: impl Into<String>) -> Self {
        Self { role, url: url.into(), local_addr: String::new(), peer_addr: String::new(), tls: None }
    }
}

/// What the TLS handshake settled.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TlsInfo {
    /// Protocol version and cipher suite.
    pub summary: String,
    /// The negotiated application protocol.
    pub alpn: String,
    /// The peer's leaf certificate, DER.
    pub peer_certificate: Option<Bytes>,
}

/// Counters of a session; what does not apply is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Channels that hold an entry at present.
    pub channels_open: u64,
    /// Channels opened by us, ever.
    pub channels_opened: u64,
    /// Channels opened by the peer, ever.
    pub channels_accepted: u64,
    /// Bytes received on the transport.
    pub bytes_in: u64,
    /// Bytes sent on the transport.
    pub bytes_out: u64,
    /// Resets received.
    pub resets_in: u64,
    /// Resets sent.
    pub resets_out: u64,
    /// Bytes received and not yet read by the application.
    pub recv_buffered: u64,
    /// Bytes written by the application and not yet taken by the transport.
    pub send_buffered: u64,
    /// Bytes of the memory budget in use.
    pub budget_used: u64,
    /// Packets that the transport took for lost, where it knows.
    pub lost_packets: u64,
    /// The smoothed round trip, once measured.
    pub rtt: Option<Duration>,
}
