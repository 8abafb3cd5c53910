//! Accepting HTTP/2 connections: handshakes run side by side, so that a slow peer delays only itself; a session waits
//! to be accepted once its first request has named it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mux_api::backend::ListenerOps;
use mux_api::{Config, Error, Result, Role, Session};
use mux_transport::{Acceptor, ByteStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::ServerConfig;

use crate::backend::{CAPABILITIES, Place, RAW, new_shared, server_settings, session_info};
use crate::driver::{Driver, Sessions};
use crate::error;
use crate::io::{Io, Joined};
use crate::record::Outgoing;
use crate::session::{H2Session, wake};
use crate::tls;

/// How long to wait after an accept failed for want of descriptors or memory.
const BREATHER: Duration = Duration::from_millis(50);

/// Handshakes that run at once beside the sessions that wait: a flood of silent connections waits in the kernel.
const HANDSHAKES: usize = 1024;

/// How long a handshake may take when the configuration sets no limit.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct H2Listener {
    url: String,
    acceptor: Arc<dyn Acceptor>,
    queue: Arc<Queue>,
    accepting: JoinHandle<()>,
}

/// Sessions that wait to be accepted.
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
    _place: OwnedSemaphorePermit,
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
        wake(waker);
    }
}

/// What every connection of a listener shares.
struct Common {
    url: String,
    place: Place,
    tls: Option<Arc<ServerConfig>>,
    config: Config,
    sessions: Arc<Sessions>,
    queue: Arc<Queue>,
}

impl H2Listener {
    pub(crate) fn start(
        acceptor: Arc<dyn Acceptor>,
        place: Place,
        tls: Option<Arc<ServerConfig>>,
        config: Config,
    ) -> Arc<Self> {
        let url = place.url(acceptor.address());
        let queue = Arc::new(Queue::default());
        let common =
            Common { url: url.clone(), place, tls, config, sessions: Arc::default(), queue: Arc::clone(&queue) };
        let accepting = tokio::spawn(accept_all(Arc::clone(&acceptor), Arc::new(common)));
        Arc::new(Self { url, acceptor, queue, accepting })
    }
}

/// Accepts until it is aborted. One bad connection, or a passing shortage, does not end it.
async fn accept_all(acceptor: Arc<dyn Acceptor>, common: Arc<Common>) {
    let config = &common.config;
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
                    tracing::debug!(url = %common.url, %error, "a connection was gone before it was accepted");
                } else {
                    tracing::warn!(url = %common.url, %error, "no connection can be accepted for the moment");
                    sleep(BREATHER).await;
                }
                continue;
            }
        };
        let common = Arc::clone(&common);
        tokio::spawn(async move {
            let peer = stream.peer_addr.clone();
            if let Err(error) = shake_hands(stream, place, Box::new(live), &common).await {
                tracing::debug!(url = %common.url, %peer, %error, "a handshake failed");
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
    place: OwnedSemaphorePermit,
    live: Box<dyn Send>,
    common: &Arc<Common>,
) -> Result<()> {
    let mut info = session_info(Role::Server, common.url.clone(), &stream);
    let shared = new_shared(&common.config);
    let handshakes = async {
        let joined = Joined::new(stream);
        let io = match &common.tls {
            Some(config) => {
                let (stream, tls) = tls::accept(joined, Arc::clone(config)).await?;
                info.tls = Some(tls);
                Io::new(stream, &shared.fault)
            }
            None => Io::new(joined, &shared.fault),
        };
        server_settings(&shared.limits)
            .handshake::<_, Outgoing>(io)
            .await
            .map_err(|error| error::connection(error, &shared.fault))
    };
    let limit = common.config.connect_timeout;
    let limit = if limit.is_zero() { HANDSHAKE_LIMIT } else { limit };
    let conn = timeout(limit, handshakes).await.unwrap_or_else(|_| Err(error::lost("it took too long".to_owned())))?;
    let make = {
        let shared = Arc::clone(&shared);
        move |records| {
            let capabilities = if records { CAPABILITIES } else { RAW };
            Session::new(H2Session::new(Arc::clone(&shared), info.clone(), capabilities))
        }
    };
    let give = {
        let queue = Arc::clone(&common.queue);
        move |session| queue.push(Waiting { session, _place: place })
    };
    let (prefix, sessions) = (common.place.prefix.clone(), Arc::clone(&common.sessions));
    tokio::spawn(Driver::server(shared, conn, prefix, sessions, Box::new(make), Box::new(give), live));
    Ok(())
}

impl ListenerOps for H2Listener {
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
        wake(waker);
    }
}

impl Drop for H2Listener {
    fn drop(&mut self) {
        self.close();
    }
}
