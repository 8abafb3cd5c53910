//! Runs a [`mux_proto::Connection`] over any `AsyncRead + AsyncWrite` on tokio, and gives a [`Session`].
//!
//! One task a session reads the transport and flushes what was queued. A task that writes a channel sends from its own
//! buffer by one vectored call when nothing is queued; a burst of small writes is gathered until the driver's next
//! turn. Two locks: the state of the connection, and the writer. Whoever holds the state may *try* the writer; the
//! driver, which holds the writer, may wait for the state. So a reader never waits for a system call.

mod driver;
mod halves;
mod receive;
mod session;
mod shared;
mod stage;
mod writer;

use std::sync::Arc;

use mux_api::{Budget, Capabilities, Config, Result, Session, SessionInfo};
use mux_proto::{Connection, Limits, Wire};
use tokio::io::{AsyncRead, AsyncWrite};

use driver::Driver;
use session::DrivenSession;
use shared::Shared;

/// A byte stream that a session runs on.
pub struct Stream {
    /// Where bytes come from.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// Where bytes go. Its `poll_write_vectored` is called by whoever writes a channel, always with the driver's
    /// waker; shutting it down ends our direction, dropping both ends the stream.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// Dropped once the transport is released: what counts live sessions.
    pub guard: Option<Box<dyn Send>>,
}

/// What a wire says of its sessions.
pub struct Profile<W> {
    /// The codec.
    pub wire: W,
    /// Whether to announce the extension: `None` no, `Some(true)` the peer's is taken for granted, `Some(false)` its
    /// answer decides.
    pub extension: Option<bool>,
    /// What a session can do, by whether its peer announced the extension.
    pub capabilities: fn(extended: bool) -> Capabilities,
}

/// Runs a session on `stream` and waits until the peer's abilities are known. Must be called inside a tokio runtime,
/// which drives the session from then on.
///
/// # Errors
/// Why the transport ended before that.
///
/// # Cancel safety
/// Dropping the future ends the session.
pub async fn establish<W: Wire>(
    stream: Stream,
    profile: Profile<W>,
    info: SessionInfo,
    config: &Config,
) -> Result<Session> {
    let budget = Budget::new(config.budget, Some(Budget::process().clone()));
    let limits = Limits::from_config(config);
    let conn = Connection::new(profile.wire, limits, budget, profile.extension, driver::now());
    let shared = Arc::new(Shared::new(conn, stream.writer));
    tokio::spawn(Driver::new(Arc::clone(&shared), stream.reader, stream.guard));
    let ops = Arc::new(DrivenSession::new(shared, info, profile.capabilities));
    // From here on a dropped future drops the session, which aborts it.
    let session = Session::new(Arc::clone(&ops) as _);
    ops.established().await?;
    Ok(session)
}
