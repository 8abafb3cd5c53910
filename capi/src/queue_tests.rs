//! The queue against a backend made of counters: every wake-up at the worst moment, and none may be missed.

use std::ffi::c_void;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use libmux::backend::{ChannelParts, RecvOps, SendOps, SessionOps};
use libmux::{
    Capabilities, Error, ErrorKind, Initiator, OpenOptions, Origin, Priority, Result, Role, SessionInfo, Stats,
    WriteFlags,
};
use tokio::io::ReadBuf;

use crate::abi::{mux_channel, mux_event, mux_handle, mux_queue, mux_runtime};
use crate::channel::Channel;
use crate::io::{mux_abort, mux_read};
use crate::open::mux_close;
use crate::runtime::Runtime;
use crate::session::Session;
use crate::watch::{
    mux_queue_fd, mux_queue_new, mux_queue_next, mux_queue_set_waker, mux_queue_wake, mux_unwatch, mux_watch,
};
use crate::world::{self, Object};

const READ: u32 = 8;
const WRITE: u32 = 16;
const CLOSED: u32 = 128;
const ONESHOT: u32 = 0;
const LEVEL: u32 = 1;
/// Longer than anything takes: a test that waits for it has failed.
const SOON: i32 = 20_000;

/// What a channel of the fake backend holds.
#[derive(Default)]
struct Pipe {
    bytes: u64,
    waker: Option<Waker>,
    /// Wake from within the poll, as a backend may.
    wake_inside: bool,
    panics: bool,
}

#[derive(Default)]
struct Fake {
    pipe: Mutex<Pipe>,
    aborted: AtomicBool,
}

