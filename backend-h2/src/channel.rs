//! A channel's state, shared by its halves and the driver. It knows nothing of h2.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use mux_api::{Error, ErrorKind, Initiator, Origin, Priority, Reservation};

use crate::error;
use crate::ready::{Counters, Link};
use crate::recv::{RecvSide, RecvState};
use crate::send::{SendSide, SendState};

#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) id: u64,
    pub(crate) initiator: Initiator,
    pub(crate) label: Bytes,
    /// A body without records, of a plain HTTP/2 client.
    pub(crate) raw: bool,
    /// Tied once it has an HTTP/2 stream.
    pub(crate) link: Link,
    state: Mutex<ChannelState>,
}

#[derive(Debug)]
pub(crate) struct ChannelState {
    pub(crate) send: SendSide,
    pub(crate) recv: RecvSide,
    pub(crate) priority: Priority,
    /// The peer has confirmed it.
    pub(crate) opened: bool,
    /// Why both directions are over, where no record said so: the stream or the session was lost, or it was refused.
    pub(crate) cause: Option<Error>,
    /// The receive window, charged to the budget.
    pub(crate) held: Reservation,
    pub(crate) send_waker: Option<Waker>,
    /// How much room the sender waits for.
    pub(crate) send_need: usize,
    pub(crate) recv_waker: Option<Waker>,
    /// Halves that the application holds; a channel that waits to be accepted counts as held.
    holders: u8,
    /// Already taken off the counters.
    counted_out: bool,
}

/// How a channel starts.
pub(crate) struct Origins {
    pub(crate) initiator: Initiator,
    pub(crate) label: Bytes,
    pub(crate) priority: Priority,
    pub(crate) raw: bool,
    pub(crate) opened: bool,
}

impl Channel {
    /// A channel that may send `credit` bytes and has announced `granted` of the window that `held` pays for.
    pub(crate) fn new(
        origins: Origins,
        credit: u64,
        granted: u64,
        held: Reservation,
        counters: &Arc<Counters>,
    ) -> Arc<Self> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        counters.open.fetch_add(1, Ordering::Relaxed);
        counters.traffic.fetch_add(1, Ordering::Relaxed);
        if origins.initiator == Initiator::Peer {
            counters.incoming.fetch_add(1, Ordering::Relaxed);
        } else {
            counters.opened.fetch_add(1, Ordering::Relaxed);
        }
        if origins.priority != Priority::default() {
            counters.prioritised.store(true, Ordering::Relaxed);
        }
        let window = u32::try_from(held.bytes()).unwrap_or(u32::MAX);
        let state = ChannelState {
            send: SendSide::new(credit),
            recv: RecvSide::new(window, granted),
            priority: origins.priority,
            opened: origins.opened,
            cause: None,
            held,
            send_waker: None,
            send_need: 0,
            recv_waker: None,
            holders: 2,
            counted_out: false,
        };
        Arc::new(Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            initiator: origins.initiator,
            label: origins.label,
            raw: origins.raw,
            link: Link::new(Arc::clone(counters)),
            state: Mutex::new(state),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, ChannelState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counters(&self) -> &Counters {
        self.link.counters()
    }

    /// Bytes that it holds for sending at most.
    pub(crate) fn send_limit(&self) -> usize {
        self.counters().send_limit
    }

    /// Bytes written and not yet taken by the transport.
    pub(crate) fn unsent(&self, state: &ChannelState) -> usize {
        state.send.queued() + self.link.in_flight()
    }

    /// Both directions are over for this reason, unless they ended before.
    pub(crate) fn fail(&self, cause: &Error) {
        let mut state = self.lock();
        if state.cause.is_none() {
            state.cause = Some(cause.clone());
        }
        if state.send.state == SendState::Finished && !self.link.is_flushed() {
            // The end was handed to h2, which will not send it any more.
            state.send.state = SendState::Finishing;
        }
        self.discard_send(&mut state);
        self.settle(state);
    }

    /// After any change: gives memory back, takes a channel that is over off the counters, and wakes both halves.
    pub(crate) fn settle(&self, mut state: MutexGuard<'_, ChannelState>) {
        state.recv_budget();
        self.note_over(&mut state);
        let (send, recv) = (state.send_waker.take(), state.recv_waker.take());
        drop(state);
        send.into_iter().chain(recv).for_each(Waker::wake);
    }

    /// Drops what is queued for sending; the direction is over.
    pub(crate) fn discard_send(&self, state: &mut ChannelState) {
        let dropped = state.send.discard();
        self.counters().send_buffered.fetch_sub(dropped as u64, Ordering::Relaxed);
    }

    /// Drops what waits to be read.
    pub(crate) fn discard_recv(&self, state: &mut ChannelState) {
        let dropped = state.recv.discard();
        self.counters().recv_buffered.fetch_sub(dropped as u64, Ordering::Relaxed);
    }

    /// The application let go of one half.
    pub(crate) fn release_half(&self) {
        let mut state = self.lock();
        state.holders = state.holders.saturating_sub(1);
        if state.holders == 0 {
            self.discard_recv(&mut state);
            state.recv_budget();
        }
        self.note_over(&mut state);
    }

    /// The channel is nobody's: it was refused, or never accepted.
    pub(crate) fn release_all(&self) {
        self.release_half();
        self.release_half();
    }

    /// Takes the channel off the counters once it is over and nobody holds it.
    pub(crate) fn note_over(&self, state: &mut ChannelState) {
        state.count_out(self.initiator, self.counters());
    }
}

impl Drop for Channel {
    /// A channel dropped as a whole, with the session it waited in.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (unsent, unread) = (state.send.discard(), state.recv.discard());
        let counters = self.link.counters();
        counters.send_buffered.fetch_sub(unsent as u64, Ordering::Relaxed);
        counters.recv_buffered.fetch_sub(unread as u64, Ordering::Relaxed);
        state.holders = 0;
        state.cause.get_or_insert_with(Error::closed_locally);
        state.count_out(self.initiator, counters);
    }
}

