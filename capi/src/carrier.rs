//! What carries a session's bytes where no transport of ours does: sockets of the application, and pumps between a pipe in
//! memory and a descriptor or the application's functions.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::thread;
use std::time::Duration;

use bytes::{Buf, Bytes};
use libmux::backend::ByteStream;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::hub::{SIDES, Side};
use crate::pipe::{PipeReader, PipeWriter, pipe};
use crate::platform::descriptor;
use crate::platform::{self, SignalsBlocked};
use crate::runtime::Runtime;

/// How much is carried at once.
const PART: usize = 64 * 1024;

/// A socket of the application's. Ended for all copies when the session lets go, if it is ours.
pub(crate) struct Socket {
    fd: AsyncFd<OwnedFd>,
    owned: bool,
}

impl Socket {
    /// To be called where the runtime is entered.
    pub(crate) fn new(fd: OwnedFd, owned: bool) -> io::Result<Arc<Self>> {
        // Deprecated for types whose descriptor may change; what replaces it is newer than the tokio we ask for.
        #[allow(deprecated, reason = "an OwnedFd keeps its descriptor")]
        let fd = AsyncFd::new(fd)?;
        Ok(Arc::new(Self { fd, owned }))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.owned {
            descriptor::shut_down(self.fd.get_ref());
        }
    }
}

/// One direction of a socket.
pub(crate) struct SocketEnd(pub(crate) Arc<Socket>);

impl AsyncRead for SocketEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.fd.poll_read_ready(cx))?;
            match guard.try_io(|fd| descriptor::receive(fd.get_ref(), buf.initialize_unfilled())) {
                Ok(result) => {
                    buf.advance(result?);
                    return Poll::Ready(Ok(()));
                }
                Err(_not_ready) => {}
            }
        }
    }
}

impl AsyncWrite for SocketEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.fd.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|fd| descriptor::send(fd.get_ref(), bufs)) {
                return Poll::Ready(result);
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.owned {
            descriptor::end_writing(self.0.fd.get_ref());
        }
        Poll::Ready(Ok(()))
    }
}

/// Something that moves bytes: a descriptor that is waited for, or the application's functions.
pub(crate) trait Carrier: Send + Sync + 'static {
    /// Reads some; 0 is the end, `WouldBlock` means later (never on threads).
    fn read(&self, room: &mut [u8]) -> io::Result<usize>;
    /// Writes some.
    fn write(&self, data: &[u8]) -> io::Result<usize>;
    /// Nothing more will be written, and a read that waits must return. Called once.
    fn shut_down(&self);
}

/// The pipes between a session and its carrier.
struct Pipes {
    /// What was read goes to the session.
    incoming: PipeWriter,
    /// What the session writes.
    outgoing: PipeReader,
}

fn pipes() -> (Pipes, ByteStream) {
    let (incoming, from_peer) = pipe();
    let (to_peer, outgoing) = pipe();
    (Pipes { incoming, outgoing }, ByteStream::new(from_peer, to_peer))
}

/// Carries by two threads that block.
pub(crate) fn on_threads(carrier: Arc<dyn Carrier>) -> io::Result<ByteStream> {
    let (Pipes { mut incoming, mut outgoing }, stream) = pipes();
    // Threads inherit the mask: no signal of the host, and no SIGPIPE.
    let _inherited = SignalsBlocked::new();
    let reads = Arc::clone(&carrier);
    thread::Builder::new().name("libmux-read".to_owned()).spawn(move || {
        let mut room = vec![0; PART];
        loop {
            match reads.read(&mut room) {
                Ok(0) => return,
                Ok(count) => {
                    let mut data = &room[..count];
                    while !data.is_empty() {
                        match wait(|cx| incoming.poll_write(cx, &[IoSlice::new(data)])) {
                            Ok(taken) => data = &data[taken..],
                            Err(_session_is_gone) => return,
                        }
                    }
                }
                Err(_) => return incoming.give_up(0),
            }
        }
    })?;
    thread::Builder::new().name("libmux-write".to_owned()).spawn(move || {
        while let Ok(Some(mut data)) = wait(|cx| outgoing.poll_bytes(cx, PART)) {
            while !data.is_empty() {
                match carrier.write(&data) {
                    Ok(count) => data.advance(count),
                    Err(_) => return carrier.shut_down(),
                }
            }
        }
        carrier.shut_down();
    })?;
    Ok(stream)
}

