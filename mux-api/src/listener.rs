//! A listener: a bound address that yields sessions.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::backend::ListenerOps;
use crate::{Config, Error, Result, Session, WaitList};

/// Accepts sessions. Dropping it stops listening; the sessions it gave out live on.
pub struct Listener {
    ops: Arc<dyn ListenerOps>,
    accepting: Arc<WaitList>,
    ending: Arc<WaitList>,
}

impl Listener {
    /// Wraps what a backend made.
    pub fn new(ops: Arc<dyn ListenerOps>) -> Self {
        Self { ops, accepting: Arc::default(), ending: Arc::default() }
    }

    /// The poll-based operations, for those who bring wakers of their own; do not mix with [`accept`](Self::accept).
    pub fn ops(&self) -> &Arc<dyn ListenerOps> {
        &self.ops
    }

    /// The URL to dial, with the real port where the URL listened on said 0.
    pub fn url(&self) -> &str {
        self.ops.url()
    }

    /// Waits for the next session. Its peer can be looked at ([`Session::info`]) and turned away before any channel is
    /// accepted.
    ///
    /// # Errors
    /// Only when the listener itself has ended; a connection that fails its handshake is logged and passed over.
    ///
    /// # Cancel safety
    /// Cancel-safe: a session that arrives after the future is dropped goes to the next call.
    pub async fn accept(&self) -> Result<Session> {
        self.accepting.wait(|cx| self.ops.poll_accept(cx)).await
    }

    /// Takes a session, if one waits.
    ///
    /// # Errors
    /// [`Blocked`](crate::ErrorKind::Blocked) when none waits, otherwise as [`accept`](Self::accept).
    pub fn try_accept(&self) -> Result<Session> {
        let waker = Waker::from(Arc::clone(&self.accepting));
        match self.ops.poll_accept(&mut Context::from_waker(&waker)) {
            Poll::Ready(session) => session,
            Poll::Pending => Err(Error::blocked("no session waits to be accepted")),
        }
    }

    /// Takes certificates and limits from `config` for the sessions that come from now on; the address stays.
    ///
    /// # Errors
    /// What is wrong with `config`; nothing has changed then.
    pub fn reload(&self, config: &Config) -> Result<()> {
        self.ops.reload(config)
    }

    /// Stops listening; later accepts fail once the waiting sessions were taken.
    pub fn close(&self) {
        self.ops.close();
    }

    /// Waits until it has stopped listening, which [`close`](Self::close) begins, and its address is free.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn closed(&self) {
        self.ending.wait(|cx| self.ops.poll_closed(cx)).await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.ops.close();
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("url", &self.url()).finish_non_exhaustive()
    }
}
