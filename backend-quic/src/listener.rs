//! Accepting sessions: handshakes run side by side, so that a slow peer delays only itself.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mux_api::backend::ListenerOps;
use mux_api::{ClientAuth, Config, Error, Result, Role, Session, Url};
use quinn::{Connecting, Connection, ConnectionError, Endpoint, Incoming, ServerConfig};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::congestion::Ending;
use crate::crypto;
use crate::error::connection_error;
use crate::options::Resume;
use crate::session::{Connected, Stream, start};
use crate::settings::Settings;
use crate::shared::{lock, remember};
use crate::wire::Wire;

/// Handshakes that run at once beside the sessions that wait.
const HANDSHAKES: usize = 1024;

/// So many handshakes, and at most a quarter of the places, are for peers whose addresses may be forged. Others first prove
/// that theirs is their own (RFC 9000 section 8.1.2), which costs a round trip and no memory.
const UNPROVEN: usize = 128;

/// Dialers that the listener has not looked at yet; what further ones send is lost, and they send it again. quinn holds 65,536
/// otherwise, at over 2 KiB each, on a machine that is too busy to look.
const UNSEEN: usize = 512;

/// What such dialers may send beyond their first datagrams (early data), each and all together, in bytes.
const UNSEEN_DATA: [u64; 2] = [256 << 10, 4 << 20];

/// How long a handshake may take when the configuration sets no limit.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct QuicListener {
    url: String,
    queue: Arc<Queue>,
    acceptor: Arc<Acceptor>,
}

/// What sessions are accepted with.
pub(crate) struct Accepting {
    pub(crate) server: ServerConfig,
    pub(crate) settings: Settings,
    /// Sessions begin with what a dialer sends before its handshake is complete.
    early: bool,
    handshake: Duration,
    max_sessions: usize,
    backlog: usize,
}

impl Accepting {
    pub(crate) fn new(config: &Config, url: &Url) -> Result<Self> {
        let settings = Settings::new(config, url)?;
        // Each connection gets settings of its own: here they are only tried.
        settings.transport(Role::Server, Ipv4Addr::LOCALHOST.into(), &Ending::default())?;
        let mut server = ServerConfig::with_crypto(crypto::server(config, &settings.options)?);
        let [each, all] = UNSEEN_DATA;
        server.max_incoming(UNSEEN).incoming_buffer_size(each).incoming_buffer_size_total(all);
        Ok(Self {
            server,
            // Not before a dialer is known of whom a certificate is asked.
            early: settings.options.resume == Resume::Early && config.tls.client_auth == ClientAuth::None,
            settings,
            handshake: if config.connect_timeout.is_zero() { HANDSHAKE_LIMIT } else { config.connect_timeout },
            max_sessions: config.max_sessions.max(1) as usize,
            backlog: config.session_backlog.max(1) as usize,
        })
    }
}

/// Sessions whose handshake is complete.
#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
}

#[derive(Default)]
struct QueueState {
    /// The session, and its place in the backlog, which becomes free when it is taken.
    ready: VecDeque<(Session, OwnedSemaphorePermit)>,
    accepting: Option<Waker>,
    closing: Option<Waker>,
    closed: bool,
}

impl Queue {
    fn push(&self, session: Session, place: OwnedSemaphorePermit) {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            return drop(session);
        }
        state.ready.push_back((session, place));
        let waker = state.accepting.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl QuicListener {
    pub(crate) fn start(endpoint: Endpoint, local: SocketAddr, asked: &Url, accepting: Accepting) -> Arc<Self> {
        let url = format!("quic://{local}");
        let queue = Arc::new(Queue::default());
        let acceptor = Arc::new(Acceptor {
            url: url.clone(),
            local,
            queue: Arc::clone(&queue),
            places: permits(accepting.backlog),
            handshakes: permits(HANDSHAKES),
            unproven: permits(UNPROVEN.min(accepting.backlog / 4).min(accepting.max_sessions / 4)),
            sessions: permits(accepting.max_sessions),
            asked: asked.clone(),
            current: Mutex::new(Arc::new(accepting)),
            closing: Notify::new(),
        });
        tokio::spawn(accept_all(endpoint, Arc::clone(&acceptor)));
        Arc::new(Self { url, queue, acceptor })
    }
}

fn permits(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)))
}

struct Acceptor {
    url: String,
    local: SocketAddr,
    queue: Arc<Queue>,
    /// Sessions that wait to be taken.
    places: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    /// Handshakes with peers whose address is not proven.
    unproven: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
    /// The URL that was listened on.
    asked: Url,
    current: Mutex<Arc<Accepting>>,
    /// The listener is closed.
    closing: Notify,
}

