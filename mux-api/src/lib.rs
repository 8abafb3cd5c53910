//! The contract of libmux: what a [`Session`] and its [`Channel`]s promise, whatever wire carries them.
//!
//! Applications hold [`Session`], [`Channel`], [`SendHalf`], [`RecvHalf`] and [`Listener`]. Backends implement the
//! poll-based traits of [`backend`]; nothing else of libmux is needed to write one. The crate does no I/O and contains
//! no runtime: of tokio it uses the `AsyncRead` and `AsyncWrite` traits alone.
//!
//! # Cancel safety, once for all
//! A future is *cancel-safe* when dropping it before it completes loses nothing: no byte, no channel, no session. Every
//! async method of this crate says whether it is.
//!
//! # Codes
//! Reset, stop and close codes are `u64` below 2^62; see [`codes`] for what is portable and what the library keeps.

pub mod backend;
mod budget;
mod capabilities;
mod channel;
pub mod codes;
mod config;
mod error;
mod halves;
mod info;
mod listener;
mod session;
mod url;
mod wait;

pub use budget::{Budget, Reservation};
pub use capabilities::Capabilities;
pub use channel::{Channel, Initiator, OpenOptions, Priority};
pub use config::{ClientAuth, Config, ConfigOption, OPTIONS, TlsConfig};
pub use error::{Error, ErrorKind, Origin, Result};
pub use halves::{RecvHalf, SendHalf, WriteFlags};
pub use info::{Role, SessionInfo, Stats, TlsInfo};
pub use listener::Listener;
pub use session::Session;
pub use url::Url;
pub use wait::WaitList;
