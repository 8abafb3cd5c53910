//! Byte streams by URL: TCP and Unix sockets; and TLS for every backend.
//!
//! A transport knows nothing of wires: it connects and accepts ordered byte streams. Each kind has a file of its own;
//! what depends on the platform stays inside it.

mod joined;
mod listener;
mod socket;
mod tcp;
pub mod tls;
#[cfg(unix)]
mod unix;

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
pub use mux_api::backend::ByteStream;
use mux_api::{Error, ErrorKind, Origin, Result, Url};

pub use joined::Joined;
pub use listener::{Entry, Handshake, More, StreamListener};

/// A bound address that yields byte streams.
#[async_trait]
pub trait Acceptor: Send + Sync + 'static {
    /// What to dial, as the part of a URL after the scheme's colon: `//127.0.0.1:4000`, `///run/mux.sock`.
    fn address(&self) -> &str;

    /// The next connection. An error concerns one connection or a passing shortage; the acceptor goes on.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    async fn accept(&self) -> std::io::Result<ByteStream>;

    /// Stops listening: nobody reaches the address any more, and it can be bound again although the acceptor exists.
    fn close(&self);
}

/// The transports there are, by the name a URL gives them.
pub const TRANSPORTS: &[&str] = &["tcp", "tls", "unix"];

/// Connects to the place that `url` names; `tcp` where it names no transport. For `tls` it gives the TCP connection, on which
/// [`tls::connect`] does the handshake, because only the wire knows its application protocols.
///
/// # Errors
/// A URL that the transport cannot use, a name that does not resolve, or what the operating system says.
///
/// # Cancel safety
/// Cancel-safe: a dropped future abandons the attempt.
pub async fn connect(url: &Url) -> Result<ByteStream> {
    match url.transport().unwrap_or("tcp") {
        "tcp" | "tls" => tcp::connect(url).await,
        #[cfg(unix)]
        "unix" => unix::connect(url).await,
        other => Err(unknown(other)),
    }
}

/// Binds the place that `url` names; `tcp` where it names no transport. For `tls` the handshake is [`tls::accept`]'s.
///
/// # Errors
/// As [`connect`].
///
/// # Cancel safety
/// Cancel-safe.
pub async fn bind(url: &Url) -> Result<Box<dyn Acceptor>> {
    match url.transport().unwrap_or("tcp") {
        "tcp" | "tls" => tcp::bind(url).await,
        #[cfg(unix)]
        "unix" => unix::bind(url).await,
        other => Err(unknown(other)),
    }
}

/// Gives `work` up after `limit`, zero being none; `doing` says in the error what took too long.
///
/// # Errors
/// Those of `work`, or [`TimedOut`](mux_api::ErrorKind::TimedOut).
///
/// # Cancel safety
/// As `work`.
pub async fn within<T>(limit: Duration, doing: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    if limit.is_zero() {
        return work.await;
    }
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::TimedOut, Origin::Transport, format!("{doing}: no answer within {limit:?}")))
    })
}

fn unknown(transport: &str) -> Error {
    Error::url(format!("there is no transport '{transport}'; there are: {}", TRANSPORTS.join(", ")))
}
