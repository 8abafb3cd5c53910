//! Watches what two libmux ends say to each other: neither may break a rule of the wire.

use std::collections::HashMap;

use backend_qmux::Qmux;
use bytes::{Buf, BytesMut};
use mux_proto::{Decoded, Frame, LocalId, RemoteId, Wire};

#[derive(Default)]
pub(crate) struct Monitor {
    sides: [Side; 2],
    channels: Vec<Seen>,
}

#[derive(Default)]
struct Side {
    bytes: BytesMut,
    /// Bytes of a body that are still to come.
    body: usize,
    /// The channels this side has numbered, by number.
    numbers: HashMap<u32, usize>,
    ended: bool,
    /// Channels it lets the other side open in total, and bytes the other may send on each before the confirmation.
    limits: Option<(u64, u32)>,
    /// Its opens, ever, and how many of them were not refused.
    opens: u64,
    used: u64,
}

/// What was said about a channel; arrays are by the side that said it, or that may send.
#[derive(Default)]
struct Seen {
    numbers: [Option<u32>; 2],
    opener: usize,
    /// Which of the opener's opens it is.
    seq: u64,
    /// Bytes sent before the confirmation.
    early: u32,
    confirmed: bool,
    credit: [u64; 2],
    max_frame: [u32; 2],
    over: [bool; 2],
    closed: [bool; 2],
}

impl Monitor {
    /// `side` has sent `bytes`.
    pub(crate) fn sent(&mut self, side: usize, bytes: &[u8]) {
        self.sides[side].bytes.extend_from_slice(bytes);
        loop {
            let this = &mut self.sides[side];
            let skip = this.body.min(this.bytes.len());
            this.bytes.advance(skip);
            this.body -= skip;
            let mut bytes = std::mem::take(&mut this.bytes);
            match Qmux.decode(&bytes).expect("our own frames decode") {
                Decoded::Incomplete => {
                    this.bytes = bytes;
                    return;
                }
                Decoded::Frame(frame, len) => {
                    self.frame(side, frame);
                    bytes.advance(len);
                    self.sides[side].bytes = bytes;
                }
            }
        }
    }

    /// Channels that are not over on the wire.
    pub(crate) fn open_channels(&self) -> usize {
        self.channels.iter().filter(|seen| seen.closed != [true; 2]).count()
    }

