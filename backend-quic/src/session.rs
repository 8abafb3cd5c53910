//! A session over a QUIC connection.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use mux_api::backend::{BoxFuture, ChannelParts, SessionOps};
use mux_api::{
    Capabilities, Error, ErrorKind, Initiator, OpenOptions, Origin, Result, Role, Session, SessionInfo, Stats, TlsInfo,
    codes,
};
use quinn::{Connection, ConnectionError, RecvStream, SendDatagramError, SendStream, ZeroRttAccepted};
use rustls::pki_types::CertificateDer;
use tokio::sync::oneshot;

use crate::accept::accept_all;
use crate::congestion::Ending;
use crate::control::Control;
use crate::drive::{Parts, Release, drive};
use crate::endpoint::Dialer;
use crate::flush::flush_all;
use crate::preface;
use crate::recv::QuicRecv;
use crate::send::QuicSend;
use crate::settings::Settings;
use crate::shared::{Shared, lock, remember};
use crate::side::SendSide;
use crate::tickets::Key;
use crate::wire::Wire;

pub(crate) struct QuicSession {
    shared: Arc<Shared>,
    info: SessionInfo,
    /// The wait for the next datagram.
    datagrams: Mutex<Option<BoxFuture<'static, Result<Bytes, ConnectionError>>>>,
}

/// Room for so many channels stays when all that waited were taken.
const KEPT_BACKLOG: usize = 128;

pub(crate) type Stream = (SendStream, RecvStream);

/// A connection whose handshake is complete, or which begins before that, and what belongs to it.
pub(crate) struct Connected {
    pub(crate) conn: Connection,
    /// A stream that came before the handshake was complete.
    pub(crate) first: Option<Stream>,
    /// The dialer sends before the peer answers.
    pub(crate) early: Option<Early>,
    /// What its congestion controllers were made with.
    pub(crate) ending: Ending,
    pub(crate) url: String,
    pub(crate) role: Role,
    /// Where our end of the endpoint is bound.
    pub(crate) local: Option<SocketAddr>,
    /// The dialer's endpoint.
    pub(crate) endpoint: Option<Dialer>,
    /// Held as long as the session lives.
    pub(crate) guard: Option<Box<dyn Send + Sync>>,
}

/// What is sent before the peer answers (0-RTT).
pub(crate) struct Early {
    /// The protocol it is sent with.
    pub(crate) protocol: String,
    /// Whether the peer takes it.
    pub(crate) accepted: ZeroRttAccepted,
    /// Where the ticket came from.
    pub(crate) tickets: Key,
}

/// Starts a session on a connection. The dialer opens the control stream, which is always free to be opened first.
pub(crate) async fn start(connected: Connected, settings: Settings) -> Result<Session> {
    let Connected { conn, first, early, ending, url, role, local, endpoint, guard } = connected;
    let mut info = describe(&conn, url, role, local);
    if let (Some(tls), Some(early)) = (&mut info.tls, &early) {
        tls.alpn.clone_from(&early.protocol);
    }
    let wire = Wire::of(info.tls.as_ref().map_or(&[], |tls| tls.alpn.as_bytes()));
    let lost = |error| crate::error::connection_error(&error, true, wire);
    let control = match role {
        Role::Client if wire == Wire::Libmux => {
            let (send, recv) = conn.open_bi().await.map_err(lost)?;
            let mut control = Control::new(send, recv, b"");
            control.output.put(&[preface::CONTROL]);
            Some(control)
        }
        _ => None,
    };
    let shared = Arc::new(Shared::new(conn, role, wire, settings, ending));
    // Before anything of the session can fail.
    let accepted = early.map(|early| {
        shared.tickets.get_or_init(|| early.tickets);
        early.accepted
    });
    let (arrived, arriving) = oneshot::channel();
    let release = Release(Arc::clone(&shared));
    let accepting = tokio::spawn(accept_all(Arc::clone(&shared), role, arrived, first));
    let flushing = tokio::spawn(flush_all(Arc::clone(&shared)));
    let parts = Parts { control, arriving, endpoint, accepting, flushing, _guard: guard };
    tokio::spawn(drive(release, parts));
    if let Some(accepted) = accepted {
        tokio::spawn(await_early(Arc::clone(&shared), accepted));
    }
    Ok(Session::new(Arc::new(QuicSession { shared, info, datagrams: Mutex::default() })))
}

