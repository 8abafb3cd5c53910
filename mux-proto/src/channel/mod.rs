//! One channel: two directions that end apart, and what the wire has been told.

mod recv;
mod send;
mod state;
mod table;

use mux_api::{Initiator, Priority};

pub use recv::Chunk;
pub(crate) use recv::{RecvSide, RecvState};
pub(crate) use send::{SendSide, SendState};
pub(crate) use state::State;
pub use table::Key;
pub(crate) use table::Table;

/// What a connection knows of a channel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) state: State,
    pub(crate) send: SendSide,
    pub(crate) recv: RecvSide,
    pub(crate) label: Option<Box<[u8]>>,
    pub(crate) initiator: Initiator,
    pub(crate) priority: Priority,
    /// Halves that the application still holds; the entry lives at least as long.
    pub(crate) holders: u8,
    /// Waits in the backlog for `accept`.
    pub(crate) waiting: bool,
    /// In the scheduler's queue: it has something to send and credit to send it.
    pub(crate) scheduled: bool,
    /// In the list of channels that owe the peer a credit message.
    pub(crate) owes_credit: bool,
}

impl Channel {
    /// Whether there is a frame of data, or the end, that can be sent now.
    pub(crate) fn can_transmit(&self) -> bool {
        let addressed = match self.state {
            State::Open { .. } => true,
            State::Opening { .. } => self.send.takes_early(),
            State::Closing | State::Closed => false,
        };
        addressed && self.send.can_transmit()
    }
}
