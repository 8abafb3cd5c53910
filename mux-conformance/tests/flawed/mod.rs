//! A backend that is broken on purpose: qmux, with one flaw.

use std::io::IoSlice;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use libmux::backend::{Backend, BoxFuture, ChannelParts, ListenerOps, RecvOps, Scheme, SendOps, SessionOps};
use libmux::{
    Capabilities, Config, Error, Listener, OpenOptions, Priority, Result, Session, SessionInfo, Stats, Url, WriteFlags,
    codes,
};
use tokio::io::ReadBuf;

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Nothing: whatever fails then is the wrapper's fault.
    None,
    /// A reset is not sent.
    SwallowsReset,
    /// A dropped writer ends cleanly.
    DropIsEnd,
    /// All channels share one window.
    OneWindow,
    /// A channel's entry outlives the channel.
    LeaksChannels,
    /// Nothing is read while a channel waits to be accepted.
    AcceptBlocksReader,
    /// close() does not wait for what was finished.
    CloseIsAbort,
    /// A dropped accept loses the channel that it was about to return.
    LosesAccepted,
    /// A task outlives its session.
    LeavesTasks,
    /// A call blocks its thread.
    BlocksThreads,
}

/// What both ends of its sessions share, since they live in one process.
#[derive(Default)]
struct Common {
    /// Bytes written and not read.
    unread: AtomicI64,
    /// Channels opened and not accepted.
    waiting: AtomicI64,
    wakers: Mutex<Vec<Waker>>,
}

impl Common {
    fn sleep(&self, cx: &Context<'_>) {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner).push(cx.waker().clone());
    }

    fn wake(&self) {
        let wakers = std::mem::take(&mut *self.wakers.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().for_each(Waker::wake);
    }
}

pub(crate) struct Flawed {
    inner: Arc<dyn Backend>,
    make: Make,
}

#[derive(Clone)]
struct Make {
    flaw: Flaw,
    common: Arc<Common>,
}

impl Flawed {
    pub(crate) fn new(flaw: Flaw) -> Self {
        let inner = libmux::registry().backend("qmux").expect("is registered");
        Self { inner, make: Make { flaw, common: Arc::default() } }
    }
}

impl Make {
    fn session(&self, inner: Session) -> Session {
        if self.flaw == Flaw::LeavesTasks {
            tokio::spawn(std::future::pending::<()>());
        }
        Session::new(Arc::new(FlawedSession { inner, make: self.clone(), seen: Mutex::default() }))
    }

    fn parts(&self, parts: ChannelParts) -> ChannelParts {
        let make = self.clone();
        let send = Box::new(FlawedSend { inner: Some(parts.send), make: make.clone() });
        let recv = Box::new(FlawedRecv { inner: Some(parts.recv), make });
        ChannelParts { send, recv, ..parts }
    }
}

#[async_trait]
impl Backend for Flawed {
    fn schemes(&self) -> &[Scheme] {
        self.inner.schemes()
    }

    async fn dial(&self, url: &Url, config: &Config) -> Result<Session> {
        self.make.common.unread.store(0, Ordering::Relaxed);
        self.make.common.waiting.store(0, Ordering::Relaxed);
        Ok(self.make.session(self.inner.dial(url, config).await?))
    }

    async fn listen(&self, url: &Url, config: &Config) -> Result<Listener> {
        let inner = self.inner.listen(url, config).await?;
        Ok(Listener::new(Arc::new(FlawedListener { inner, make: self.make.clone() })))
    }
}

struct FlawedListener {
    inner: Listener,
    make: Make,
}

impl ListenerOps for FlawedListener {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<Session>> {
        self.inner.ops().poll_accept(cx).map_ok(|session| self.make.session(session))
    }

