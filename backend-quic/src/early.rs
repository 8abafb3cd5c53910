//! Channels that their opener resets before we have read their preface (docs/quic.md, section 2.6).
//!
//! QUIC drops what was received of a stream when its reset arrives, the preface included. The opener says the same on the
//! control stream; the two meet here, whichever comes first.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use mux_api::{Budget, Reservation};

use crate::shared::{lock, remember};

/// What the opener said of a stream that it has reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EarlyReset {
    /// The stream's id.
    pub(crate) stream: u64,
    /// The reset's code.
    pub(crate) code: u64,
    /// The stream's preface.
    pub(crate) preface: Bytes,
}

/// What is known of streams whose preface was not read.
#[derive(Default)]
pub(crate) struct Early(Mutex<State>);

#[derive(Default)]
struct State {
    /// Streams with a smaller id were met; those of them that are not in `unread` need nothing from us.
    met: u64,
    /// Streams whose preface is being read, or is waited for here.
    unread: HashMap<u64, Option<Waker>>,
    said: HashMap<u64, (EarlyReset, Reservation)>,
    over: bool,
}

impl Early {
    /// A stream was accepted, and its preface is not there yet.
    pub(crate) fn begin(&self, stream: u64) {
        let mut state = lock(&self.0);
        state.met = state.met.max(stream + 1);
        state.unread.insert(stream, None);
    }

    /// A stream needs nothing from here any more.
    pub(crate) fn settle(&self, stream: u64) {
        let mut state = lock(&self.0);
        state.met = state.met.max(stream + 1);
        if !state.unread.is_empty() {
            state.unread.remove(&stream);
        }
        if !state.said.is_empty() {
            state.said.remove(&stream);
        }
    }

    /// The peer's word on a stream. One that has no room in `budget` is forgotten.
    pub(crate) fn say(&self, reset: EarlyReset, budget: &Budget) {
        let mut state = lock(&self.0);
        let stream = reset.stream;
        if state.over || (stream < state.met && !state.unread.contains_key(&stream)) {
            return;
        }
        let size = size_of::<(u64, (EarlyReset, Reservation))>() + reset.preface.len();
        let Some(held) = budget.reserve(size as u64) else { return };
        state.said.insert(stream, (reset, held));
        let waker = state.unread.get_mut(&stream).and_then(Option::take);
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// What the peer says of a stream that it has reset; `None` when nothing more will be said.
    pub(crate) fn poll_said(&self, stream: u64, cx: &mut Context<'_>) -> Poll<Option<EarlyReset>> {
        let mut state = lock(&self.0);
        if let Some((reset, _)) = state.said.remove(&stream) {
            return Poll::Ready(Some(reset));
        }
        if state.over {
            return Poll::Ready(None);
        }
        match state.unread.entry(stream) {
            Entry::Occupied(mut slot) => remember(slot.get_mut(), cx.waker()),
            Entry::Vacant(slot) => drop(slot.insert(Some(cx.waker().clone()))),
        }
        Poll::Pending
    }

    /// The control stream says nothing more.
    pub(crate) fn end(&self) {
        let mut state = lock(&self.0);
        state.over = true;
        let unread = std::mem::take(&mut state.unread);
        drop(state);
        unread.into_values().flatten().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reset(stream: u64) -> EarlyReset {
        EarlyReset { stream, code: 7, preface: Bytes::from_static(b"!") }
    }

    #[test]
    fn both_orders_meet_and_nothing_is_kept_for_a_stream_that_was_read() {
        let (early, budget) = (Early::default(), Budget::new(10_000, None));
        let mut cx = Context::from_waker(Waker::noop());
        early.say(reset(0), &budget);
        early.begin(0);
        assert_eq!(early.poll_said(0, &mut cx), Poll::Ready(Some(reset(0))));
        early.settle(0);
        early.begin(4);
        assert!(early.poll_said(4, &mut cx).is_pending());
        early.say(reset(4), &budget);
        assert_eq!(early.poll_said(4, &mut cx), Poll::Ready(Some(reset(4))));
        early.settle(4);
        early.settle(8);
        for stream in [0, 4, 8] {
            early.say(reset(stream), &budget);
        }
        early.say(reset(12), &budget);
        early.settle(12);
        assert_eq!(budget.used(), 0);
        early.begin(16);
        assert!(early.poll_said(16, &mut cx).is_pending());
        early.end();
        assert_eq!(early.poll_said(16, &mut cx), Poll::Ready(None));
    }

    #[test]
    fn what_a_peer_says_of_streams_that_never_come_stays_inside_the_budget() {
        let (early, budget) = (Early::default(), Budget::new(10_000, None));
        (0..1000).for_each(|stream| early.say(reset(stream * 4), &budget));
        assert!(budget.used() <= 10_000 && lock(&early.0).said.len() < 200);
    }
}
