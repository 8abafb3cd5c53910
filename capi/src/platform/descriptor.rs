//! Descriptors that the application brought. O_NONBLOCK belongs to what all copies of a descriptor share, a shell's
//! terminal perhaps, so it is never set: sockets are told per call, pipes and terminals are polled first.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// What one write to a pipe takes whenever poll(2) says that it is writable.
const PIPE_BUF: usize = 4096;

/// A copy of a descriptor of the caller's, close-on-exec.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; a number that is no descriptor is EBADF.
    let copy = checked(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) } as isize)?;
    // SAFETY: it was just made and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy as RawFd) })
}

/// Closes a descriptor that the application has handed over.
pub(crate) fn close(fd: RawFd) {
    // SAFETY: by the contract of the flag that hands it over, the application uses it no more.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// Whether it is a stream socket; an error for a socket of another type.
pub(crate) fn is_stream_socket(fd: &OwnedFd) -> io::Result<bool> {
    let mut kind: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option is an int, and `length` says so.
    let code = unsafe {
        let place = (&raw mut kind).cast();
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_TYPE, place, &raw mut length)
    };
    match checked(code as isize) {
        Ok(_) if kind == libc::SOCK_STREAM => Ok(true),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EPROTOTYPE)),
        Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads what a socket has, without waiting.
pub(crate) fn receive(fd: &OwnedFd, room: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `room` is writable for its length.
    let got = unsafe { libc::recv(fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT) };
    checked(got)
}

/// Sends what a socket takes, without waiting and without SIGPIPE.
pub(crate) fn send(fd: &OwnedFd, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // An IoSlice has the layout of an iovec.
    message.msg_iov = bufs.as_ptr().cast_mut().cast();
    message.msg_iovlen = bufs.len().min(1024) as _;
    // SAFETY: the slices outlive the call, which only reads them.
    checked(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) })
}

/// Ends a socket for all who hold a copy of it.
pub(crate) fn shut_down(fd: &OwnedFd) {
    // SAFETY: no memory is passed; what is not connected any more says so, which changes nothing.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Waits until `fd` has `events` (POLLIN, POLLOUT), or its other end is gone; false once `cancel` is readable.
fn wait(fd: &OwnedFd, events: libc::c_short, cancel: &OwnedFd) -> io::Result<bool> {
    let entry = |fd: &OwnedFd, events| libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    let mut fds = [entry(fd, events), entry(cancel, libc::POLLIN)];
    loop {
        // SAFETY: two entries, which outlive the call.
        match checked(unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) } as isize) {
            Ok(_) => return Ok(fds[1].revents == 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads from a pipe or terminal, waiting for it; 0 at the end and once `cancel` is readable.
pub(crate) fn read_waiting(fd: &OwnedFd, room: &mut [u8], cancel: &OwnedFd) -> io::Result<usize> {
    loop {
        if !wait(fd, libc::POLLIN, cancel)? {
            return Ok(0);
        }
        // SAFETY: `room` is writable for its length.
        let got = unsafe { libc::read(fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) };
        match checked(got) {
            // Another holder of the descriptor was faster.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            result => return result,
        }
    }
}

/// Writes some to a pipe or terminal, waiting for room. The caller's thread has SIGPIPE blocked.
pub(crate) fn write_waiting(fd: &OwnedFd, data: &[u8], cancel: &OwnedFd) -> io::Result<usize> {
    loop {
        if !wait(fd, libc::POLLOUT, cancel)? {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let length = data.len().min(PIPE_BUF);
        // SAFETY: `data` is readable for `length`.
        match checked(unsafe { libc::write(fd.as_raw_fd(), data.as_ptr().cast(), length) }) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            result => return result,
        }
    }
}

/// Two connected stream sockets, close-on-exec.
pub(crate) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors.
    let code =
        unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, (&raw mut fds).cast()) };
    checked(code as isize)?;
    // SAFETY: they were just made and nobody else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Tells the peer of a socket that nothing follows.
pub(crate) fn end_writing(fd: &OwnedFd) {
    // SAFETY: no memory is passed.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) };
}

fn checked(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
