//! Two connections, a link that splits, bounds and stalls, and a clock that stands still unless told.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use backend_qmux::Qmux;
use bytes::{Bytes, BytesMut};
use mux_api::{Budget, Config, Error, OpenOptions, Result};
use mux_proto::{Batch, Chunk, Connection, Event, Key, Limits};

use crate::monitor::Monitor;

/// One direction of the link.
pub(crate) struct Link {
    queue: BytesMut,
    /// Bytes it holds at most: a socket's buffers.
    pub(crate) capacity: usize,
    /// Bytes delivered at once.
    pub(crate) chunk: usize,
    pub(crate) stalled: bool,
}

pub(crate) struct End {
    pub(crate) conn: Connection<Qmux>,
    batch: Batch,
    pub(crate) budget: Budget,
    /// Everything the connection asked to look at since it was last taken.
    pub(crate) events: Vec<Event>,
    now: Instant,
}

pub(crate) struct Pair {
    pub(crate) ends: [End; 2],
    pub(crate) links: [Link; 2],
    pub(crate) monitor: Monitor,
    pub(crate) now: Instant,
}

/// Bytes read at the end of a direction.
pub(crate) type Read = (Vec<u8>, Result<()>);

impl End {
    pub(crate) fn new(config: &Config, extension: Option<bool>, now: Instant) -> Self {
        let budget = Budget::new(config.budget, None);
        let conn = Connection::new(Qmux, Limits::from_config(config), budget.clone(), extension, now);
        Self { conn, batch: Batch::default(), budget, events: Vec::new(), now }
    }

    /// As [`new`](Self::new), with so few channel numbers.
    pub(crate) fn with_numbers(numbers: u32, now: Instant) -> Self {
        let config = Config::default();
        let mut this = Self::new(&config, Some(false), now);
        let limits = Limits { numbers, ..Limits::from_config(&config) };
        this.conn = Connection::new(Qmux, limits, this.budget.clone(), Some(false), now);
        this
    }

    pub(crate) fn receive(&mut self, bytes: impl Into<Bytes>) {
        self.conn.handle_input(bytes.into(), self.now);
    }

    pub(crate) fn set_clock(&mut self, now: Instant) {
        self.now = now;
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.now += by;
        self.conn.handle_timeout(self.now);
    }

    pub(crate) fn collect(&mut self) {
        while let Some(event) = self.conn.poll_event() {
            self.events.push(event);
        }
    }

    pub(crate) fn open(&mut self, label: &[u8]) -> Result<Key> {
        let options = OpenOptions::new().label(label.to_vec());
        self.conn.open(&options).map(|key| key.expect("control is flushed between opens"))
    }

    pub(crate) fn write(&mut self, key: Key, data: &[u8]) -> Result<usize> {
        self.conn.write(key, &[IoSlice::new(data)])
    }

    /// What a driver does when nothing waits: header and body go out past the channel's buffer.
    pub(crate) fn write_direct(&mut self, key: Key, data: &[u8]) -> Option<usize> {
        if !self.batch.is_empty() {
            return None;
        }
        const MOST: usize = 256 * 1024;
        self.conn.poll_output(&mut self.batch, MOST);
        let take = self.conn.begin_direct(key, data.len(), &mut self.batch, MOST)?.take;
        self.batch.push(Bytes::copy_from_slice(&data[..take]));
        Some(take)
    }

    /// Everything that waits, and whether it ended: `Ok` cleanly, `Err` with `Blocked` when more may come.
    pub(crate) fn read(&mut self, key: Key) -> Read {
        let mut data = Vec::new();
        loop {
            match self.conn.take(key, usize::MAX) {
                Ok(Chunk::Data(chunk)) => data.extend_from_slice(&chunk),
                Ok(Chunk::End) => return (data, Ok(())),
                Ok(Chunk::Empty) => return (data, Err(Error::blocked("more may come"))),
                Err(error) => return (data, Err(error)),
            }
        }
    }

    /// What dropping both halves after a polite close does.
    pub(crate) fn close(&mut self, key: Key) {
        let _ = self.conn.finish(key);
        self.conn.abandon(key, 0);
        self.release(key);
    }

    /// What dropping both halves early does.
    pub(crate) fn drop_channel(&mut self, key: Key) {
        let _ = self.conn.reset(key, mux_api::codes::DROPPED);
        self.conn.abandon(key, mux_api::codes::DROPPED);
        self.release(key);
    }

    pub(crate) fn release(&mut self, key: Key) {
        self.conn.release_half(key);
        self.conn.release_half(key);
    }