impl ChannelState {
    /// Whether nothing more will be said about it, either way.
    pub(crate) fn is_over(&self) -> bool {
        self.cause.is_some() || (self.send.is_over() && self.recv.peer_ended)
    }

    fn count_out(&mut self, initiator: Initiator, counters: &Counters) {
        if self.counted_out || self.holders > 0 || !self.is_over() {
            return;
        }
        self.counted_out = true;
        counters.open.fetch_sub(1, Ordering::Relaxed);
        if initiator == Initiator::Peer {
            counters.incoming.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Once no more can come, the budget holds only what waits to be read.
    pub(crate) fn recv_budget(&mut self) {
        if self.recv.state != RecvState::Open || self.cause.is_some() {
            let free = self.held.bytes().saturating_sub(self.recv.buffered() as u64);
            self.held.shrink(free);
        }
    }

    /// Why nothing can be written; `None` while it can.
    pub(crate) fn send_error(&self) -> Option<Error> {
        let finished = |message| Some(Error::new(ErrorKind::Finished, Origin::Local, message));
        match (&self.send.state, &self.cause) {
            (SendState::Stopped { code, .. }, _) => Some(error::stopped(*code)),
            (SendState::Finished, _) => finished("this side finished the channel before"),
            (SendState::Reset { .. }, _) => finished("this side reset the channel before"),
            (_, Some(cause)) => Some(cause.clone()),
            (SendState::Finishing, None) => finished("this side finished the channel before"),
            (SendState::Open, None) => None,
        }
    }

    /// Why nothing more can be read once what waits was read: `Ok(true)` the end, `Ok(false)` more may come.
    pub(crate) fn recv_end(&self) -> Result<bool, Error> {
        match (self.recv.state, &self.cause) {
            (RecvState::Finished, _) => Ok(true),
            (RecvState::Reset(code), _) => Err(error::reset(code)),
            (RecvState::Stopping(_) | RecvState::Stopped, _) => {
                Err(Error::new(ErrorKind::Finished, Origin::Local, "this side stopped reading the channel"))
            }
            (RecvState::Open, Some(cause)) => Err(cause.clone()),
            (RecvState::Open, None) => Ok(false),
        }
    }
}
