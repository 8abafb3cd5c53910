//! Every bound of a connection, with its reason.

use std::time::Duration;

use mux_api::Config;
use mux_api::backend::numbers;

/// What a connection allows its peer and itself.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Channels the peer may have open at once.
    pub max_incoming: u32,
    /// Channels that wait for `accept`.
    pub backlog: u32,
    /// A channel's receive window when memory is plentiful.
    pub window: u32,
    /// Bytes a channel holds for sending.
    pub send_buffer: u32,
    /// The largest body we send in one frame while no other channel waits.
    pub frame: u32,
    /// The longest label accepted.
    pub label: u32,
    /// Bytes that the peer may send on a channel before it is confirmed: the least window of an incoming one.
    pub early: u32,
    /// Channel numbers that are given out, from 0 on. The ones from 0xFFFFFF00 on are reserved.
    pub numbers: u32,
    /// How long the peer's announcement is awaited before it counts as plain.
    pub hello_wait: Duration,
    /// How often a silent peer is probed; zero: never.
    pub keepalive: Duration,
    /// A session that is not used for this long ends; zero: never.
    pub idle: Duration,
    /// How long a polite close may take.
    pub linger: Duration,
}

impl Limits {
    /// A channel's window never starts below this, so that a frame of an interactive protocol fits.
    pub const MIN_WINDOW: u32 = 1024;

    /// The largest body of one frame while several channels wait: small enough that the last byte queued by an
    /// interactive channel does not wait long for its turn (RFC 9113's default frame size).
    pub const SHARED_FRAME: u32 = 16 * 1024;

    /// The largest body we ask the peer to put in one frame.
    pub const MAX_FRAME: u32 = 256 * 1024;

    /// A window whose reader keeps it empty grows to at most so many times what a new channel would get, whatever was
    /// measured: within a machine the tasks' turns take longer than the way.
    pub const GROWTH: u32 = 16;

    /// What the channels that have something to send may buffer together, as long as each has its least.
    pub const SHARED_SEND_BUFFER: usize = 1 << 20;

    /// What a channel may always buffer.
    pub const LEAST_SEND_BUFFER: usize = 32 * 1024;

    /// Probes in a row that may go unanswered before the peer is dead.
    pub const MISSES: u32 = 2;

    /// Frames the peer can provoke (confirmations, refusals, answers to CLOSE) that wait to be sent. A peer that
    /// keeps provoking them while it does not read is cut off: about 60,000 answers.
    pub const MAX_PENDING_ANSWERS: usize = 1 << 20;

    /// Opens whose channels may get data before they are confirmed: the latest ones. The receiver has to find them by
    /// the opener's numbers.
    pub const RECENT_OPENS: u32 = 128;

    /// Early bytes a channel where memory allows: a request with its head.
    pub const EARLY: u32 = 16 * 1024;

    /// Messages a second that carry nothing (pings, empty data, credit for nothing, opens given up at once, what a later
    /// version says). Cancelling opens as fast as one core can stays below it.
    pub const IDLE_TALK: u32 = 20_000;

    /// The bounds that `config` asks for.
    pub fn from_config(config: &Config) -> Self {
        let window = config.window.max(Self::MIN_WINDOW);
        // All channels together may not take more than a quarter of the budget by it.
        let share = config.budget / 4 / u64::from(config.max_channels.max(1));
        let early = u32::try_from(share).unwrap_or(u32::MAX).clamp(Self::MIN_WINDOW, Self::EARLY).min(window);
        Self {
            max_incoming: config.max_channels,
            backlog: config.channel_backlog.max(1),
            window,
            send_buffer: config.send_buffer.max(4096),
            frame: config.frame_size.clamp(1024, Self::MAX_FRAME),
            label: config.max_label.min(u32::from(u16::MAX)),
            early,
            numbers: numbers(config).map_or(0xFFFF_FF00, |few| few.min(0xFFFF_FF00)),
            hello_wait: Duration::from_secs(1),
            keepalive: config.keepalive,
            idle: config.idle,
            linger: config.linger,
        }
    }

    /// The window a new channel starts with: the more of the budget is in use, the smaller. With remaining share r
    /// of the budget it is `window * r * r`, so that n channels leave r = 1 / (1 + n * window / budget): it falls
    /// smoothly and the budget is never used up by windows above the minimum.
    pub fn initial_window(&self, available: u64, budget: u64) -> u32 {
        let share = if budget == 0 { 0.0 } else { (available as f64 / budget as f64).min(1.0) };
        // A budget smaller than the window still has room for several channels.
        let most = self.window.min(u32::try_from(budget / 4).unwrap_or(u32::MAX)).max(Self::MIN_WINDOW);
        let size = (f64::from(most) * share * share) as u32;
        size.clamp(Self::MIN_WINDOW, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_shrink_smoothly_and_leave_room() {
        let limits = Limits::from_config(&Config::default());
        let budget = 256u64 << 20;
        let (mut used, mut last) = (0u64, u32::MAX);
        for _ in 0..10_000 {
            let window = limits.initial_window(budget - used, budget);
            assert!(window <= last && window >= Limits::MIN_WINDOW);
            used += u64::from(window);
            last = window;
        }
        assert!(used < budget, "10,000 channels fit: {used}");
        assert_eq!(limits.initial_window(budget, budget), limits.window);
        assert_eq!(limits.initial_window(5, 0), Limits::MIN_WINDOW);
    }

    #[test]
    fn the_smallest_budget_has_room_for_several_channels() {
        let limits = Limits::from_config(&Config::default());
        let budget = 65_536;
        let used = (0..16).fold(0, |used, _| used + u64::from(limits.initial_window(budget - used, budget)));
        assert!(used <= budget, "{used}");
    }
}