impl Fake {
    fn feed(&self, bytes: u64) {
        let mut pipe = self.pipe.lock().expect("not poisoned");
        pipe.bytes += bytes;
        let waker = pipe.waker.take();
        drop(pipe);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether there is something; otherwise the waker is kept.
    fn poll(&self, cx: &Context<'_>) -> Poll<u64> {
        let mut pipe = self.pipe.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        assert!(!pipe.panics, "expected by this test");
        if pipe.wake_inside {
            cx.waker().wake_by_ref();
        }
        if pipe.bytes > 0 {
            return Poll::Ready(pipe.bytes);
        }
        pipe.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

struct Recv(Arc<Fake>);

impl RecvOps for Recv {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<usize>> {
        let Poll::Ready(_) = self.0.poll(cx) else { return Poll::Pending };
        self.0.pipe.lock().expect("not poisoned").bytes -= 1;
        buf.put_slice(b"x");
        Poll::Ready(Ok(1))
    }

    fn poll_read_bytes(&mut self, _: &mut Context<'_>, _: usize) -> Poll<Result<Option<Bytes>>> {
        Poll::Pending
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>, min: usize) -> Poll<()> {
        match self.0.poll(cx) {
            Poll::Ready(bytes) if bytes >= min as u64 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    fn stop(&mut self, _: u64) -> Result<()> {
        Ok(())
    }

    fn abandon(&mut self, _: u64) {}

    fn buffered(&self) -> usize {
        self.0.pipe.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).bytes as usize
    }
}

/// A direction that is always writable.
struct Send;

impl SendOps for Send {
    fn poll_write(&mut self, _: &mut Context<'_>, bufs: &[IoSlice<'_>], _: WriteFlags) -> Poll<Result<usize>> {
        Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
    }

    fn poll_writable(&mut self, _: &mut Context<'_>, _: usize) -> Poll<()> {
        Poll::Ready(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_opened(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_ended(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Pending
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset(&mut self, _: u64) -> Result<()> {
        Ok(())
    }

    fn set_priority(&mut self, _: Priority) {}

    fn buffered(&self) -> usize {
        0
    }
}

struct FakeSession(Arc<Fake>, SessionInfo);

impl SessionOps for FakeSession {
    fn info(&self) -> &SessionInfo {
        &self.1
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::none()
    }

    fn poll_open(&self, _: &mut Context<'_>, _: &OpenOptions) -> Poll<Result<ChannelParts>> {
        Poll::Pending
    }

    fn poll_can_open(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn poll_accept(&self, _: &mut Context<'_>) -> Poll<Result<ChannelParts>> {
        Poll::Pending
    }

    fn poll_flush(&self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn drain(&self) {}

    fn close(&self, _: u64, _: &str) {}

    fn abort(&self, _: u64) {
        self.0.aborted.store(true, Ordering::SeqCst);
    }

    fn poll_closed(&self, _: &mut Context<'_>) -> Poll<Error> {
        Poll::Pending
    }

    fn cause(&self) -> Option<Error> {
        let aborted = self.0.aborted.load(Ordering::SeqCst);
        aborted.then(|| Error::new(ErrorKind::Internal, Origin::Local, "aborted"))
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }
}

fn channel() -> (Arc<Fake>, mux_handle) {
    let fake = Arc::new(Fake::default());
    let session = FakeSession(Arc::clone(&fake), SessionInfo::new(Role::Client, "fake://"));
    let session = libmux::Session::new(Arc::new(session));
    let runtime = Runtime::default().expect("threads start");
    let session = Session::accepted(runtime, session, Duration::ZERO);
    let parts = ChannelParts {
        id: 1,
        initiator: Initiator::Local,
        label: Bytes::new(),
        send: Box::new(Send),
        recv: Box::new(Recv(Arc::clone(&fake))),
    };
    let channel = Channel::new(session, libmux::Channel::new(parts));
    (fake, world::insert(Object::Channel(channel)).expect("a free slot"))
}

fn queue() -> mux_queue {
    let mut queue = MaybeUninit::uninit();
    // SAFETY: room for a queue.
    assert_eq!(unsafe { mux_queue_new(mux_runtime { h: 0 }, queue.as_mut_ptr()) }, 0);
    // SAFETY: written on success.
    unsafe { queue.assume_init() }
}

/// Up to four events, or a status.
fn next(queue: mux_queue, max: i32, timeout_ms: i32) -> std::result::Result<Vec<mux_event>, i64> {
    let mut events = [mux_event { user: 0, h: 0, events: 0, reserved: [0; 3] }; 4];
    assert!(max <= 4);
    // SAFETY: room for `max` events.
    let count = unsafe { mux_queue_next(queue, events.as_mut_ptr(), max, timeout_ms) };
    if count < 0 { Err(count) } else { Ok(events[..count as usize].to_vec()) }
}

fn read(handle: mux_handle) -> i64 {
    let mut byte = 0u8;
    // SAFETY: room for one byte.
    unsafe { mux_read(mux_channel { h: handle }, (&raw mut byte).cast(), 1, 0, 0) }
}

#[test]
fn no_wakeup_is_missed_between_a_producer_and_a_one_shot_watch() {
    const TOKENS: u64 = 20_000;
    let (fake, handle) = channel();
    let queue = queue();
    let producer = thread::spawn(move || {
        for n in 0..TOKENS {
            fake.feed(1);
            if n % 64 == 0 {
                thread::yield_now();
            }
        }
    });
    let mut got = 0;
    while got < TOKENS {
        assert_eq!(mux_watch(queue, handle, READ, ONESHOT, 7), 0);
        let events = next(queue, 4, SOON).expect("the next byte wakes the queue");
        assert!(events.iter().all(|event| (event.user, event.h, event.events) == (7, handle, READ)));
        while read(handle) == 1 {
            got += 1;
        }
    }
    producer.join().expect("no panic");
    assert_eq!((mux_close(handle), mux_close(queue.h)), (0, 0));
}

/// An edge-triggered poller sleeps after a short count. What becomes ready while it takes events must wake it again.
#[test]
fn no_edge_is_missed_between_a_producer_and_an_edge_triggered_poller() {
    const TOKENS: u64 = 20_000;
    let queue = queue();
    let channels: Vec<_> = (0..3).map(|_| channel()).collect();
    let mut fd = MaybeUninit::uninit();
    // SAFETY: room for a descriptor.
    assert_eq!(unsafe { mux_queue_fd(queue, fd.as_mut_ptr()) }, 0);
    // SAFETY: written on success.
    let poller = EdgePoller::new(unsafe { fd.assume_init() } as i32);
    for (n, (_, handle)) in channels.iter().enumerate() {
        assert_eq!(mux_watch(queue, *handle, READ, ONESHOT, n as u64), 0);
    }
    let fakes: Vec<_> = channels.iter().map(|(fake, _)| Arc::clone(fake)).collect();
    let producer = thread::spawn(move || {
        for n in 0..TOKENS {
            fakes[(n % 3) as usize].feed(1);
            if n % 16 == 0 {
                thread::yield_now();
            }
        }
    });
    let mut got = 0;
    while got < TOKENS {
        assert!(poller.wait(), "an edge was missed");
        while let Ok(events) = next(queue, 4, 0) {
            for event in &events {
                while read(event.h) == 1 {
                    got += 1;
                }
                assert_eq!(mux_watch(queue, event.h, READ, ONESHOT, event.user), 0);
            }
            if events.len() < 4 {
                break;
            }
        }
    }
    producer.join().expect("no panic");
    for (_, handle) in channels {
        assert_eq!(mux_close(handle), 0);
    }
    assert_eq!(mux_close(queue.h), 0);
}

/// epoll with EPOLLET on one descriptor.
struct EdgePoller(OwnedFd);

impl EdgePoller {
    fn new(fd: i32) -> Self {
        // SAFETY: the descriptor is new and nobody else's; the event is read during the call only.
        unsafe {
            let poller = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            assert!(poller >= 0);
            let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
            assert_eq!(libc::epoll_ctl(poller, libc::EPOLL_CTL_ADD, fd, &raw mut event), 0);
            Self(OwnedFd::from_raw_fd(poller))
        }
    }

    fn wait(&self) -> bool {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: room for one event.
        unsafe { libc::epoll_wait(self.0.as_raw_fd(), &raw mut event, 1, SOON) == 1 }
    }
}

#[test]
fn two_threads_on_one_queue_get_each_one_shot_once() {
    const ROUNDS: u64 = 500;
    let (fake, handle) = channel();
    let queue = queue();
    let delivered = Arc::new(AtomicU64::new(0));
    let consumers: Vec<_> = (0..2)
        .map(|_| {
            let delivered = Arc::clone(&delivered);
            thread::spawn(move || {
                while let Ok(events) = next(queue, 1, SOON) {
                    if events.is_empty() {
                        return;
                    }
                    assert_eq!(read(handle), 1, "an event means a byte");
                    delivered.fetch_add(1, Ordering::SeqCst);
                }
                panic!("a wake-up was missed");
            })
        })
        .collect();
    for round in 0..ROUNDS {
        assert_eq!(mux_watch(queue, handle, READ, ONESHOT, round), 0);
        fake.feed(1);
        while delivered.load(Ordering::SeqCst) <= round {
            thread::yield_now();
        }
    }
    assert_eq!((mux_queue_wake(queue), mux_queue_wake(queue)), (0, 0));
    consumers.into_iter().for_each(|consumer| consumer.join().expect("no panic"));
    assert_eq!(delivered.load(Ordering::SeqCst), ROUNDS);
    assert_eq!((mux_close(handle), mux_close(queue.h)), (0, 0));
}

#[test]
fn level_watches_take_turns_and_end_with_the_condition() {
    let queue = queue();
    let channels: Vec<_> = (0..3).map(|_| channel()).collect();
    for (n, (fake, handle)) in channels.iter().enumerate() {
        assert_eq!(mux_watch(queue, *handle, READ, LEVEL, n as u64), 0);
        fake.feed(1);
    }
    let order: Vec<u64> = (0..6).map(|_| next(queue, 1, 0).expect("ready")[0].user).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    assert_eq!(read(channels[1].1), 1);
    assert_eq!(next(queue, 4, 0).expect("ready").len(), 2);
    assert_eq!((read(channels[0].1), read(channels[2].1)), (1, 1));
    assert_eq!(next(queue, 4, 0).err(), Some(-1));
    channels[2].0.feed(1);
    assert_eq!(next(queue, 4, 0).expect("ready")[0].user, 2);
    for (_, handle) in &channels {
        assert_eq!(mux_close(*handle), 0);
    }
    assert_eq!(next(queue, 4, 0).err(), Some(-1), "closed handles are never reported");
    assert_eq!(mux_close(queue.h), 0);
}

#[test]
fn a_watch_moves_between_queues_and_back_without_a_trace() {
    let (first, second) = (queue(), queue());
    let (fake, handle) = channel();
    fake.feed(1);
    for _ in 0..100 {
        for queue in [first, second] {
            assert_eq!(mux_watch(queue, handle, READ, LEVEL, 1), 0);
        }
        assert_eq!((mux_unwatch(first, handle), mux_unwatch(second, handle)), (0, 0));
    }
    assert_eq!(mux_watch(first, handle, READ, LEVEL, 2), 0);
    assert_eq!(next(second, 4, 0).err(), Some(-1));
    for _ in 0..3 {
        let events = next(first, 4, 0).expect("ready");
        assert_eq!(events.iter().map(|event| event.user).collect::<Vec<_>>(), [2], "once per call");
    }
    assert_eq!((mux_close(handle), mux_close(first.h), mux_close(second.h)), (0, 0, 0));
}

#[test]
fn a_backend_may_wake_from_within_its_poll() {
    let (fake, handle) = channel();
    let queue = queue();
    fake.pipe.lock().expect("not poisoned").wake_inside = true;
    assert_eq!(mux_watch(queue, handle, READ | WRITE, LEVEL, 1), 0);
    let events = next(queue, 4, 0).expect("writable");
    assert!(events.iter().all(|event| event.events == WRITE));
    fake.feed(1);
    let seen = next(queue, 4, 0).expect("both").iter().fold(0, |seen, event| seen | event.events);
    assert_eq!(seen, READ | WRITE);
    assert_eq!(read(handle), 1);
    assert_eq!((mux_close(handle), mux_close(queue.h)), (0, 0));
}

/// The wake-up comes while the channel is locked; the waker runs after that.
#[test]
fn a_waker_may_use_the_channel_that_woke_it() {
    struct Seen(mux_queue, mux_handle, Mutex<Vec<(i64, i32)>>);
    unsafe extern "C" fn on_ready(ctx: *mut c_void) {
        // SAFETY: `seen` below lives until the waker is removed.
        let Seen(queue, handle, results) = unsafe { &*ctx.cast::<Seen>() };
        let result = (read(*handle), mux_watch(*queue, *handle, READ, LEVEL, 1));
        results.lock().expect("not poisoned").push(result);
    }
    let (fake, handle) = channel();
    let seen = Seen(queue(), handle, Mutex::default());
    fake.pipe.lock().expect("not poisoned").wake_inside = true;
    assert_eq!(mux_queue_set_waker(seen.0, Some(on_ready), (&raw const seen).cast_mut().cast()), 0);
    assert_eq!(mux_watch(seen.0, handle, READ, ONESHOT, 1), 0);
    assert_eq!(read(handle), -1);
    fake.feed(1);
    fake.pipe.lock().expect("not poisoned").wake_inside = false;
    assert_eq!(mux_queue_set_waker(seen.0, None, std::ptr::null_mut()), 0);
    let results = seen.2.into_inner().expect("not poisoned");
    assert!(!results.is_empty() && results.iter().all(|result| matches!(result, (-1 | 1, 0))), "{results:?}");
    assert_eq!((mux_close(handle), mux_close(seen.0.h)), (0, 0));
}

#[test]
fn a_panic_ends_its_session_and_no_other() {
    let (broken, handle) = channel();
    let (sound, other) = channel();
    broken.pipe.lock().expect("not poisoned").panics = true;
    assert_eq!(read(handle), -81);
    assert_eq!(read(handle), -81, "what the panic left cannot be trusted");
    assert!(broken.aborted.load(Ordering::SeqCst));
    let queue = queue();
    assert_eq!(mux_watch(queue, handle, READ, ONESHOT, 1), 0);
    assert_eq!(next(queue, 4, 0).expect("dead, so ready")[0].events, READ | CLOSED);
    sound.feed(1);
    assert_eq!(read(other), 1);
    assert_eq!((mux_close(handle), mux_close(other)), (0, 0));
    assert_eq!(mux_close(queue.h), 0);
}

#[test]
fn an_aborted_channel_leaves_its_queue() {
    let (fake, handle) = channel();
    let queue = queue();
    assert_eq!(mux_watch(queue, handle, READ, ONESHOT, 1), 0);
    fake.feed(1);
    assert_eq!(mux_abort(mux_channel { h: handle }, 5), 0);
    assert_eq!(next(queue, 4, 0).err(), Some(-1));
    assert_eq!(mux_watch(queue, handle, READ, ONESHOT, 1), -16);
    assert_eq!(mux_close(queue.h), 0);
}
