//! What both sides have said about a channel as a whole.

use crate::RemoteId;

/// ```text
///   open()          OPEN received
///     |                  |
///  Opening --CONFIRM--> Open --our CLOSE--> Closing --peer's CLOSE--> Closed
///     |                  |                                              ^
///     |                  +------- peer's CLOSE (answered) --------------+
///     +-- REFUSE ------------------------------------------------------+
/// ```
/// Nothing is ever sent about a channel after our CLOSE: reference peers end the session on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// OPEN sent, the one with this number in the order of all; the peer has not chosen its number for the channel.
    Opening { seq: u32 },
    /// Both numbers are known.
    Open { remote: RemoteId },
    /// Our CLOSE is sent; our number stays taken until the peer's CLOSE.
    Closing,
    /// Over on the wire; the entry waits for the application to let go.
    Closed,
}

impl State {
    /// The number to address the peer with, while anything may be sent.
    pub(crate) fn remote(self) -> Option<RemoteId> {
        match self {
            Self::Open { remote } => Some(remote),
            Self::Opening { .. } | Self::Closing | Self::Closed => None,
        }
    }
}
