//! Sessions and listeners of backends written in C.

use std::ffi::CString;
use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use libmux::backend::{BoxFuture, ChannelParts, ListenerOps, SessionOps};
use libmux::{Capabilities, Config, Error, ErrorKind, Initiator, OpenOptions, Origin, Result, Role};
use libmux::{Session, SessionInfo, Stats, TlsInfo};

use super::channel;
use super::error::{Status, failure};
use super::object::{Made, Object, slot};
use super::with_config;
use crate::abi::{mux_error, mux_event_bit, mux_info_key, mux_kind, mux_open_opts, mux_status};
use crate::status;
use crate::vtable::mux_backend;

const CONNECTED: u32 = mux_event_bit::MUX_EV_CONNECTED as u32;
const OPEN: u32 = mux_event_bit::MUX_EV_OPEN as u32;
const DRAINED: u32 = mux_event_bit::MUX_EV_DRAINED as u32;
const CLOSED: u32 = mux_event_bit::MUX_EV_CLOSED as u32;

/// The largest datagram that is taken; no path carries a larger one.
const DATAGRAM: usize = 65_536;

pub(super) struct ForeignSession {
    object: Arc<Object>,
    info: SessionInfo,
    capabilities: Capabilities,
    max_label: usize,
    ended: OnceLock<Error>,
}

/// The session of an object that is connected, or waits until it is.
pub(super) async fn connected(object: Arc<Object>, url: String, config: &Config) -> Result<Session> {
    let waiting = poll_fn(|cx| {
        object.wakers.park(slot::CONNECTED, cx);
        match object.ready(CONNECTED | CLOSED, 0) {
            Ok(0) => Poll::Pending,
            Ok(ready) if ready & CLOSED != 0 => Poll::Ready(Err(object.why(Status::OK).unwrap_or_else(ended))),
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
        }
    });
    match config.connect_timeout {
        Duration::ZERO => waiting.await?,
        limit => tokio::time::timeout(limit, waiting).await.map_err(|_| {
            Error::new(ErrorKind::TimedOut, Origin::Transport, format!("dial {url}: no session within {limit:?}"))
        })??,
    }
    Ok(ForeignSession::wrap(object, Role::Client, url, config))
}

fn ended() -> Error {
    Error::new(ErrorKind::Closed, Origin::Transport, "the session ended, and its backend does not say why")
}

impl ForeignSession {
    fn wrap(object: Arc<Object>, role: Role, url: String, config: &Config) -> Session {
        use mux_info_key as key;
        let mut info = SessionInfo::new(role, url);
        info.local_addr = object.text(key::MUX_INFO_LOCAL_ADDR);
        info.peer_addr = object.text(key::MUX_INFO_PEER_ADDR);
        let summary = object.text(key::MUX_INFO_TLS);
        if !summary.is_empty() {
            let certificate = object.info(key::MUX_INFO_PEER_CERT_DER);
            let mut tls = TlsInfo::default();
            tls.summary = summary;
            tls.alpn = object.text(key::MUX_INFO_ALPN);
            tls.peer_certificate = (!certificate.is_empty()).then(|| certificate.into());
            info.tls = Some(tls);
        }
        let negotiated = object.call(|table, place| {
            // SAFETY: registered functions are what `mux_backend` says; `place` is live until its `_free`.
            table.session_caps.map(|caps| unsafe { caps(place) })
        });
        let bits = negotiated.ok().flatten().unwrap_or(object.backend.table.caps);
        let capabilities = Capabilities::from_bits(bits & object.backend.table.caps);
        let max_label = config.max_label as usize;
        Session::new(Arc::new(Self { object, info, capabilities, max_label, ended: OnceLock::new() }))
    }

    /// Why it ended, if it did.
    fn end(&self) -> Option<Error> {
        if let Some(error) = self.ended.get() {
            return Some(error.clone());
        }
        let error = self.object.why(Status::OK)?;
        Some(self.ended.get_or_init(|| error).clone())
    }

    /// What a function that makes a channel came to.
    fn made(&self, made: Made, initiator: Initiator, label: Option<&Bytes>) -> Poll<Result<ChannelParts>> {
        match made {
            Ok(None) => Poll::Pending,
            Ok(Some(object)) => {
                let label = label.cloned().unwrap_or_else(|| object.info(mux_info_key::MUX_INFO_LABEL).into());
                Poll::Ready(Ok(channel::parts(object, initiator, label, self.capabilities)))
            }
            Err(status) => Poll::Ready(Err(self.failed(status))),
        }
    }

    fn failed(&self, status: mux_status) -> Error {
        self.end().or_else(|| self.object.why(status)).unwrap_or_else(|| failure(status, None))
    }