    fn frame(&mut self, side: usize, frame: Frame<'_, LocalId, RemoteId>) {
        let what = format!("{frame:?} of side {side}");
        assert!(!self.sides[side].ended, "nothing follows the session's end: {what}");
        let peer = 1 - side;
        match frame {
            Frame::Hello
            | Frame::HelloRefused
            | Frame::Probe { .. }
            | Frame::Ping { .. }
            | Frame::Pong { .. }
            | Frame::GoAway { .. }
            | Frame::Skip { .. } => {}
            Frame::SessionLimits { channels, early } => {
                let side = &mut self.sides[side];
                assert!(side.limits.is_none(), "once: {what}");
                side.limits = Some((u64::from(channels), early));
            }
            Frame::OpenCredit { add } => {
                let (granted, _) = self.sides[side].limits.as_mut().expect("after the limits");
                *granted += u64::from(add);
            }
            Frame::Open { from, window, max_frame, .. } => {
                assert!(!self.sides[side].numbers.contains_key(&from.0), "a number in use: {what}");
                let granted = self.sides[peer].limits.map(|(granted, _)| granted);
                let opener = &mut self.sides[side];
                (opener.opens, opener.used) = (opener.opens + 1, opener.used + 1);
                assert!(granted.is_none_or(|granted| opener.used <= granted), "more than may be opened: {what}");
                let mut seen = Seen { opener: side, seq: opener.opens, ..Seen::default() };
                seen.numbers[side] = Some(from.0);
                seen.credit[peer] = u64::from(window);
                seen.max_frame[peer] = max_frame;
                self.sides[side].numbers.insert(from.0, self.channels.len());
                self.channels.push(seen);
            }
            Frame::Confirm { to, from, window, max_frame } => {
                let at = self.addressed(peer, to, &what);
                assert!(!self.sides[side].numbers.contains_key(&from.0), "a number in use: {what}");
                self.sides[side].numbers.insert(from.0, at);
                let seen = &mut self.channels[at];
                assert!(seen.opener == peer && !seen.confirmed, "one answer only: {what}");
                seen.confirmed = true;
                seen.numbers[side] = Some(from.0);
                assert!(window >= seen.early, "less window than was promised: {what}");
                seen.credit[peer] = u64::from(window - seen.early);
                seen.max_frame[peer] = max_frame;
            }
            Frame::EarlyData { from, len } => {
                self.sides[side].body = len as usize;
                let most = self.sides[peer].limits.expect("announced").1;
                if let Some(seen) = self.early(side, from.0, &what) {
                    seen.early += len;
                    assert!(len > 0 && seen.early <= most, "{what}");
                    if seen.confirmed {
                        // The confirmation is on its way.
                        seen.credit[side] -= u64::from(len);
                    }
                }
            }
            Frame::EarlyFin { from } => {
                if let Some(seen) = self.early(side, from.0, &what) {
                    seen.over[side] = true;
                }
            }
            // The answer to a keepalive probe.
            Frame::Refuse { to: LocalId(0xFFFF_FFFE), .. } => {}
            Frame::Refuse { to, .. } => {
                let at = self.addressed(peer, to, &what);
                self.sides[peer].numbers.remove(&to.0);
                self.sides[peer].used -= 1;
                let seen = &mut self.channels[at];
                assert!(seen.opener == peer && !seen.confirmed, "one answer only: {what}");
                seen.closed = [true; 2];
            }
            Frame::Credit { to, add } => {
                let seen = self.live(to, side, &what);
                assert!(add > 0, "{what}");
                seen.credit[peer] += u64::from(add);
                assert!(seen.credit[peer] <= u64::from(u32::MAX), "{what}");
            }
            Frame::Data { to, len } => {
                let seen = self.live(to, side, &what);
                assert!(!seen.over[side], "data after the end: {what}");
                assert!(u64::from(len) <= seen.credit[side], "more than was granted: {what}");
                assert!(len > 0 && len <= seen.max_frame[side], "{what}");
                seen.credit[side] -= u64::from(len);
                self.sides[side].body = len as usize;
            }
            Frame::Fin { to } | Frame::Reset { to, .. } => {
                let seen = self.live(to, side, &what);
                assert!(!seen.over[side], "one end only: {what}");
                seen.over[side] = true;
            }
            Frame::Stop { to, .. } => {
                self.live(to, side, &what);
            }
            Frame::Close { to } => {
                let seen = self.live(to, side, &what);
                seen.closed[side] = true;
                if seen.closed == [true; 2] {
                    let numbers = seen.numbers;
                    for (side, number) in numbers.into_iter().enumerate() {
                        self.sides[side].numbers.remove(&number.expect("confirmed"));
                    }
                }
            }
            Frame::SessionEnd { .. } => self.sides[side].ended = true,
        }
    }

    /// A channel that its opener says something about before the confirmation; `None` after a refusal.
    fn early(&mut self, side: usize, from: u32, what: &str) -> Option<&mut Seen> {
        let seen = &mut self.channels[*self.sides[side].numbers.get(&from)?];
        assert!(self.sides[side].opens - seen.seq < 128, "too long ago to be found: {what}");
        assert!(seen.opener == side && !seen.over[side] && !seen.closed[side], "{what}");
        Some(seen)
    }

    fn addressed(&self, peer: usize, to: LocalId, what: &str) -> usize {
        *self.sides[peer].numbers.get(&to.0).unwrap_or_else(|| panic!("unknown channel: {what}"))
    }

    fn live(&mut self, to: LocalId, side: usize, what: &str) -> &mut Seen {
        let at = self.addressed(1 - side, to, what);
        let seen = &mut self.channels[at];
        assert!(seen.confirmed, "before the confirmation: {what}");
        assert!(!seen.closed[side], "nothing about a channel after CLOSE: {what}");
        seen
    }
}
