//! qmux: the channel mechanism of the SSH connection protocol over any byte stream, and its negotiated extension
//! (docs/qmux.md).

mod backend;
mod frame;
mod listener;

pub use backend::QmuxBackend;
pub use frame::Qmux;