    /// Waits for an event; a session that ended says why.
    fn wait(&self, cx: &Context<'_>, at: usize, event: u32) -> Poll<Result<()>> {
        self.object.wakers.park(at, cx);
        match self.object.ready(event | CLOSED, 0)? {
            0 => Poll::Pending,
            ready if ready & CLOSED != 0 => Poll::Ready(Err(self.end().unwrap_or_else(ended))),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn check_label(&self, label: &Bytes) -> Result<()> {
        if label.is_empty() {
            return Ok(());
        }
        if !self.capabilities.contains(Capabilities::LABEL) {
            return Err(Error::unsupported("this session has no labels (MUX_CAP_LABEL)"));
        }
        if label.len() > self.max_label {
            let message = format!("the label has {} bytes; {} are allowed", label.len(), self.max_label);
            return Err(Error::new(ErrorKind::TooBig, Origin::Local, message));
        }
        Ok(())
    }
}

fn no_datagrams() -> Error {
    Error::unsupported("this session has no datagrams (MUX_CAP_DATAGRAM)")
}

impl SessionOps for ForeignSession {
    fn info(&self) -> &SessionInfo {
        &self.info
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn poll_open(&self, cx: &mut Context<'_>, options: &OpenOptions) -> Poll<Result<ChannelParts>> {
        self.check_label(&options.label)?;
        self.object.wakers.park(slot::OPEN, cx);
        let opts = mux_open_opts {
            struct_size: size_of::<mux_open_opts>() as u32,
            flags: 0,
            label: options.label.as_ptr().cast(),
            label_len: options.label.len(),
            urgency: u32::from(options.priority.urgency()) + 1,
            incremental: options.priority.incremental.into(),
        };
        let made = self.object.next(mux_kind::MUX_KIND_CHANNEL, |table, place, cookie, out| {
            // SAFETY: as in `wrap`; `opts` and its label outlive the call, `out` is writable.
            table.open.map_or(Status::AGAIN, |open| unsafe { open(place, &raw const opts, cookie, out) })
        })?;
        self.made(made, Initiator::Local, Some(&options.label))
    }

    fn poll_can_open(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.wait(cx, slot::CAN_OPEN, OPEN).map(|_| ())
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<ChannelParts>> {
        self.object.wakers.park(slot::CHANNEL, cx);
        let made = self.object.next(mux_kind::MUX_KIND_CHANNEL, |table, place, cookie, out| {
            // SAFETY: as in `wrap`; `out` is writable.
            table.incoming.map_or(Status::AGAIN, |incoming| unsafe { incoming(place, cookie, out) })
        })?;
        self.made(made, Initiator::Peer, None)
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.wait(cx, slot::DRAINED, DRAINED)
    }

    fn ping(&self) -> BoxFuture<'_, Result<Duration>> {
        Box::pin(poll_fn(|cx| {
            self.object.wakers.park(slot::PING, cx);
            let mut micros = 0;
            let asked = self.object.call(|table, place| {
                // SAFETY: as in `wrap`; `micros` is writable.
                table.ping.map(|ping| unsafe { ping(place, &raw mut micros) })
            })?;
            match asked {
                None => Poll::Ready(Err(Error::unsupported("this session cannot ping"))),
                Some(Status::OK) => Poll::Ready(Ok(Duration::from_micros(micros))),
                Some(Status::AGAIN) => Poll::Pending,
                Some(status) => Poll::Ready(Err(self.failed(status))),
            }
        }))
    }

    fn max_datagram(&self) -> Option<usize> {
        if !self.capabilities.contains(Capabilities::DATAGRAM) {
            return None;
        }
        let most = self.object.info(mux_info_key::MUX_INFO_MAX_DATAGRAM);
        most.try_into().ok().map(|most| u64::from_ne_bytes(most) as usize)
    }

    fn send_datagram(&self, data: Bytes) -> Result<()> {
        if !self.capabilities.contains(Capabilities::DATAGRAM) {
            return Err(no_datagrams());
        }
        let sent = self.object.call(|table, place| {
            // SAFETY: as in `wrap`; `data` is readable for its length.
            table.datagram_send.map(|send| unsafe { send(place, data.as_ptr().cast(), data.len()) })
        })?;
        match sent {
            None => Err(no_datagrams()),
            Some(Status::OK) => Ok(()),
            Some(status) => Err(self.failed(status)),
        }
    }

    fn poll_datagram(&self, cx: &mut Context<'_>) -> Poll<Result<Bytes>> {
        if !self.capabilities.contains(Capabilities::DATAGRAM) {
            return Poll::Ready(Err(no_datagrams()));
        }
        self.object.wakers.park(slot::DATAGRAM, cx);
        let mut room = vec![0u8; DATAGRAM];
        let got = self.object.call(|table, place| {
            // SAFETY: as in `wrap`; `room` is writable for its length.
            table.datagram_recv.map(|recv| unsafe { recv(place, room.as_mut_ptr().cast(), room.len()) })
        })?;
        let Some(got) = got else { return Poll::Ready(Err(no_datagrams())) };
        match (usize::try_from(got), mux_status::try_from(got)) {
            (Ok(count), _) if count <= room.len() => {
                room.truncate(count);
                Poll::Ready(Ok(Bytes::copy_from_slice(&room)))
            }
            (Err(_), Ok(Status::AGAIN)) => Poll::Pending,
            (Err(_), Ok(status)) => Poll::Ready(Err(self.failed(status))),
            _ => Poll::Ready(Err(failure(1, None))),
        }
    }

    fn drain(&self) {
        self.tell(|table, place| {
            // SAFETY: as in `wrap`.
            table.session_drain.into_iter().for_each(|drain| unsafe { drain(place) });
        });
    }

    fn close(&self, code: u64, reason: &str) {
        let reason = CString::new(reason.replace('\0', " ")).unwrap_or_default();
        self.tell(|table, place| {
            // SAFETY: as in `wrap`; `reason` outlives the call.
            table.session_close.into_iter().for_each(|close| unsafe { close(place, code, reason.as_ptr()) });
        });
    }

    fn abort(&self, code: u64) {
        self.tell(|table, place| {
            // SAFETY: as in `wrap`.
            table.session_abort.into_iter().for_each(|abort| unsafe { abort(place, code) });
        });
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<Error> {
        self.wait(cx, slot::ENDED, 0).map(|over| over.err().unwrap_or_else(ended))
    }

    fn cause(&self) -> Option<Error> {
        self.end()
    }

    fn stats(&self) -> Stats {
        let from = self.object.stats();
        let mut stats = Stats::default();
        stats.channels_open = from.channels_open.into();
        stats.channels_opened = from.channels_opened;
        stats.channels_accepted = from.channels_accepted;
        stats.bytes_in = from.bytes_in;
        stats.bytes_out = from.bytes_out;
        stats.resets_in = from.resets_in;
        stats.resets_out = from.resets_out;
        stats.recv_buffered = from.recv_buffered;
        stats.send_buffered = from.send_buffered;
        stats.lost_packets = from.lost_packets;
        stats.rtt = (from.rtt_us > 0).then(|| Duration::from_micros(from.rtt_us));
        stats
    }
}

impl ForeignSession {
    /// Calls a function that has nothing to say. What a backend does to a session from within one of its own functions it has
    /// to do there.
    fn tell(&self, function: impl FnOnce(&mux_backend, *mut std::ffi::c_void)) {
        if let Err(error) = self.object.call(function) {
            tracing::warn!(%error, "a backend was not told");
        }
    }
}

pub(super) struct ForeignListener {
    object: Arc<Object>,
    url: String,
    config: Config,
}

impl ForeignListener {
    pub(super) fn new(object: Arc<Object>, asked: &str, config: &Config) -> Self {
        let url = Some(object.text(mux_info_key::MUX_INFO_URL)).filter(|url| !url.is_empty());
        Self { object, url: url.unwrap_or_else(|| asked.to_owned()), config: config.clone() }
    }
}

impl ListenerOps for ForeignListener {
    fn url(&self) -> &str {
        &self.url
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<Session>> {
        self.object.wakers.park(slot::SESSION, cx);
        let made = self.object.next(mux_kind::MUX_KIND_SESSION, |table, place, cookie, out| {
            // SAFETY: as in `wrap`; `out` is writable.
            table.accept.map_or(Status::AGAIN, |accept| unsafe { accept(place, cookie, out) })
        })?;
        match made {
            Ok(None) => Poll::Pending,
            Ok(Some(object)) => {
                Poll::Ready(Ok(ForeignSession::wrap(object, Role::Server, self.url.clone(), &self.config)))
            }
            Err(status) => Poll::Ready(Err(self.object.why(status).unwrap_or_else(|| failure(status, None)))),
        }
    }

    fn reload(&self, config: &Config) -> Result<()> {
        let Some(reload) = self.object.backend.table.reload else {
            return Err(Error::unsupported(
                "the settings of this backend's listeners cannot be replaced while they run",
            ));
        };
        let mut detail = status::nothing_failed();
        let done = with_config(config, |config| {
            self.object.call(|_, place| {
                // SAFETY: as in `wrap`; `detail` is writable.
                unsafe { reload(place, config, &raw mut detail) }
            })
        })??;
        match done {
            Status::OK => Ok(()),
            status => Err(failure(status, Some(&mux_error { status, ..detail }))),
        }
    }

    fn close(&self) {
        // Refused only within its own functions, which can close what they like.
        let _ = self.object.call(|table, place| {
            // SAFETY: as in `wrap`.
            table.listener_close.into_iter().for_each(|close| unsafe { close(place) });
        });
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.object.wakers.park(slot::STOPPED, cx);
        match self.object.ready(CLOSED, 0) {
            Ok(0) => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }
}
