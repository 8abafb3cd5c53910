//! Listening for sessions on byte streams, for every wire: handshakes run side by side, so that a slow peer delays only
//! itself, and what is ready waits in a backlog.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use mux_api::backend::ListenerOps;
use mux_api::{Config, Error, ErrorKind, Origin, Result, Session};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::{Acceptor, ByteStream};

/// How long to wait after an accept failed for want of descriptors or memory.
const BREATHER: Duration = Duration::from_millis(50);

/// Handshakes that run at once beside the sessions that wait: a flood of silent connections waits in the kernel.
const HANDSHAKES: usize = 1024;

/// How long a handshake may take when the configuration sets no limit.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);

/// What a wire does with a connection that came in.
#[async_trait]
pub trait Handshake: Send + Sync + 'static {
    /// Makes a session of `stream` and hands it to `entry`, at once or later. An error is logged and concerns this
    /// connection alone.
    async fn shake_hands(&self, stream: ByteStream, entry: Entry) -> Result<()>;

    /// See [`ListenerOps::reload`].
    ///
    /// # Errors
    /// What is wrong with `config`; nothing has changed then.
    fn reload(&self, config: &Config) -> Result<()>;
}

/// A connection's claim to a place in the backlog.
pub struct Entry {
    /// Counts as a live session until it is dropped: keep it as long as the transport lives.
    pub live: Box<dyn Send>,
    /// Puts the session into the backlog.
    pub give: Give,
    /// For the further sessions of this connection.
    pub more: More,
}

/// Puts one session into a listener's backlog.
pub struct Give {
    queue: Arc<Queue>,
    place: OwnedSemaphorePermit,
}

/// Makes entries for the further sessions of a connection that carries several.
#[derive(Clone)]
pub struct More {
    queue: Arc<Queue>,
    backlog: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
}

impl More {
    /// Another entry; `None` while the listener has no room for one.
    pub fn entry(&self) -> Option<Entry> {
        let place = Arc::clone(&self.backlog).try_acquire_owned().ok()?;
        let live = Arc::clone(&self.sessions).try_acquire_owned().ok()?;
        Some(self.filled(place, live))
    }

    fn filled(&self, place: OwnedSemaphorePermit, live: OwnedSemaphorePermit) -> Entry {
        Entry { live: Box::new(live), give: Give { queue: Arc::clone(&self.queue), place }, more: self.clone() }
    }
}

impl Give {
    /// The session waits to be accepted; once nobody listens any more, it is dropped.
    pub fn session(self, session: Session) {
        self.queue.push(Waiting { session, _place: self.place });
    }
}

/// A listener on byte streams; backends wrap it in [`mux_api::Listener`].
pub struct StreamListener {
    url: String,
    acceptor: Arc<dyn Acceptor>,
    handshake: Arc<dyn Handshake>,
    queue: Arc<Queue>,
    accepting: JoinHandle<()>,
}

impl StreamListener {
    /// Accepts from now on, at most `config.max_sessions` live ones. Must be called inside a tokio runtime.
    pub fn start(
        acceptor: Box<dyn Acceptor>,
        url: String,
        handshake: Arc<dyn Handshake>,
        config: &Config,
    ) -> Arc<Self> {
        let queue = Arc::new(Queue::default());
        let acceptor: Arc<dyn Acceptor> = acceptor.into();
        let accepting = Accepting {
            acceptor: Arc::clone(&acceptor),
            handshake: Arc::clone(&handshake),
            url: url.clone(),
            limit: if config.connect_timeout.is_zero() { HANDSHAKE_LIMIT } else { config.connect_timeout },
            room: More {
                queue: Arc::clone(&queue),
                backlog: permits((config.session_backlog.max(1) as usize).saturating_add(HANDSHAKES)),
                sessions: permits(config.max_sessions.max(1) as usize),
            },
        };
        Arc::new(Self { url, acceptor, handshake, queue, accepting: tokio::spawn(accepting.run()) })
    }
}

fn permits(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)))
}

struct Accepting {
    acceptor: Arc<dyn Acceptor>,
    handshake: Arc<dyn Handshake>,
    url: String,
    limit: Duration,
    room: More,
}

impl Accepting {
    /// Accepts until it is aborted, which ends the handshakes that are under way. One bad connection, or a passing shortage,
    /// does not end it.
    async fn run(self) {
        let mut handshakes = JoinSet::new();
        loop {
            while handshakes.try_join_next().is_some() {}
            let More { backlog, sessions, .. } = &self.room;
            let (place, live) = (Arc::clone(backlog).acquire_owned(), Arc::clone(sessions).acquire_owned());
            // Neither semaphore is ever closed.
            let (Ok(place), Ok(live)) = (place.await, live.await) else { return };
            let stream = match self.acceptor.accept().await {
                Ok(stream) => stream,
                Err(error) if concerns_one_connection(&error) => {
                    tracing::debug!(url = %self.url, %error, "a connection was gone before it was accepted");
                    continue;
                }
                Err(error) => {
                    tracing::warn!(url = %self.url, %error, "no connection can be accepted for the moment");
                    sleep(BREATHER).await;
                    continue;
                }
            };
            handshakes.spawn(self.shake_hands(stream, self.room.filled(place, live)));
        }
    }

    fn shake_hands(&self, stream: ByteStream, entry: Entry) -> impl Future<Output = ()> + use<> {
        let (handshake, url, limit) = (Arc::clone(&self.handshake), self.url.clone(), self.limit);
        async move {
            let peer = stream.peer_addr.clone();
            let shaken = timeout(limit, handshake.shake_hands(stream, entry)).await.unwrap_or_else(|_| {
                let message = format!("the peer did not finish the handshake within {limit:?}");
                Err(Error::new(ErrorKind::TimedOut, Origin::Peer, message))
            });
            if let Err(error) = shaken {
                tracing::debug!(%url, %peer, %error, "a handshake failed");
            }
        }
    }
}

/// Whether the next connection is not affected. Waiting after such an error would let whoever connects and resets keep
/// everybody else out.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | TimedOut)
}

impl ListenerOps for StreamListener {
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
        state.accepting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn reload(&self, config: &Config) -> Result<()> {
        self.handshake.reload(config)
    }

    fn close(&self) {
        // In this order: a socket that is shut down fails to accept, which is no news any more.
        self.accepting.abort();
        self.acceptor.close();
        let mut state = self.queue.lock();
        state.closed = true;
        let wakers = [state.accepting.take(), state.closing.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.queue.lock();
        if state.closed {
            return Poll::Ready(());
        }
        state.closing = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for StreamListener {
    fn drop(&mut self) {
        self.close();
    }
}

/// Sessions whose handshake is complete.
#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
}

#[derive(Default)]
struct QueueState {
    ready: VecDeque<Waiting>,
    accepting: Option<Waker>,
    closing: Option<Waker>,
    closed: bool,
}

/// A session in the backlog, whose place becomes free when it is taken.
struct Waiting {
    session: Session,
    _place: OwnedSemaphorePermit,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, waiting: Waiting) {
        let mut state = self.lock();
        if state.closed {
            // Outside the lock, for the drop ends the session.
            drop(state);
            return;
        }
        state.ready.push_back(waiting);
        let waker = state.accepting.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
