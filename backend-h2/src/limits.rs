//! Every bound of an HTTP/2 session, with its reason.

use std::time::Duration;

use mux_api::backend::numbers;
use mux_api::{Budget, Config};

use crate::headers::Credits;

/// What a session allows its peer and itself.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Channels the peer may have open at once.
    pub(crate) max_incoming: u64,
    /// Channels that wait for `accept`.
    pub(crate) backlog: usize,
    /// A channel's in-band credit when memory is plentiful.
    pub(crate) window: u32,
    /// The largest window of the accepting end. It never changes its stream windows: an end that has SETTINGS to acknowledge
    /// does not read before it could write, and two such ends on a full connection would wait for each other.
    pub(crate) accepting_most: u32,
    /// Credit that every channel of this session has before its window is known: what may come with the request.
    pub(crate) early: u32,
    /// HTTP/2's window for what was received is returned with the next credit, or as soon as it and what is still
    /// granted exceed the channel's window by this much.
    pub(crate) unreturned: Option<u64>,
    /// Bytes a channel holds for sending.
    pub(crate) send_buffer: usize,
    /// The largest payload of a data record that we send.
    pub(crate) record: usize,
    pub(crate) label: usize,
    /// Requests that the dialing end makes in a session's life.
    pub(crate) requests: u32,
    pub(crate) linger: Duration,
    pub(crate) keepalive: Duration,
    pub(crate) idle: Duration,
}

impl Limits {
    /// A window never starts below this.
    pub(crate) const MIN_WINDOW: u32 = 1024;

    /// What a stream window of HTTP/2 has room for beyond the in-band credit, so that credit runs out first: a hop that
    /// finds a stream window exhausted may stop reading all streams, and with them the window it waits for.
    const MARGIN: u32 = 64 * 1024;

    /// No window is larger: the stream window under it would be too large for HTTP/2.
    const MAX_WINDOW: u32 = Self::CONNECTION_WINDOW / 3 * 2 - Self::MARGIN;

    /// The connection window: never the one that runs out, so that an unread channel stalls only itself.
    pub(crate) const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

    /// What a record may carry, and a little more for its header and the control records before it: one frame.
    const RECORD: usize = 64 * 1024;
    pub(crate) const FRAME: u32 = Self::RECORD as u32 + 1024;

    /// Header lists of ours have below 3 KiB.
    pub(crate) const HEADER_LIST: u32 = 16 * 1024;

    /// Bytes of one channel handed to h2 and not yet to the transport. Two frames keep it busy; more could not be
    /// overtaken by an urgent channel.
    pub(crate) const IN_FLIGHT: usize = 2 * Self::RECORD;

    /// What a channel may send right behind its request, before h2 knows of any window for it: it is far less than every
    /// HTTP/2 peer gives a stream, and travels with the request in one write.
    pub(crate) const AT_ONCE: usize = 16 * 1024;

    /// The odd numbers below 2^31, each of which names one stream of the client's.
    const REQUESTS: u32 = 1 << 30;

    /// Bytes of all channels handed to h2 and not yet to the transport: what is urgent waits for no more than these.
    pub(crate) const SESSION_IN_FLIGHT: usize = 8 * Self::RECORD;

    /// A window whose reader keeps it empty grows to at most so many times what a new channel would get, whatever was
    /// measured: within a machine the tasks' turns take longer than the way, and what is more delays the others.
    pub(crate) const GROWTH: u32 = 2;

    /// To how many times the first window one may grow at the accepting end, whatever was measured, within this part of the
    /// budget: a raw channel is charged for all of its stream window.
    const ACCEPTING_GROWTH: u32 = 4;
    const ACCEPTING_PART: u64 = 16;

    /// No window grows larger than this.
    pub(crate) const MOST_WINDOW: u32 = 64 << 20;

    /// Requests the client keeps parked at first, and at most.
    pub(crate) const POOL: u32 = 8;
    pub(crate) const MAX_POOL: u32 = 128;

    /// Control records that wait to be sent. A peer that provokes answers and does not take them is cut off.
    pub(crate) const MAX_CONTROL: usize = 64 * 1024;

    /// Opens that wait for the driver's next turn, or for a parked request: beyond it `open` waits.
    pub(crate) const MAX_OPENS: usize = 128;

    /// How long a peer may take to end a stream whose directions are both over, before it is reset.
    pub(crate) const WIND_DOWN: Duration = Duration::from_secs(5);

    /// How long the end of the session may take to reach the peer.
    pub(crate) const LAST_WORDS: Duration = Duration::from_secs(2);

    /// How long a parked request is kept: below the 30 to 60 seconds that proxies allow.
    pub(crate) const SLOT_LIFE: Duration = Duration::from_secs(25);

