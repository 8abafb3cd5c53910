//! What is spoken on a connection, as its application protocol (ALPN) says (docs/quic.md, section 8).

use mux_api::{Capabilities, codes};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Ours: prefaces and a control stream.
    Libmux,
    /// That of qtalk-go: a preface of one byte, nothing else.
    Qtalk,
    /// Any other protocol: the streams as they are.
    Raw,
}

pub(crate) const LIBMUX: &str = "libmux/1";
const QTALK: &[u8] = b"qtalk-quic";

/// What a qtalk session ends with.
const QTALK_CLOSED: u64 = 42;

/// What streams of QUIC can do by themselves.
const STREAMS: Capabilities = Capabilities::HALF_CLOSE
    .union(Capabilities::RESET_CODE)
    .union(Capabilities::STOP)
    .union(Capabilities::RESET_VISIBLE)
    .union(Capabilities::PRIORITY)
    .union(Capabilities::NO_HOL)
    .union(Capabilities::MIGRATION)
    .union(Capabilities::ACKED)
    .union(Capabilities::SERVER_OPEN);

/// What a session with a libmux peer can do.
pub(crate) const CAPABILITIES: Capabilities =
    STREAMS.union(Capabilities::LABEL).union(Capabilities::GOAWAY).union(Capabilities::DATAGRAM);

impl Wire {
    /// The wire of a negotiated protocol.
    pub(crate) fn of(protocol: &[u8]) -> Self {
        match protocol {
            _ if protocol == LIBMUX.as_bytes() => Self::Libmux,
            QTALK => Self::Qtalk,
            _ => Self::Raw,
        }
    }

    /// What its sessions can do; `datagrams`: the peer takes them.
    pub(crate) fn capabilities(self, datagrams: bool) -> Capabilities {
        let all = if self == Self::Libmux { CAPABILITIES } else { STREAMS.union(Capabilities::DATAGRAM) };
        if datagrams { all } else { all.without(Capabilities::DATAGRAM) }
    }

    /// The code of a session's end as it is sent.
    pub(crate) fn code_to_send(self, code: u64) -> u64 {
        if self == Self::Qtalk && code == codes::NO_ERROR { QTALK_CLOSED } else { code }
    }

    /// The code of a session's end that was received.
    pub(crate) fn code_received(self, code: u64) -> u64 {
        if self == Self::Qtalk && code == QTALK_CLOSED { codes::NO_ERROR } else { code }
    }
}