    /// All output at once, for tests that look at the bytes.
    pub(crate) fn output(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            self.conn.poll_output(&mut self.batch, 256 * 1024);
            if self.batch.is_empty() {
                assert!(!self.conn.has_output(), "has_output promises what poll_output does not give: a hot loop");
                return out;
            }
            self.drain(usize::MAX, &mut out);
        }
    }

    /// At most `most` bytes of output.
    pub(crate) fn output_up_to(&mut self, most: usize) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            if self.batch.is_empty() {
                self.conn.poll_output(&mut self.batch, 256 * 1024);
                self.collect();
            }
            let before = out.len();
            self.drain(most - before, &mut out);
            if out.len() == before {
                return out;
            }
        }
    }

    fn drain(&mut self, most: usize, out: &mut Vec<u8>) {
        let before = out.len();
        let mut slices = [IoSlice::new(&[]); 64];
        let used = self.batch.slices(&mut slices);
        for slice in &slices[..used] {
            let room = most - (out.len() - before);
            out.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let taken = out.len() - before;
        assert_eq!(self.batch.advance(taken), 0);
    }
}

impl Pair {
    pub(crate) fn new(config: &Config) -> Self {
        Self::with([config, config], [Some(false); 2])
    }

    /// Two ends with the base protocol only.
    pub(crate) fn plain(config: &Config) -> Self {
        Self::with([config, config], [None; 2])
    }

    pub(crate) fn with(configs: [&Config; 2], extension: [Option<bool>; 2]) -> Self {
        let now = Instant::now();
        let ends = [0, 1].map(|at| End::new(configs[at], extension[at], now));
        let links =
            [0, 1].map(|_| Link { queue: BytesMut::new(), capacity: 1 << 20, chunk: usize::MAX, stalled: false });
        let mut this = Self { ends, links, monitor: Monitor::default(), now };
        this.run();
        assert!(this.ends.iter().all(|end| end.conn.is_established()));
        this
    }

    /// Lets each side send what the link takes, and receive what it holds. `false` when nothing moved.
    pub(crate) fn step(&mut self) -> bool {
        let mut moved = false;
        for side in 0..2 {
            moved |= self.send(side) | self.deliver(side);
        }
        moved
    }

    pub(crate) fn send(&mut self, side: usize) -> bool {
        let (end, link) = (&mut self.ends[side], &mut self.links[side]);
        let mut moved = false;
        loop {
            let room = link.capacity.saturating_sub(link.queue.len());
            if end.batch.is_empty() {
                end.conn.poll_output(&mut end.batch, 256 * 1024);
                end.collect();
                if end.batch.is_empty() {
                    assert!(!end.conn.has_output(), "has_output promises what poll_output does not give: a hot loop");
                    return moved;
                }
            }
            if room == 0 {
                return moved;
            }
            let mut out = Vec::new();
            end.drain(room, &mut out);
            self.monitor.sent(side, &out);
            link.queue.extend_from_slice(&out);
            moved = true;
        }
    }

    /// The other side receives what `side` sent.
    pub(crate) fn deliver(&mut self, side: usize) -> bool {
        let link = &mut self.links[side];
        if link.stalled || link.queue.is_empty() {
            return false;
        }
        let len = link.queue.len().min(link.chunk);
        // Copied, so that the connection owns a buffer of its own, as from a socket.
        let bytes = Bytes::copy_from_slice(&link.queue.split_to(len));
        let end = &mut self.ends[1 - side];
        end.conn.handle_new_buffer(bytes.len());
        end.receive(bytes);
        end.collect();
        true
    }

    /// Until nothing moves any more.
    pub(crate) fn run(&mut self) {
        for _ in 0..10_000_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the two ends never come to rest");
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.now += by;
        for end in &mut self.ends {
            end.advance(by);
            end.collect();
        }
    }

    /// Opens on side 0 and accepts on side 1.
    pub(crate) fn channel(&mut self) -> [Key; 2] {
        let near = self.ends[0].open(b"").expect("opens");
        self.run();
        let far = self.ends[1].conn.accept().expect("lives").expect("was announced");
        [near, far]
    }

    /// After both applications let go: nothing is left in tables, budgets and on the wire.
    pub(crate) fn assert_clean(&mut self) {
        self.run();
        for (side, end) in self.ends.iter().enumerate() {
            assert_eq!(end.conn.cause().map(ToString::to_string), None, "side {side} lives");
            let stats = end.conn.stats();
            assert_eq!((stats.channels_open, stats.budget_used, end.budget.used()), (0, 0, 0), "side {side}");
        }
        assert_eq!(self.monitor.open_channels(), 0);
    }
}

/// How many seeds a random test runs: `usual`, or what `LIBMUX_SEEDS` says for a long run.
pub(crate) fn seeds(usual: u64) -> u64 {
    std::env::var("LIBMUX_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// A small generator: good enough for scripts, the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound.max(1)
    }
}
