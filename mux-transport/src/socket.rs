//! What TCP and Unix sockets share: writing without SIGPIPE, room for connections that wait.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use tokio::io::{AsyncWrite, Interest};

/// Connections that the kernel keeps until they are accepted, as far as its own limit (net.core.somaxconn) goes. tokio asks
/// for 128, which a proxy that makes a connection for each stream exceeds at once; the kernel then resets some of them.
const BACKLOG: i32 = 4096;

/// Has the kernel keep a burst of connections.
pub(crate) fn widen_backlog(listener: &impl AsFd) -> io::Result<()> {
    SockRef::from(listener).listen(BACKLOG)
}

/// The sending side of a socket. tokio and std write vectored data by writev, which raises SIGPIPE in a host that has
/// not ignored it; this uses sendmsg with MSG_NOSIGNAL.
pub(crate) struct SocketWriter<H> {
    half: H,
    pace: Pace,
}

impl<H: WriteHalf> SocketWriter<H> {
    pub(crate) fn new(half: H) -> Self {
        half.bound_unsent(UNSENT_AT_FIRST);
        Self { half, pace: Pace { full: Instant::now(), taken: 0, bound: UNSENT_AT_FIRST } }
    }
}

/// What the kernel may hold that it has not sent, before the rate is known.
const UNSENT_AT_FIRST: u32 = 128 * 1024;

/// The least of it: a packet or two.
const LEAST_UNSENT: u32 = 2 * 1024;

/// The most: what the kernel holds anyway.
const MOST_UNSENT: u32 = 4 << 20;

/// How fast the socket takes bytes. What the kernel holds and has not sent can no longer be overtaken by an urgent message, so
/// it is bound to what goes out in about a quarter of a millisecond. When we are woken later than that, the link goes on with
/// what the kernel has sent and its device queues.
struct Pace {
    /// When the socket was last full and a measurement began.
    full: Instant,
    /// Bytes it took since.
    taken: u64,
    bound: u32,
}

/// A measurement takes at least so long.
const MEASURED: Duration = Duration::from_millis(20);

impl Pace {
    /// The socket is full again: what it took meanwhile is what went out. Returns a bound that is new.
    fn full(&mut self, now: Instant) -> Option<u32> {
        let elapsed = now.saturating_duration_since(self.full);
        if elapsed < MEASURED {
            return None;
        }
        let in_250_us = self.taken as f64 / elapsed.as_secs_f64() * 250e-6;
        (self.full, self.taken) = (now, 0);
        // A pause of the application looks like a slow link: the bound follows a fall by halves only.
        let least = (self.bound / 2).max(LEAST_UNSENT);
        let bound = (in_250_us as u32).clamp(least, MOST_UNSENT);
        let changed = bound < self.bound / 4 * 3 || bound > self.bound / 2 * 3;
        changed.then(|| {
            self.bound = bound;
            bound
        })
    }
}

/// The owned write half of a tokio socket.
pub(crate) trait WriteHalf: AsyncWrite + Send + Unpin {
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// `looks`: whether the kernel holds less than its bound is asked first.
    fn try_send(&self, bufs: &[IoSlice<'_>], looks: bool) -> io::Result<usize>;

    /// Lets the kernel hold about so many bytes that it has not sent.
    fn bound_unsent(&self, bytes: u32);
}

macro_rules! write_half {
    ($half:ty, $bound:expr, $takes:expr) => {
        impl WriteHalf for $half {
            fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.as_ref().poll_write_ready(cx)
            }

            fn try_send(&self, bufs: &[IoSlice<'_>], looks: bool) -> io::Result<usize> {
                let socket = self.as_ref();
                socket.try_io(Interest::WRITABLE, || {
                    if looks && !$takes(socket) {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    SockRef::from(socket).send_vectored_with_flags(bufs, libc::MSG_NOSIGNAL)
                })
            }

            fn bound_unsent(&self, bytes: u32) {
                let bound: fn(SockRef<'_>, u32) = $bound;
                bound(SockRef::from(self.as_ref()), bytes);
            }
        }
    };
}

write_half!(tokio::net::tcp::OwnedWriteHalf, bound_unsent, takes);
#[cfg(unix)]
write_half!(tokio::net::unix::OwnedWriteHalf, |_, _| {}, |_| true);

/// Whether the kernel takes more by its own rule. A send takes up to a large packet more than the bound, 5 ms of a link of
/// 100 Mbit/s, before it says that it is full.
#[cfg(target_os = "linux")]
fn takes(socket: &impl std::os::fd::AsFd) -> bool {
    let mut socket = [PollFd::new(socket, PollFlags::OUT)];
    // What fails here fails again, with a reason, when it sends.
    poll(&mut socket, Some(&Timespec::default())).map_or(true, |ready| ready > 0)
}

#[cfg(not(target_os = "linux"))]
fn takes<S>(_socket: &S) -> bool {
    true
}

/// A kernel that cannot do it is slower to say urgent things, no more.
fn bound_unsent(socket: SockRef<'_>, bytes: u32) {
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_notsent_lowat(bytes);
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, bytes);
}

impl<H: WriteHalf> AsyncWrite for SocketWriter<H> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            ready!(this.half.poll_write_ready(cx))?;
            match this.half.try_send(bufs, this.pace.bound <= UNSENT_AT_FIRST / 2) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(bound) = this.pace.full(Instant::now()) {
                        this.half.bound_unsent(bound);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(sent) => {
                    this.pace.taken += sent as u64;
                    return Poll::Ready(Ok(sent));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pace: &mut Pace, millis: u64, taken: u64) -> Option<u32> {
        pace.taken += taken;
        let now = pace.full + Duration::from_millis(millis);
        pace.full(now)
    }

    #[test]
    fn the_bound_follows_the_rate() {
        let mut pace = Pace { full: Instant::now(), taken: 0, bound: UNSENT_AT_FIRST };
        assert_eq!(after(&mut pace, 5, 1 << 20), None, "too short to tell");
        // 100 Mbit/s: 3,125 bytes in 250 us, approached by halves; what is near enough is left alone.
        pace.taken = 0;
        let bounds: Vec<_> = (0..6).map(|_| after(&mut pace, 100, 1_250_000)).collect();
        assert_eq!(bounds, [Some(65_536), Some(32_768), Some(16_384), Some(8_192), Some(4_096), None]);
        assert_eq!(after(&mut pace, 100, 0), Some(LEAST_UNSENT));
        assert_eq!(after(&mut pace, 100, 1 << 31), Some(MOST_UNSENT));
    }
}