/// Ends a session whose peer does not take what was sent before it answered.
async fn await_early(shared: Arc<Shared>, accepted: ZeroRttAccepted) {
    if !accepted.await && shared.conn.close_reason().is_none() {
        shared.fail_early();
    }
}

fn describe(conn: &Connection, url: String, role: Role, local: Option<SocketAddr>) -> SessionInfo {
    let mut info = SessionInfo::new(role, url);
    info.peer_addr = conn.remote_address().to_string();
    let local = local.map(|bound| SocketAddr::new(conn.local_ip().unwrap_or(bound.ip()), bound.port()));
    info.local_addr = local.map(|local| local.to_string()).unwrap_or_default();
    let mut tls = TlsInfo::default();
    tls.summary = "TLS 1.3".to_owned();
    let handshake = conn.handshake_data().and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
    if let Some(protocol) = handshake.and_then(|data| data.protocol) {
        tls.alpn = String::from_utf8_lossy(&protocol).into_owned();
    }
    let chain = conn.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    tls.peer_certificate = chain.and_then(|chain| chain.first().map(|leaf| Bytes::copy_from_slice(leaf)));
    info.tls = Some(tls);
    info
}

impl QuicSession {
    /// Whether channels may be opened at all.
    fn may_open(&self) -> Result<()> {
        if let Some(error) = self.shared.write_error() {
            return Err(error);
        }
        let state = self.shared.state();
        if let Some(error) = &state.peer_draining {
            return Err(error.clone());
        }
        if state.draining {
            let message = "this session is draining and opens no new channel";
            let error = Error::new(ErrorKind::GoAway, Origin::Local, message);
            return Err(error.with_code(codes::DRAINING).retry_safe(true));
        }
        Ok(())
    }
}

impl SessionOps for QuicSession {
    fn info(&self) -> &SessionInfo {
        &self.info
    }

    fn peer_addr(&self) -> Option<String> {
        Some(self.shared.conn.remote_address().to_string())
    }

    fn capabilities(&self) -> Capabilities {
        let shared = &self.shared;
        shared.wire.capabilities(self.max_datagram().is_some())
    }

