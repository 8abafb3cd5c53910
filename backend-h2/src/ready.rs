//! Who has something to do: the channels and streams that the driver looks at on its next turn.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use crate::channel::Channel;
use crate::limits::Limits;
use crate::pool::Pool;

/// Keys of streams that woke, and the driver's task. A wake during the driver's own turn only leaves its key here.
#[derive(Debug)]
pub(crate) struct Ready {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    keys: Vec<usize>,
    /// The session itself has something to say: opens, a close, a ping.
    session: bool,
    /// The connection has something to read or to write.
    conn: bool,
    in_turn: bool,
    driver: Waker,
}

impl Ready {
    /// The key of no stream: h2 may be handed more channel data.
    pub(crate) const ROOM: usize = usize::MAX;

    pub(crate) fn new() -> Arc<Self> {
        let inner =
            Inner { keys: Vec::new(), session: true, conn: true, in_turn: false, driver: Waker::noop().clone() };
        Arc::new(Self { inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_driver(mut inner: MutexGuard<'_, Inner>) {
        if inner.in_turn {
            return;
        }
        // Woken once: the driver leaves its waker again at the start of its turn.
        let driver = std::mem::replace(&mut inner.driver, Waker::noop().clone());
        drop(inner);
        driver.wake();
    }

    fn push(&self, key: usize) {
        let mut inner = self.lock();
        inner.keys.push(key);
        Self::wake_driver(inner);
    }

    /// The application asked something of the session.
    pub(crate) fn poke_session(&self) {
        let mut inner = self.lock();
        inner.session = true;
        Self::wake_driver(inner);
    }

    /// Whether the driver must turn to the connection: what happens to it from here on counts again.
    pub(crate) fn take_conn(&self) -> bool {
        std::mem::take(&mut self.lock().conn)
    }

    /// The driver's turn begins.
    pub(crate) fn begin_turn(&self, driver: &Waker) {
        let mut inner = self.lock();
        inner.in_turn = true;
        inner.driver.clone_from(driver);
    }

    /// Moves the keys out; `true` if the session has something to say. The buffer given is used for the next ones.
    pub(crate) fn take(&self, keys: &mut Vec<usize>) -> bool {
        keys.clear();
        let mut inner = self.lock();
        std::mem::swap(&mut inner.keys, keys);
        std::mem::take(&mut inner.session)
    }

    /// Whether something waits; the turn goes on.
    pub(crate) fn has_work(&self) -> bool {
        let inner = self.lock();
        inner.session || inner.conn || !inner.keys.is_empty()
    }

    /// The driver's turn is over; `true` if something came meanwhile, so that it must come back.
    pub(crate) fn end_turn(&self) -> bool {
        let mut inner = self.lock();
        inner.in_turn = false;
        inner.session || inner.conn || !inner.keys.is_empty()
    }
}

/// What the connection wakes. h2 wakes its connection whenever a stream is used, and the driver uses streams in its own
/// turn, before it drives the connection: that need not schedule the driver once more.
impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut inner = self.lock();
        inner.conn = true;
        Self::wake_driver(inner);
    }
}

/// What all channels of a session share: sums, and the way to the driver.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) ready: Arc<Ready>,
    /// Bytes that each channel holds for sending at most.
    pub(crate) send_limit: usize,
    pub(crate) open: AtomicU64,
    pub(crate) incoming: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) resets_in: AtomicU64,
    pub(crate) resets_out: AtomicU64,
    pub(crate) recv_buffered: AtomicU64,
    pub(crate) send_buffered: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// Rises with every byte of data and every channel: what an idle session lacks.
    pub(crate) traffic: AtomicU64,
    /// The application closed the session: what it had not finished by then is never finished.
    pub(crate) closing: AtomicBool,
    /// Somebody may wait until the transport has taken everything.
    pub(crate) flushing: AtomicBool,
    /// Some channel has an urgency of its own.
    pub(crate) prioritised: AtomicBool,
    pub(crate) pool: Pool,
    /// Bytes of channel data handed to h2 and not yet to the transport.
    in_flight: AtomicUsize,
    /// Channels wait until that is less.
    held_back: AtomicBool,
}

impl Counters {
    pub(crate) fn new(send_limit: usize) -> Arc<Self> {
        Arc::new(Self {
            ready: Ready::new(),
            send_limit,
            open: AtomicU64::new(0),
            incoming: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            resets_in: AtomicU64::new(0),
            resets_out: AtomicU64::new(0),
            recv_buffered: AtomicU64::new(0),
            send_buffered: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            traffic: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            flushing: AtomicBool::new(false),
            prioritised: AtomicBool::new(false),
            pool: Pool::default(),
            in_flight: AtomicUsize::new(0),
            held_back: AtomicBool::new(false),
        })
    }

    /// Whether h2 may be handed more channel data.
    pub(crate) fn has_room(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) < Limits::SESSION_IN_FLIGHT
    }

    /// Has the driver woken by the key [`Ready::ROOM`] once half of what h2 may be handed is free.
    pub(crate) fn await_room(&self) {
        self.held_back.store(true, Ordering::SeqCst);
        self.note_room(self.in_flight.load(Ordering::SeqCst));
    }

    fn note_room(&self, in_flight: usize) {
        if in_flight <= Limits::SESSION_IN_FLIGHT / 2 && self.held_back.swap(false, Ordering::SeqCst) {
            self.ready.push(Ready::ROOM);
        }
    }
}

