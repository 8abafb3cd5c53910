//! libmux over QUIC: the wire is quinn's, the mapping of sessions and channels is that of `docs/quic.md`.
//!
//! A channel is a bidirectional stream whose first byte says what it is. One more stream, the control stream, carries
//! pings, the announcement that no new channels are taken, and the end of the session. A session has three tasks
//! (`accept`, `flush`, `drive`); a channel has none.

mod accept;
mod ask;
mod backend;
mod congestion;
mod control;
mod crypto;
mod drive;
mod early;
mod endpoint;
mod error;
mod flush;
mod held;
mod listener;
mod options;
mod places;
mod preface;
mod probe;
mod qlog;
mod record;
mod recv;
mod send;
mod session;
mod settings;
mod shared;
mod side;
mod tickets;
mod waker;
mod wire;

pub use backend::QuicBackend;
