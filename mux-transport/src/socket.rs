//! What TCP and Unix sockets share: writing without SIGPIPE.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncWrite, Interest};

/// The sending side of a socket. tokio and std write vectored data by writev, which raises SIGPIPE in a host that has
/// not ignored it; this uses sendmsg with MSG_NOSIGNAL.
pub(crate) struct SocketWriter<H>(pub(crate) H);

/// The owned write half of a tokio socket.
pub(crate) trait WriteHalf: AsyncWrite + Send + Unpin {
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn try_send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;
}

macro_rules! write_half {
    ($half:ty) => {
        impl WriteHalf for $half {
            fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.as_ref().poll_write_ready(cx)
            }

            fn try_send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
                let socket = self.as_ref();
                socket.try_io(Interest::WRITABLE, || {
                    SockRef::from(socket).send_vectored_with_flags(bufs, libc::MSG_NOSIGNAL)
                })
            }
        }
    };
}

write_half!(tokio::net::tcp::OwnedWriteHalf);
#[cfg(unix)]
write_half!(tokio::net::unix::OwnedWriteHalf);

impl<H: WriteHalf> AsyncWrite for SocketWriter<H> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_send(bufs) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