/// What ties an HTTP/2 stream to the driver: its key, and what of it h2 has not written yet.
#[derive(Debug)]
pub(crate) struct Link {
    /// [`UNTIED`](Self::UNTIED) until there is a stream.
    key: AtomicU32,
    /// Bytes of channel data handed to h2 and not yet to the transport.
    in_flight: AtomicU32,
    /// Frames handed to h2 and not yet to the transport.
    frames: AtomicU32,
    queued: AtomicBool,
    /// One of those frames carries credit: the next waits, since credit is absolute and the last one counts.
    credit: AtomicBool,
    /// Somebody waits until the transport takes the next of them.
    awaited: AtomicBool,
    /// h2 has something for this stream.
    heard: AtomicBool,
    counters: Arc<Counters>,
}

impl Link {
    const UNTIED: u32 = u32::MAX;

    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self {
            key: AtomicU32::new(Self::UNTIED),
            in_flight: AtomicU32::new(0),
            frames: AtomicU32::new(0),
            queued: AtomicBool::new(false),
            credit: AtomicBool::new(false),
            awaited: AtomicBool::new(false),
            heard: AtomicBool::new(true),
            counters,
        }
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// It has a stream now, at which the driver will look.
    pub(crate) fn tie(&self, key: usize) {
        // HTTP/2 has fewer streams.
        self.key.store(u32::try_from(key).unwrap_or(Self::UNTIED), Ordering::Release);
    }

    pub(crate) fn key(&self) -> usize {
        self.key.load(Ordering::Acquire) as usize
    }

    /// Has the driver look at this stream, once there is one.
    pub(crate) fn poke(&self) {
        let key = self.key.load(Ordering::Acquire);
        if key != Self::UNTIED && !self.queued.swap(true, Ordering::AcqRel) {
            self.counters.ready.push(key as usize);
        }
    }

    /// The driver looks now: what happens from here on pokes again.
    pub(crate) fn begin(&self) {
        self.queued.store(false, Ordering::Release);
    }

    /// Has the driver read this stream.
    pub(crate) fn hear(&self) {
        self.heard.store(true, Ordering::Release);
        self.poke();
    }

    /// Whether there may be something to read.
    pub(crate) fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Acquire)
    }

    /// Whether there may be something to read since the last time.
    pub(crate) fn take_heard(&self) -> bool {
        self.heard.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire) as usize
    }

    /// Whether h2 may be handed more channel data.
    pub(crate) fn has_room(&self) -> bool {
        self.counters.has_room()
    }

    /// Whether the transport has taken every frame.
    pub(crate) fn is_flushed(&self) -> bool {
        self.frames.load(Ordering::SeqCst) == 0
    }

    /// Has the driver look at this stream when the transport takes the next frame. Where there were frames when the
    /// caller found nothing to do and none is left, it looks at once.
    pub(crate) fn await_transport(&self, were: bool) {
        self.awaited.store(true, Ordering::SeqCst);
        if were && self.is_flushed() {
            self.poke();
        }
    }

    pub(crate) fn is_credit_in_flight(&self) -> bool {
        self.credit.load(Ordering::Acquire)
    }

    /// A frame was written.
    fn written(&self, bytes: u32, credit: bool) {
        if credit {
            self.credit.store(false, Ordering::Release);
        }
        self.in_flight.fetch_sub(bytes, Ordering::AcqRel);
        let (counters, bytes) = (&self.counters, bytes as usize);
        counters.send_buffered.fetch_sub(bytes as u64, Ordering::Relaxed);
        let left = counters.in_flight.fetch_sub(bytes, Ordering::SeqCst) - bytes;
        counters.note_room(left);
        self.frames.fetch_sub(1, Ordering::SeqCst);
        if self.awaited.swap(false, Ordering::SeqCst) {
            self.poke();
        }
    }
}

/// The link of a stream, or the one that a channel brings along; as a waker, for all of h2 that concerns the stream.
#[derive(Clone, Debug)]
pub(crate) enum Tie {
    Stream(Arc<Link>),
    Channel(Arc<Channel>),
}

impl Deref for Tie {
    type Target = Link;

    fn deref(&self) -> &Link {
        match self {
            Self::Stream(link) => link,
            Self::Channel(channel) => &channel.link,
        }
    }
}

impl Tie {
    pub(crate) fn waker(&self) -> Waker {
        match self {
            Self::Stream(link) => Waker::from(Arc::clone(link)),
            Self::Channel(channel) => Waker::from(Arc::clone(channel)),
        }
    }

    /// Counts a frame as handed to h2 until the permit is dropped, which h2 does once the frame is written.
    pub(crate) fn permit(&self, bytes: usize, credit: bool) -> Permit {
        // No frame is larger.
        let counted = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.in_flight.fetch_add(counted, Ordering::AcqRel);
        self.counters.in_flight.fetch_add(counted as usize, Ordering::SeqCst);
        self.frames.fetch_add(1, Ordering::SeqCst);
        if credit {
            self.credit.store(true, Ordering::Release);
        }
        Permit { tie: self.clone(), bytes: counted, credit }
    }
}

impl Wake for Link {
    fn wake(self: Arc<Self>) {
        self.hear();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.hear();
    }
}

impl Wake for Channel {
    fn wake(self: Arc<Self>) {
        self.link.hear();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.link.hear();
    }
}

/// Travels with a frame through h2.
#[derive(Debug)]
pub(crate) struct Permit {
    tie: Tie,
    bytes: u32,
    credit: bool,
}

impl Permit {
    /// Where the memory of what was sent goes.
    pub(crate) fn pool(&self) -> &Pool {
        &self.tie.counters.pool
    }
}

impl Drop for Permit {
    /// May run under h2's own lock: it only counts and leaves a key.
    fn drop(&mut self) {
        self.tie.written(self.bytes, self.credit);
    }
}
