//! What a byte-stream wire must say about its frames.

use bytes::BytesMut;
use mux_api::Priority;

use crate::{LocalId, RemoteId};

/// A wire: frames to and from bytes. It holds no state of channels.
pub trait Wire: Send + 'static {
    /// What can be said to a peer, depending on whether it announced the extension.
    fn features(&self, extended: bool) -> Features;

    /// Decodes the frame at the start of `input`, which may be cut anywhere. The body of [`Frame::Data`],
    /// [`Frame::EarlyData`] and [`Frame::Skip`] is not part of the frame: it follows and is delivered as it arrives.
    ///
    /// # Errors
    /// When no continuation of `input` could be a frame. A length must be checked before it is waited for.
    fn decode<'a>(&self, input: &'a [u8]) -> Result<Decoded<'a>, WireError>;

    /// Appends `frame` to `out`; of [`Frame::Data`] and [`Frame::EarlyData`] the header only.
    fn encode(&self, frame: &Outgoing<'_>, out: &mut BytesMut);
}

/// What a peer understands beyond opening, data, credit, end and close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Reset and stop, each with a code. Without, abandoning a direction closes the channel.
    pub codes: bool,
    /// Labels and urgency on open, code and reason on refusal.
    pub labels: bool,
    /// What concerns the session: its limits and open credit, data before the confirmation, ping, going away, and its
    /// end with code and reason.
    pub session: bool,
}

/// A frame from the peer: addressed with our number.
pub type Incoming<'a> = Frame<'a, LocalId, RemoteId>;

/// A frame to the peer: addressed with its number.
pub type Outgoing<'a> = Frame<'a, RemoteId, LocalId>;

/// The vocabulary of all wires. `To` is the number its receiver chose, `From` the sender's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a, To, From> {
    /// The sender understands the extension.
    Hello,
    /// The sender does not understand our announcement.
    HelloRefused,
    /// An open that can only be refused: a round-trip probe.
    Probe {
        /// The number to name in the refusal.
        from: From,
    },
    /// A new channel.
    Open {
        /// The opener's number.
        from: From,
        /// Bytes the opener is ready to receive.
        window: u32,
        /// The largest body it accepts in one frame.
        max_frame: u32,
        /// Opaque, empty without one.
        label: &'a [u8],
        /// How urgent.
        priority: Priority,
    },
    /// The channel is accepted into the backlog.
    Confirm {
        /// The opener's number.
        to: To,
        /// The accepter's number.
        from: From,
        /// Bytes the accepter is ready to receive.
        window: u32,
        /// The largest body it accepts in one frame.
        max_frame: u32,
    },
    /// The channel is not accepted.
    Refuse {
        /// The opener's number.
        to: To,
        /// Why, where the wire can say so.
        code: Option<u64>,
        /// Why, in words.
        reason: &'a str,
    },
    /// More may be sent.
    Credit {
        /// The sender of data.
        to: To,
        /// So many bytes more.
        add: u32,
    },
    /// A body of `len` bytes follows.
    Data {
        /// Where to.
        to: To,
        /// Its length.
        len: u32,
    },
    /// The direction ends cleanly.
    Fin {
        /// Which channel.
        to: To,
    },
    /// The direction is abandoned.
    Reset {
        /// Which channel.
        to: To,
        /// Why.
        code: u64,
    },
    /// The receiver reads no more.
    Stop {
        /// Which channel.
        to: To,
        /// Why.
        code: u64,
    },
    /// Nothing more about this channel from the sender; the number is free once both have said so.
    Close {
        /// Which channel.
        to: To,
    },
    /// The session ends.
    SessionEnd {
        /// Why.
        code: u64,
        /// Why, in words.
        reason: &'a str,
    },
    /// What the sender allows, said once, as soon as it has seen the other side's announcement.
    SessionLimits {
        /// Channels that the other side may open before it waits for more open credit.
        channels: u32,
        /// Bytes it may send on each of them before the confirmation.
        early: u32,
    },
    /// More channels may be opened.
    OpenCredit {
        /// So many.
        add: u32,
    },
    /// A body of `len` bytes follows, for a channel that is not confirmed: only its opener has numbered it.
    EarlyData {
        /// The opener's number.
        from: From,
        /// Its length.
        len: u32,
    },
    /// The opener's direction ends cleanly before the confirmation.
    EarlyFin {
        /// The opener's number.
        from: From,
    },
    /// To be answered with a [`Frame::Pong`] that says the same.
    Ping {
        /// Anything.
        payload: u64,
    },
    /// The answer to a [`Frame::Ping`].
    Pong {
        /// What it said.
        payload: u64,
    },
    /// The sender takes no more channels; the old ones go on.
    GoAway {
        /// Why.
        code: u64,
        /// How many opens of the receiver's it has taken or will: the later ones are refused.
        taken: u32,
        /// Why, in words.
        reason: &'a str,
    },
    /// A frame of a later version that may be ignored; `len` bytes of it follow.
    Skip {
        /// How many.
        len: u32,
    },
}

/// What [`Wire::decode`] found.
#[derive(Debug)]
pub enum Decoded<'a> {
    /// The frame is cut; more bytes are needed.
    Incomplete,
    /// A frame that took `len` bytes of the input.
    Frame(Incoming<'a>, usize),
}

/// Bytes that are no frame: the session cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WireError(pub String);