/// Accepts until the listener is closed, which ends the handshakes that are under way, then refuses for as long as sessions
/// use the socket. One bad connection does not end it.
async fn accept_all(endpoint: Endpoint, acceptor: Arc<Acceptor>) {
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let incoming = tokio::select! {
            biased;
            () = acceptor.closing.notified() => break,
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => incoming,
                None => return,
            },
        };
        let Ok(shaking) = Arc::clone(&acceptor.handshakes).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let current = Arc::clone(&lock(&acceptor.current));
        let unproven = if incoming.remote_address_validated() || !incoming.may_retry() {
            None
        } else {
            let place = Arc::clone(&acceptor.unproven).try_acquire_owned().ok();
            let Some(place) = place.filter(|_| !current.settings.options.retry) else {
                // It fails only where no retry is possible, which was asked.
                let _ = incoming.retry();
                continue;
            };
            Some(place)
        };
        // A dialer that is refused knows at once, and that trying again later is safe.
        let (Ok(live), Ok(place)) =
            (Arc::clone(&acceptor.sessions).try_acquire_owned(), Arc::clone(&acceptor.places).try_acquire_owned())
        else {
            incoming.refuse();
            continue;
        };
        let acceptor = Arc::clone(&acceptor);
        handshakes.spawn(async move {
            let peer = incoming.remote_address();
            let shaken = timeout(current.handshake, shake_hands(incoming, live, &acceptor, &current)).await;
            drop((shaking, unproven));
            match shaken {
                Ok(Ok(session)) => acceptor.queue.push(session, place),
                Ok(Err(error)) => tracing::debug!(url = %acceptor.url, %peer, %error, "a handshake failed"),
                Err(_) => tracing::debug!(url = %acceptor.url, %peer, "a handshake took too long"),
            }
        });
    }
    drop((acceptor, handshakes));
    loop {
        tokio::select! {
            () = endpoint.wait_idle() => return,
            Some(incoming) = endpoint.accept() => incoming.refuse(),
        }
    }
}

async fn shake_hands(
    incoming: Incoming,
    live: OwnedSemaphorePermit,
    acceptor: &Acceptor,
    current: &Accepting,
) -> Result<Session> {
    let lost = |error| connection_error(&error, false, Wire::Libmux);
    let ending = Ending::default();
    let mut server = current.server.clone();
    let peer = incoming.remote_address().ip();
    server.transport_config(current.settings.transport(Role::Server, peer, &ending)?);
    let connecting = incoming.accept_with(Arc::new(server)).map_err(lost)?;
    let (conn, first) =
        if current.early { meet_early(connecting).await } else { connecting.await.map(|conn| (conn, None)) }
            .map_err(lost)?;
    let connected = Connected {
        conn,
        first,
        early: None,
        ending,
        url: acceptor.url.clone(),
        role: Role::Server,
        local: Some(acceptor.local),
        endpoint: None,
        guard: Some(Box::new(live)),
    };
    start(connected, current.settings.clone()).await
}

/// Waits for the end of a handshake, or for a stream that came before it (0-RTT), which is returned.
async fn meet_early(connecting: Connecting) -> Result<(Connection, Option<Stream>), ConnectionError> {
    let (conn, established) = match connecting.into_0rtt() {
        Ok(early) => early,
        Err(connecting) => return Ok((connecting.await?, None)),
    };
    tokio::select! {
        biased;
        first = conn.accept_bi() => Ok((conn.clone(), Some(first?))),
        _ = established => conn.close_reason().map_or(Ok((conn.clone(), None)), Err),
    }
}

impl ListenerOps for QuicListener {
    fn url(&self) -> &str {
        &self.url
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<Session>> {
        let mut state = lock(&self.queue.state);
        if let Some((session, _place)) = state.ready.pop_front() {
            return Poll::Ready(Ok(session));
        }
        if state.closed {
            return Poll::Ready(Err(Error::closed_locally()));
        }
        remember(&mut state.accepting, cx.waker());
        Poll::Pending
    }

    /// Limits of the listener itself, and what its socket was made with, stay as they are.
    fn reload(&self, config: &Config) -> Result<()> {
        let accepting = Accepting::new(config, &self.acceptor.asked)?;
        *lock(&self.acceptor.current) = Arc::new(accepting);
        Ok(())
    }

    fn close(&self) {
        self.acceptor.closing.notify_one();
        let mut state = lock(&self.queue.state);
        state.closed = true;
        let wakers = [state.accepting.take(), state.closing.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// The address stays taken as long as sessions of the listener live on its socket.
    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.queue.state);
        if state.closed {
            return Poll::Ready(());
        }
        remember(&mut state.closing, cx.waker());
        Poll::Pending
    }
}

impl Drop for QuicListener {
    fn drop(&mut self) {
        self.close();
    }
}