    pub(crate) fn from_config(config: &Config) -> Self {
        let window = config.window.clamp(Self::MIN_WINDOW, Self::MAX_WINDOW);
        // Half the budget, if every channel the peer may open came at once.
        let share = config.budget / u64::from(config.max_channels.max(1)) / 2;
        let early = share.clamp(u64::from(Self::MIN_WINDOW), 64 * 1024) as u32;
        let part = u32::try_from(config.budget / Self::ACCEPTING_PART).unwrap_or(u32::MAX).min(Self::MOST_WINDOW);
        Self {
            max_incoming: u64::from(config.max_channels),
            backlog: config.channel_backlog.max(1) as usize,
            window,
            accepting_most: window.saturating_mul(Self::ACCEPTING_GROWTH).min(part).max(window),
            early: early.min(window),
            // Half the margin stays, whatever happens. A budget that rivals the connection's window leaves no room there.
            unreturned: (config.budget < 1 << 30).then_some(u64::from(Self::MARGIN / 2)),
            send_buffer: config.send_buffer.max(4096) as usize,
            record: (config.frame_size as usize).clamp(1024, Self::RECORD),
            label: config.max_label as usize,
            requests: numbers(config).map_or(Self::REQUESTS, |few| few.min(Self::REQUESTS)),
            linger: config.linger,
            keepalive: config.keepalive,
            idle: config.idle,
        }
    }

    /// What the control stream says about every channel.
    pub(crate) fn credits(&self) -> Credits {
        Credits { early: u64::from(self.early), window: u64::from(self.window) }
    }

    /// The stream window that the dialing end announces at first (SETTINGS_INITIAL_WINDOW_SIZE).
    pub(crate) fn stream_window(&self) -> u32 {
        Self::stream_window_for(self.window)
    }

    /// The stream window that the accepting end announces.
    pub(crate) fn accepting_stream_window(&self) -> u32 {
        Self::stream_window_for(self.accepting_most)
    }

    /// The stream window under a channel's window. h2 keeps back what is returned to it until that is half of what the peer
    /// has left, a third of the whole; so the whole is half as much again.
    pub(crate) fn stream_window_for(window: u32) -> u32 {
        (window + Self::MARGIN) / 2 * 3
    }

    /// Streams a client may have at once: channels of both sides, the pool, the control stream. Channels beyond
    /// `max_incoming` are refused with an answer, so this bound is only the last resort.
    pub(crate) fn streams(&self) -> u32 {
        let streams = self.max_incoming.saturating_mul(2) + 2 * u64::from(Self::MAX_POOL);
        u32::try_from(streams).unwrap_or(u32::MAX)
    }

    /// The window a new channel starts with, when `incoming` of the peer's channels are open. The peer's have the early
    /// credit at least, which is set aside for every channel it may open. While more than
    /// three quarters of the rest of the budget are free, a channel gets the whole window; then, with the free part of
    /// those r, `window * r * r`, which falls smoothly and never uses it up.
    pub(crate) fn initial_window(&self, budget: &Budget, incoming: u64, by_peer: bool) -> u32 {
        let most = budget.limit() / 2;
        let aside = |channels: u64| channels.saturating_mul(u64::from(self.early)).min(most);
        let rest = budget.limit() - aside(self.max_incoming);
        let free = budget.available().saturating_sub(aside(self.max_incoming.saturating_sub(incoming)));
        let share = (free as f64 / (rest.max(1) as f64 * 0.75)).min(1.0);
        let least = if by_peer { self.early } else { Self::MIN_WINDOW };
        least + (f64::from(self.window - least) * share * share) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_that_may_be_opened_fits_the_budget() {
        for (channels, by_peer) in [(1_024, true), (10_000, true), (100_000, true), (10_000, false)] {
            let mut config = Config::default();
            config.max_channels = channels;
            let limits = Limits::from_config(&config);
            let budget = Budget::new(config.budget, None);
            let (mut held, mut last) = (Vec::new(), u32::MAX);
            for at in 0..u64::from(channels) {
                let window = limits.initial_window(&budget, if by_peer { at } else { 0 }, by_peer);
                assert!(window <= last && window >= Limits::MIN_WINDOW);
                held.push(budget.reserve(u64::from(window)).expect("fits"));
                last = window;
            }
            assert!(by_peer || last < limits.window);
        }
    }

    #[test]
    fn a_stream_window_of_the_accepting_end_fits_the_budget_and_http_2() {
        for (window, budget, most) in [
            (256 << 10, 256 << 20, 1 << 20),
            (16 << 20, 256 << 20, 16 << 20),
            (64 << 20, 256 << 20, 64 << 20),
            (256 << 10, 1 << 20, 256 << 10),
            (u32::MAX, u64::MAX, Limits::MAX_WINDOW),
        ] {
            let mut config = Config::default();
            (config.window, config.budget) = (window, budget);
            let limits = Limits::from_config(&config);
            assert_eq!(limits.accepting_most, most);
            assert!(limits.accepting_stream_window() <= Limits::CONNECTION_WINDOW);
        }
    }

    #[test]
    fn the_first_channel_has_the_whole_window() {
        let limits = Limits::from_config(&Config::default());
        let budget = Budget::new(256 << 20, None);
        for by_peer in [false, true] {
            assert_eq!(limits.initial_window(&budget, 0, by_peer), limits.window);
        }
    }
}