/// Waits for a poll on a thread of its own.
fn wait<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// Says to carrying tasks that a direction of their carrier is ready again.
#[derive(Default)]
pub(crate) struct Readiness([(AtomicBool, Mutex<Option<Waker>>); 2]);

impl Readiness {
    pub(crate) fn raise(&self, side: Side) {
        let (flag, waker) = &self.0[side as usize];
        flag.store(true, Ordering::SeqCst);
        let waker = waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        waker.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, side: Side, cx: &mut Context<'_>) -> Poll<()> {
        let (flag, waker) = &self.0[side as usize];
        *waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if flag.swap(false, Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Carries by two tasks, which are told through `readiness` when to try again; after the session's end for `linger` at most,
/// because nobody may be there any more to tell them.
pub(crate) fn on_tasks(
    carrier: Arc<dyn Carrier>,
    readiness: Arc<Readiness>,
    runtime: &Runtime,
    linger: Duration,
) -> ByteStream {
    let (Pipes { mut incoming, mut outgoing }, stream) = pipes();
    let (reads, ready) = (Arc::clone(&carrier), Arc::clone(&readiness));
    runtime.spawn(async move {
        let mut room = vec![0; PART];
        loop {
            match reads.read(&mut room) {
                Ok(0) => return,
                Ok(count) => {
                    let mut data = &room[..count];
                    while !data.is_empty() {
                        match poll_fn(|cx| incoming.poll_write(cx, &[IoSlice::new(data)])).await {
                            Ok(taken) => data = &data[taken..],
                            Err(_session_is_gone) => return,
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let gone = poll_fn(|cx| match incoming.poll_abandoned(cx) {
                        Poll::Ready(()) => Poll::Ready(true),
                        Poll::Pending => ready.poll(Side::Recv, cx).map(|()| false),
                    });
                    if gone.await {
                        return;
                    }
                }
                Err(_) => return incoming.give_up(0),
            }
        }
    });
    runtime.spawn(async move {
        while let Ok(Some(data)) = poll_fn(|cx| outgoing.poll_bytes(cx, PART)).await {
            if write_all(&*carrier, &readiness, &mut outgoing, linger, data).await.is_err() {
                break;
            }
        }
        carrier.shut_down();
        // A reader that waits looks once more, and finds that the session is gone.
        SIDES.iter().for_each(|side| readiness.raise(*side));
    });
    stream
}

async fn write_all(
    carrier: &dyn Carrier,
    readiness: &Readiness,
    outgoing: &mut PipeReader,
    linger: Duration,
    mut data: Bytes,
) -> io::Result<()> {
    while !data.is_empty() {
        match carrier.write(&data) {
            Ok(count) => data.advance(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let over = poll_fn(|cx| match readiness.poll(Side::Send, cx) {
                    Poll::Ready(()) => Poll::Ready(false),
                    Poll::Pending => outgoing.poll_finished(cx).map(|()| true),
                });
                if over.await {
                    let told = poll_fn(|cx| readiness.poll(Side::Send, cx));
                    tokio::time::timeout(linger, told).await.map_err(|_| io::ErrorKind::TimedOut)?;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Pipes, terminals and files: waited for by threads.
pub(crate) struct Descriptors {
    reads: OwnedFd,
    writes: OwnedFd,
    /// Readable once the session is over.
    cancel: OwnedFd,
}

impl Descriptors {
    pub(crate) fn new(reads: OwnedFd, writes: OwnedFd) -> io::Result<Self> {
        Ok(Self { reads, writes, cancel: platform::event_fd()? })
    }
}

impl Carrier for Descriptors {
    fn read(&self, room: &mut [u8]) -> io::Result<usize> {
        descriptor::read_waiting(&self.reads, room, &self.cancel)
    }

    fn write(&self, data: &[u8]) -> io::Result<usize> {
        descriptor::write_waiting(&self.writes, data, &self.cancel)
    }

    fn shut_down(&self) {
        platform::raise(std::os::fd::AsRawFd::as_raw_fd(&self.cancel));
    }
}
