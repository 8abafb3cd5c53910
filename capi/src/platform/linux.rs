//! What Linux does for us: sleeping that a signal ends, an event descriptor, a page that a fork wipes, signal masks.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use crate::sync::AtomicU32;

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slept {
    /// The word changed, or it may have.
    Woken,
    /// The time is over.
    TimedOut,
    /// A signal handler ran on this thread.
    Interrupted,
}

/// Sleeps while `word` is `expected`, at most `limit`.
///
/// A sleep without limit is one of 30 years: the kernel restarts an unlimited futex wait after a handler installed with
/// SA_RESTART, but never a limited one, and a handler must end the sleep whatever it was installed with.
pub(crate) fn sleep(word: &AtomicU32, expected: u32, limit: Option<Duration>) -> Slept {
    let limit = limit.unwrap_or(Duration::from_secs(30 * 365 * 86_400));
    let spec = libc::timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos() as _,
    };
    // SAFETY: `word` and `spec` outlive the call; the kernel only reads them.
    let code = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            expected,
            &raw const spec,
            ptr::null::<u32>(),
            0,
        )
    };
    if code == 0 {
        return Slept::Woken;
    }
    match errno() {
        libc::ETIMEDOUT => Slept::TimedOut,
        libc::EINTR => Slept::Interrupted,
        _ => Slept::Woken,
    }
}

/// Wakes every sleeper on `word`. Async-signal-safe.
pub(crate) fn wake_all(word: &AtomicU32) {
    // SAFETY: `word` is a valid address; FUTEX_WAKE touches nothing else.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX);
    }
}

/// The time since a moment that all processes of the machine share.
pub(super) fn monotonic() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is written, and the clock exists everywhere.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// A descriptor that is readable while its count is not 0.
pub(crate) type EventFd = OwnedFd;

pub(crate) fn event_fd() -> io::Result<EventFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the event descriptor readable. Async-signal-safe.
pub(crate) fn raise(fd: RawFd) {
    let one = 1u64;
    // SAFETY: eight bytes are read from `one`. A full counter is readable already, so the result does not matter.
    unsafe {
        libc::write(fd, (&raw const one).cast(), 8);
    }
}

/// Makes the event descriptor unreadable.
pub(crate) fn lower(fd: &EventFd) {
    let mut count = 0u64;
    // SAFETY: eight bytes are written to `count`. An empty counter gives EAGAIN, which is what is wanted.
    unsafe {
        libc::read(fd.as_raw_fd(), (&raw mut count).cast(), 8);
    }
}

/// A word that reads 0 in a forked child, and what it was set to in the process that set it.
pub(crate) fn fork_word() -> &'static AtomicU32 {
    static FALLBACK: AtomicU32 = AtomicU32::new(0);
    extern "C" fn in_child() {
        FALLBACK.store(0, std::sync::atomic::Ordering::Relaxed);
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh private mapping of one page; it is never unmapped, so the reference may be 'static.
    unsafe {
        let length = libc::sysconf(libc::_SC_PAGESIZE).max(4096) as usize;
        let page = libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if page != libc::MAP_FAILED && libc::madvise(page, length, libc::MADV_WIPEONFORK) == 0 {
            return &*page.cast::<AtomicU32>();
        }
        // Kernels before 4.14: a handler does for fork(2) what the page does for every kind of clone.
        libc::pthread_atfork(None, None, Some(in_child));
    }
    &FALLBACK
}

/// While it lives, no signal is delivered to this thread, and threads started from it inherit that.
pub(crate) struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    pub(crate) fn new() -> Self {
        let mut before = MaybeUninit::uninit();
        // SAFETY: both sets are ours; sigfillset and pthread_sigmask initialise what they are given.
        unsafe {
            let mut all = MaybeUninit::uninit();
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            Self(before.assume_init())
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled in by pthread_sigmask.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut());
        }
    }
}

pub(crate) fn errno() -> i32 {
    // SAFETY: the address of the calling thread's errno is always valid.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(value: i32) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = value }
}