    fn close(&self) {
        self.inner.close();
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.inner.ops().poll_closed(cx)
    }
}

struct FlawedSession {
    inner: Session,
    make: Make,
    /// Taken from the backlog, and given out at the next look only.
    seen: Mutex<Option<ChannelParts>>,
}

impl SessionOps for FlawedSession {
    fn info(&self) -> &SessionInfo {
        self.inner.info()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn poll_open(&self, cx: &mut Context<'_>, options: &OpenOptions) -> Poll<Result<ChannelParts>> {
        if self.make.flaw == Flaw::BlocksThreads {
            loop {
                std::thread::park();
            }
        }
        self.inner.ops().poll_open(cx, options).map_ok(|parts| {
            self.make.common.waiting.fetch_add(1, Ordering::Relaxed);
            self.make.parts(parts)
        })
    }

    fn poll_can_open(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.inner.ops().poll_can_open(cx)
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<ChannelParts>> {
        if self.make.flaw == Flaw::LosesAccepted {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if let Poll::Ready(accepted) = self.inner.ops().poll_accept(cx) {
                *seen = Some(self.make.parts(accepted?));
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            return seen.take().map_or(Poll::Pending, |parts| Poll::Ready(Ok(parts)));
        }
        self.inner.ops().poll_accept(cx).map_ok(|parts| {
            self.make.common.waiting.fetch_sub(1, Ordering::Relaxed);
            self.make.common.wake();
            self.make.parts(parts)
        })
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.ops().poll_flush(cx)
    }

    fn ping(&self) -> BoxFuture<'_, Result<std::time::Duration>> {
        self.inner.ops().ping()
    }

    fn drain(&self) {
        self.inner.drain();
    }

    fn close(&self, code: u64, reason: &str) {
        if self.make.flaw == Flaw::CloseIsAbort {
            self.inner.ops().abort(code);
        } else {
            // Checked by the session around this one.
            let _ = self.inner.close(code, reason);
        }
    }

    fn abort(&self, code: u64) {
        self.inner.ops().abort(code);
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<Error> {
        self.inner.ops().poll_closed(cx)
    }

    fn cause(&self) -> Option<Error> {
        self.inner.cause()
    }

    fn stats(&self) -> Stats {
        self.inner.stats()
    }
}

struct FlawedSend {
    /// `Some` until it is dropped.
    inner: Option<Box<dyn SendOps>>,
    make: Make,
}

impl FlawedSend {
    fn inner(&mut self) -> &mut dyn SendOps {
        &mut **self.inner.as_mut().expect("lives")
    }
}

impl SendOps for FlawedSend {
    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>], flags: WriteFlags) -> Poll<Result<usize>> {
        let common = Arc::clone(&self.make.common);
        if self.make.flaw == Flaw::OneWindow && common.unread.load(Ordering::Relaxed) > 200_000 {
            common.sleep(cx);
            return Poll::Pending;
        }
        self.inner().poll_write(cx, bufs, flags).map_ok(|taken| {
            common.unread.fetch_add(taken as i64, Ordering::Relaxed);
            taken
        })
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()> {
        self.inner().poll_writable(cx, min)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner().poll_opened(cx)
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner().poll_ended(cx)
    }

    fn finish(&mut self) -> Result<()> {
        self.inner().finish()
    }

    fn reset(&mut self, code: u64) -> Result<()> {
        match self.make.flaw {
            Flaw::SwallowsReset if code < codes::LIBRARY_FIRST => Ok(()),
            Flaw::DropIsEnd if code == codes::DROPPED => self.inner().finish(),
            Flaw::LeaksChannels => Ok(()),
            _ => self.inner().reset(code),
        }
    }

    fn set_priority(&mut self, priority: Priority) {
        self.inner().set_priority(priority);
    }

    fn buffered(&self) -> usize {
        self.inner.as_ref().map_or(0, |inner| inner.buffered())
    }
}

struct FlawedRecv {
    inner: Option<Box<dyn RecvOps>>,
    make: Make,
}

impl FlawedRecv {
    fn inner(&mut self) -> &mut dyn RecvOps {
        &mut **self.inner.as_mut().expect("lives")
    }

    fn is_blocked(&self, cx: &Context<'_>) -> bool {
        let blocked =
            self.make.flaw == Flaw::AcceptBlocksReader && self.make.common.waiting.load(Ordering::Relaxed) > 0;
        if blocked {
            self.make.common.sleep(cx);
        }
        blocked
    }

    fn count(&self, len: usize) {
        self.make.common.unread.fetch_sub(len as i64, Ordering::Relaxed);
        self.make.common.wake();
    }
}

impl RecvOps for FlawedRecv {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<usize>> {
        if self.is_blocked(cx) {
            return Poll::Pending;
        }
        let polled = self.inner().poll_read(cx, buf);
        if let Poll::Ready(Ok(len)) = &polled {
            self.count(*len);
        }
        polled
    }

    fn poll_read_bytes(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<bytes::Bytes>>> {
        if self.is_blocked(cx) {
            return Poll::Pending;
        }
        let polled = self.inner().poll_read_bytes(cx, max);
        if let Poll::Ready(Ok(Some(bytes))) = &polled {
            self.count(bytes.len());
        }
        polled
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()> {
        self.inner().poll_readable(cx, min)
    }

    fn stop(&mut self, code: u64) -> Result<()> {
        self.inner().stop(code)
    }

    fn abandon(&mut self, code: u64) {
        if self.make.flaw != Flaw::LeaksChannels {
            self.inner().abandon(code);
        }
    }

    fn buffered(&self) -> usize {
        self.inner.as_ref().map_or(0, |inner| inner.buffered())
    }
}

impl Drop for FlawedSend {
    fn drop(&mut self) {
        if self.make.flaw == Flaw::LeaksChannels {
            std::mem::forget(self.inner.take());
        }
    }
}

impl Drop for FlawedRecv {
    fn drop(&mut self) {
        if self.make.flaw == Flaw::LeaksChannels {
            std::mem::forget(self.inner.take());
        }
    }
}