    fn poll_open(&self, cx: &mut Context<'_>, options: &OpenOptions) -> Poll<Result<ChannelParts>> {
        let shared = &self.shared;
        let longest = shared.settings.max_label;
        if options.label.len() > longest {
            let message = format!("the label has {} bytes; {longest} are allowed", options.label.len());
            return Poll::Ready(Err(Error::new(ErrorKind::TooBig, Origin::Local, message)));
        }
        if shared.wire != Wire::Libmux && !options.label.is_empty() {
            return Poll::Ready(Err(Error::unsupported("this peer's protocol knows no labels")));
        }
        remember(&mut lock(&shared.opening.wakers.open), cx.waker());
        // After the waker is kept, so that an end between the two looks wakes us.
        self.may_open()?;
        let streams = match shared.opening.poll_take(&shared.conn) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(streams)) => streams,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(shared.lost(&error))),
        };
        // After the peer's credit: an open that has to wait for it holds no memory.
        let Some(held) = shared.budget.reserve(u64::from(shared.settings.window)) else {
            shared.opening.put_back(streams);
            let message = format!(
                "no memory for another channel: a window of {} bytes does not fit the budget ({} of {} bytes are free)",
                shared.settings.window,
                shared.budget.available(),
                shared.budget.limit()
            );
            let error = Error::new(ErrorKind::LimitExceeded, Origin::Local, message).with_code(codes::LIMIT);
            return Poll::Ready(Err(error.retry_safe(true)));
        };
        let (send, recv) = streams;
        shared.counts.opened.fetch_add(1, Ordering::Relaxed);
        let side = SendSide::new(shared, send, Initiator::Local);
        side.begin(options);
        Poll::Ready(Ok(ChannelParts {
            id: side.stream(),
            initiator: Initiator::Local,
            label: options.label.clone(),
            send: Box::new(QuicSend::new(Arc::clone(&side))),
            recv: Box::new(QuicRecv::new(side, recv, Some(held), Bytes::new())),
        }))
    }

    fn poll_can_open(&self, cx: &mut Context<'_>) -> Poll<()> {
        remember(&mut lock(&self.shared.opening.wakers.can_open), cx.waker());
        if self.may_open().is_err() {
            return Poll::Ready(());
        }
        self.shared.opening.poll_look(&self.shared.conn)
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<ChannelParts>> {
        let mut state = self.shared.state();
        if let Some(parts) = state.backlog.pop_front() {
            if state.backlog.is_empty() && state.backlog.capacity() > KEPT_BACKLOG {
                state.backlog = VecDeque::new();
            }
            return Poll::Ready(Ok(parts));
        }
        if state.accept_over || state.closing.is_some() {
            return Poll::Ready(Err(state.why_over()));
        }
        remember(&mut state.accepting, cx.waker());
        Poll::Pending
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.shared.state();
        if let Some(cause) = &state.cause {
            return Poll::Ready(Err(cause.clone()));
        }
        remember(&mut state.flushing, cx.waker());
        if self.shared.unsent() == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn ping(&self) -> BoxFuture<'_, Result<Duration>> {
        Box::pin(async {
            let (answer, answered) = oneshot::channel();
            if self.shared.wire != Wire::Libmux {
                return Err(Error::unsupported("this peer's protocol has no ping"));
            }
            {
                let mut state = self.shared.state();
                if let Some(cause) = &state.cause {
                    return Err(cause.clone());
                }
                state.pings.push(answer);
            }
            self.shared.command.notify_one();
            answered.await.map_err(|_| {
                let cause = self.shared.state().cause.clone();
                cause.unwrap_or_else(Error::closed_locally)
            })
        })
    }

    fn max_datagram(&self) -> Option<usize> {
        self.shared.conn.max_datagram_size().filter(|_| self.shared.settings.datagrams)
    }

    fn send_datagram(&self, data: Bytes) -> Result<()> {
        let shared = &self.shared;
        if let Some(error) = shared.write_error() {
            return Err(error);
        }
        let len = data.len();
        shared.conn.send_datagram(data).map_err(|error| match error {
            SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => {
                Error::unsupported("the peer takes no datagrams")
            }
            SendDatagramError::TooLarge => {
                let max = shared.conn.max_datagram_size().unwrap_or(0);
                let message = format!("the datagram has {len} bytes; {max} are possible at present");
                Error::new(ErrorKind::TooBig, Origin::Local, message)
            }
            SendDatagramError::ConnectionLost(error) => shared.lost(&error),
        })
    }

    fn poll_datagram(&self, cx: &mut Context<'_>) -> Poll<Result<Bytes>> {
        let shared = &self.shared;
        if !self.capabilities().contains(Capabilities::DATAGRAM) && shared.write_error().is_none() {
            return Poll::Ready(Err(Error::unsupported("the peer takes no datagrams")));
        }
        let mut reading = lock(&self.datagrams);
        let future = reading.get_or_insert_with(|| {
            let conn = shared.conn.clone();
            Box::pin(async move { conn.read_datagram().await })
        });
        let polled = future.as_mut().poll(cx);
        if polled.is_ready() {
            *reading = None;
        }
        polled.map_err(|error| shared.lost(&error))
    }

    fn drain(&self) {
        self.shared.state().draining = true;
        self.shared.command.notify_one();
        self.shared.opening.wakers.wake_all();
    }

    fn close(&self, code: u64, reason: &str) {
        self.shared.close(code, reason);
    }

    fn abort(&self, code: u64) {
        self.shared.abort(Error::closed_locally().with_code(code), code, "");
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<Error> {
        let mut state = self.shared.state();
        match &state.cause {
            Some(cause) if state.released => Poll::Ready(cause.clone()),
            _ => {
                remember(&mut state.ending, cx.waker());
                Poll::Pending
            }
        }
    }

    fn cause(&self) -> Option<Error> {
        self.shared.state().cause.clone()
    }

    fn stats(&self) -> Stats {
        let (shared, quic) = (&self.shared, self.shared.conn.stats());
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let mut stats = Stats::default();
        stats.channels_open = count(&shared.counts.open);
        stats.channels_opened = count(&shared.counts.opened);
        stats.channels_accepted = count(&shared.counts.accepted);
        stats.bytes_in = quic.udp_rx.bytes;
        stats.bytes_out = quic.udp_tx.bytes;
        stats.resets_in = count(&shared.counts.resets_in);
        stats.resets_out = count(&shared.counts.resets_out);
        stats.send_buffered = shared.unsent() as u64;
        stats.budget_used = shared.budget.used();
        stats.lost_packets = quic.path.lost_packets;
        stats.rtt = Some(quic.path.rtt);
        stats
    }
}

impl Drop for QuicSession {
    /// The contract's own drop has closed or aborted it; channels that nobody accepted after that hold the session.
    fn drop(&mut self) {
        let backlog = std::mem::take(&mut self.shared.state().backlog);
        drop(backlog);
    }
}
