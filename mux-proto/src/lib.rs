//! The multiplexing core that every byte-stream wire shares: a function of bytes and time.
//!
//! No I/O, no clock, no locks, no wakers. [`Connection`] takes the bytes that arrived and the present time, and gives
//! bytes to send and events to act on. A wire is a codec, [`Wire`]; how a channel opens, ends, takes its turn and
//! stays inside its window and budget is written once, here.
//!
//! The order of calls stands at [`Connection`].

mod batch;
mod channel;
mod connection;
mod id;
mod limits;
mod wire;

pub use batch::Batch;
pub use channel::{Chunk, Key};
pub use connection::{Connection, Direct, Event};
pub use id::{LocalId, RemoteId};
pub use limits::Limits;
pub use wire::{Decoded, Features, Frame, Incoming, Outgoing, Wire, WireError};
