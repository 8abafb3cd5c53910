//! Accepting qmux sessions: handshakes run side by side, so that a slow peer delays only itself.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mux_api::backend::ListenerOps;
use mux_api::{Config, Error, ErrorKind, Origin, Result, Role, Session, Url};
use mux_transport::{Acceptor, ByteStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::backend::{Extension, start};

/// How long to wait after an accept failed for want of descriptors or memory.
const BREATHER: Duration = Duration::from_millis(50);

/// Handshakes that run at once beside the sessions that wait: a flood of silent connections waits in the kernel.
const HANDSHAKES: usize = 1024;

/// How long a handshake may take when the configuration sets no limit.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct QmuxListener {
    url: String,
    acceptor: Arc<dyn Acceptor>,
    queue: Arc<Queue>,
    accepting: JoinHandle<()>,
}

/// Sessions whose handshake is complete.
#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
}

#[derive(Default)]
struct QueueState {
    ready: VecDeque<Waiting>,
    waker: Option<Waker>,
    closed: bool,
}

/// A session in the backlog, whose place becomes free when it is taken.
struct Waiting {
    session: Session,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, waiting: Waiting) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.ready.push_back(waiting);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl QmuxListener {
    pub(crate) fn start(acceptor: Arc<dyn Acceptor>, url: &Url, extension: Extension, config: Config) -> Arc<Self> {
        let url = format!("{}:{}", url.scheme(), acceptor.address());
        let queue = Arc::new(Queue::default());
        let accepting =
            tokio::spawn(accept_all(Arc::clone(&acceptor), Arc::clone(&queue), url.clone(), extension, config));
        Arc::new(Self { url, acceptor, queue, accepting })
    }
}

/// Accepts until it is aborted. One bad connection, or a passing shortage, does not end it.
async fn accept_all(acceptor: Arc<dyn Acceptor>, queue: Arc<Queue>, url: String, extension: Extension, config: Config) {
    let config = Arc::new(config);
    let backlog = (config.session_backlog.max(1) as usize).saturating_add(HANDSHAKES).min(Semaphore::MAX_PERMITS);
    let places = Arc::new(Semaphore::new(backlog));
    let sessions = Arc::new(Semaphore::new((config.max_sessions.max(1) as usize).min(Semaphore::MAX_PERMITS)));
    loop {
        // Neither semaphore is ever closed.
        let (Ok(place), Ok(live)) =
            (Arc::clone(&places).acquire_owned().await, Arc::clone(&sessions).acquire_owned().await)
        else {
            return;
        };
        let stream = match acceptor.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                if concerns_one_connection(&error) {
                    tracing::debug!(%url, %error, "a connection was gone before it was accepted");
                } else {
                    tracing::warn!(%url, %error, "no connection can be accepted for the moment");
                    sleep(BREATHER).await;
                }
                continue;
            }
        };
        let (queue, url, config) = (Arc::clone(&queue), url.clone(), Arc::clone(&config));
        tokio::spawn(async move {
            let peer = stream.peer_addr.clone();
            match shake_hands(stream, Box::new(live), &url, extension, &config).await {
                Ok(session) => queue.push(Waiting { session, _place: place }),
                Err(error) => tracing::debug!(%url, %peer, %error, "a handshake failed"),
            }
        });
    }
}

/// Whether the next connection is not affected. Waiting after such an error would let whoever connects and resets keep
/// everybody else out.
fn concerns_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | TimedOut)
}

async fn shake_hands(
    stream: ByteStream,
    live: Box<dyn Send>,
    url: &str,
    extension: Extension,
    config: &Config,
) -> Result<Session> {
    let limit = if config.connect_timeout.is_zero() { HANDSHAKE_LIMIT } else { config.connect_timeout };
    let shaken = timeout(limit, start(stream, Some(live), Role::Server, url, extension, config)).await;
    shaken.unwrap_or_else(|_| {
        let message = format!("the peer did not finish the handshake within {limit:?}");
        Err(Error::new(ErrorKind::TimedOut, Origin::Peer, message))
    })
}

impl ListenerOps for QmuxListener {
    fn url(&self) -> &str {
        &self.url
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<Session>> {
        let mut state = self.queue.lock();
        if let Some(waiting) = state.ready.pop_front() {
            return Poll::Ready(Ok(waiting.session));
        }
        if state.closed {
            return Poll::Ready(Err(Error::closed_locally()));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn close(&self) {
        // In this order: a socket that is shut down fails to accept, which is no news any more.
        self.accepting.abort();
        self.acceptor.close();
        let mut state = self.queue.lock();
        state.closed = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for QmuxListener {
    fn drop(&mut self) {
        self.close();
    }
}
