//! The sending direction: what the application wrote, and how much of it the peer is ready for.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use mux_api::Error;

/// How the direction stands.
#[derive(Clone, Debug)]
pub(crate) enum SendState {
    /// The application may write.
    Open,
    /// It has finished; data or the end itself is still to be sent.
    Finishing,
    /// The end is sent.
    Finished,
    /// We abandoned it with this code; said, or to be said once the peer's number is known.
    Reset(u64),
    /// The peer reads no more.
    Stopped(Option<u64>),
    /// The peer refused the channel.
    Refused(Error),
}

#[derive(Debug)]
pub(crate) struct SendSide {
    pub(crate) state: SendState,
    /// Bytes the peer is ready for.
    window: u32,
    /// The largest body the peer accepts in one frame; before the confirmation, what the window was at first.
    max_frame: u32,
    /// Written and not yet handed over: whole buffers, then what was gathered.
    queue: VecDeque<Bytes>,
    gathered: BytesMut,
    buffered: usize,
}

/// From here on a buffer is queued as it is instead of gathered with its neighbours.
const LARGE: usize = 4096;

/// Up to here a body is copied next to its header instead of becoming a slice of its own.
const SMALL: u32 = 1024;

impl SendSide {
    /// A channel that the peer opened.
    pub(crate) fn new(window: u32, max_frame: u32) -> Self {
        Self {
            state: SendState::Open,
            window,
            max_frame,
            queue: VecDeque::new(),
            gathered: BytesMut::new(),
            buffered: 0,
        }
    }

    /// A channel that we opened, with `early` bytes of window until it is confirmed.
    pub(crate) fn opening(early: u32) -> Self {
        Self::new(early, early)
    }

    /// Whether anything may be sent before the confirmation.
    pub(crate) fn takes_early(&self) -> bool {
        self.max_frame > 0
    }

    /// The peer's window, which counts from the first byte on; `false` when it is less than was sent already, and the
    /// peer had announced more.
    #[must_use = "a window below what was promised is a protocol violation"]
    pub(crate) fn confirmed(&mut self, window: u32, max_frame: u32) -> bool {
        let sent = self.max_frame - self.window;
        self.max_frame = max_frame;
        self.window = window.saturating_sub(sent);
        window >= sent
    }

    /// Adds credit; `false` when the sum leaves the wire's range, which is the peer's fault.
    #[must_use = "an overflow is a protocol violation"]
    pub(crate) fn grow(&mut self, add: u32) -> bool {
        match self.window.checked_add(add) {
            Some(window) => {
                self.window = window;
                true
            }
            None => false,
        }
    }

    pub(crate) fn buffered(&self) -> usize {
        self.buffered
    }

    /// Open, with window and nothing buffered.
    pub(crate) fn is_ready_and_empty(&self) -> bool {
        matches!(self.state, SendState::Open) && self.buffered == 0 && self.window > 0
    }

    pub(crate) fn can_transmit(&self) -> bool {
        match self.state {
            SendState::Open => self.buffered > 0 && self.window > 0,
            SendState::Finishing => self.buffered == 0 || self.window > 0,
            _ => false,
        }
    }

    /// Copies as much of `bufs` as fits below `limit`.
    pub(crate) fn write(&mut self, bufs: &[IoSlice<'_>], limit: usize) -> usize {
        let mut room = limit.saturating_sub(self.buffered);
        let before = room;
        for buf in bufs {
            let take = &buf[..buf.len().min(room)];
            room -= take.len();
            if take.len() >= LARGE {
                self.seal();
                self.queue.push_back(Bytes::copy_from_slice(take));
            } else {
                self.gathered.extend_from_slice(take);
            }
            if room == 0 {
                break;
            }
        }
        self.buffered += before - room;
        before - room
    }

    /// Queues the front of `data` without a copy, as much as fits below `limit`.
    pub(crate) fn write_bytes(&mut self, data: &mut Bytes, limit: usize) -> usize {
        let take = data.len().min(limit.saturating_sub(self.buffered));
        if take >= LARGE {
            self.seal();
            self.queue.push_back(data.split_to(take));
        } else {
            self.gathered.extend_from_slice(&data[..take]);
            data.advance(take);
        }
        self.buffered += take;
        take
    }

    /// Takes window for `want` bytes that are sent from the caller's own buffer. Nothing may be buffered before them.
    #[must_use = "send exactly this many bytes, or the two ends disagree"]
    pub(crate) fn spend(&mut self, want: usize, frame: u32) -> u32 {
        debug_assert_eq!(self.buffered, 0);
        let spent = self.window.min(frame).min(self.max_frame).min(u32::try_from(want).unwrap_or(u32::MAX));
        self.window -= spent;
        spent
    }

    /// All that is buffered, if it is small, fits one frame and has window: taken once [`small_sent`](Self::small_sent).
    pub(crate) fn next_small(&self, frame: u32) -> Option<&[u8]> {
        let most = self.window.min(frame).min(self.max_frame).min(SMALL) as usize;
        let whole = self.queue.is_empty() && (1..=most).contains(&self.buffered);
        whole.then_some(&self.gathered[..])
    }

    /// What [`next_small`](Self::next_small) gave was copied out.
    pub(crate) fn small_sent(&mut self) {
        self.window -= self.buffered as u32;
        self.discard();
    }

    /// The body of the next frame, at most `frame` bytes; empty when there is none or no window.
    pub(crate) fn next_body(&mut self, frame: u32) -> Bytes {
        if self.queue.is_empty() {
            self.seal();
        }
        let Some(front) = self.queue.front_mut() else { return Bytes::new() };
        let most = self.window.min(frame).min(self.max_frame) as usize;
        let body = if front.len() <= most { self.queue.pop_front().unwrap_or_default() } else { front.split_to(most) };
        self.window -= body.len() as u32;
        self.buffered -= body.len();
        if self.buffered == 0 {
            self.release();
        }
        body
    }

    /// Drops what was not sent.
    pub(crate) fn discard(&mut self) {
        self.buffered = 0;
        self.release();
    }

    /// Gives the memory back: an idle channel holds no buffer.
    fn release(&mut self) {
        self.queue = VecDeque::new();
        self.gathered = BytesMut::new();
    }

    fn seal(&mut self) {
        if !self.gathered.is_empty() {
            self.queue.push_back(self.gathered.split().freeze());
        }
    }
}
