//! What is measured.

use std::time::Duration;

use crate::exit::Exit;

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Writes of `size` bytes as fast as they are taken, on every channel; the server counts what arrives.
    Stream { size: usize },
    /// 64 bytes there and back, one after the other on every channel.
    PingPong,
    /// A new channel for every 64 bytes there and back, so many at once.
    Churn,
    /// Channels that are open and say nothing.
    Idle,
    /// Writes of 64 KiB on one channel, at first alone, then beside channels that are full because nobody reads them.
    Unread,
    /// 64 bytes there and back on one channel, at first alone, then beside one that writes 64 KiB as fast as they are taken.
    LoadedPing,
    /// A call of the C API, many times, by one thread.
    Call,
}

/// How a value is made of what the two processes report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes received by the server, in MiB.
    MebibytesPerSecond,
    /// Messages received by the server.
    MessagesPerSecond,
    /// Operations completed by the client.
    PerSecond(&'static str),
    /// The median of the client's latencies.
    Microseconds,
    /// What the slowest in a hundred of the client's operations takes.
    Microseconds99,
    /// What one channel adds to the larger of the two processes.
    BytesPerChannel,
    /// What one call takes of its thread's processor time.
    Nanoseconds,
}

impl Unit {
    /// As it stands in the JSON and the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MebibytesPerSecond => "MiB/s",
            Self::MessagesPerSecond => "msg/s",
            Self::PerSecond(what) => what,
            Self::Microseconds => "us",
            Self::Microseconds99 => "us p99",
            Self::BytesPerChannel => "B/channel",
            Self::Nanoseconds => "ns",
        }
    }

    /// Whether a smaller value is the better one.
    pub(crate) fn less_is_better(self) -> bool {
        matches!(self, Self::Microseconds | Self::Microseconds99 | Self::BytesPerChannel | Self::Nanoseconds)
    }

    /// How much better `value` is than `baseline`: above 1 is better, whatever the unit.
    pub(crate) fn ratio(self, value: f64, baseline: f64) -> f64 {
        if self.less_is_better() { baseline / value } else { value / baseline }
    }
}

/// A scenario, with its number of channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scenario {
    /// As it stands in `--scenario` and the JSON.
    pub(crate) name: &'static str,
    /// What it does, in a line.
    pub(crate) summary: &'static str,
    /// What the client does.
    pub(crate) kind: Kind,
    /// Channels open at once.
    pub(crate) channels: usize,
    /// What the value is.
    pub(crate) unit: Unit,
}

/// Bytes there and back in the scenarios that ask and answer.
pub(crate) const PING: usize = 64;
/// Bytes a write where only the amount counts.
pub(crate) const BULK: usize = 64 * 1024;
const SMALL: usize = 128;

/// Every scenario, in the order of the table.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "bulk1",
        summary: "one channel, writes of 64 KiB, the server reads 64 KiB at a time and counts",
        kind: Kind::Stream { size: BULK },
        channels: 1,
        unit: Unit::MebibytesPerSecond,
    },
    Scenario {
        name: "bulk100",
        summary: "the same over 100 channels at once (tcp, unix, tls: 100 connections)",
        kind: Kind::Stream { size: BULK },
        channels: 100,
        unit: Unit::MebibytesPerSecond,
    },
    Scenario {
        name: "small",
        summary: "one channel, writes of 128 bytes",
        kind: Kind::Stream { size: SMALL },
        channels: 1,
        unit: Unit::MessagesPerSecond,
    },
    Scenario {
        name: "pingpong",
        summary: "one channel, 64 bytes there and back, one after the other; the value is the median (pingpong:N on N channels)",
        kind: Kind::PingPong,
        channels: 1,
        unit: Unit::Microseconds,
    },
    Scenario {
        name: "rr64",
        summary: "64 channels at once, each playing pingpong",
        kind: Kind::PingPong,
        channels: 64,
        unit: Unit::PerSecond("rt/s"),
    },
    Scenario {
        name: "churn",
        summary: "open, 64 bytes, half-close, read the echo to its end, close, one after the other (tcp, unix, tls: connections)",
        kind: Kind::Churn,
        channels: 1,
        unit: Unit::PerSecond("channels/s"),
    },
    Scenario {
        name: "churn64",
        summary: "the same, 64 at once",
        kind: Kind::Churn,
        channels: 64,
        unit: Unit::PerSecond("channels/s"),
    },
    Scenario {
        name: "idle",
        summary: "memory that an open, silent channel takes in each process, at 10,000 and at 100,000 (idle:N for N channels)",
        kind: Kind::Idle,
        channels: 10_000,
        unit: Unit::BytesPerChannel,
    },
    Scenario {
        name: "unread",
        summary: "bulk1 beside 1, 64 and 1,000 channels that are full and that nobody reads (unread:N for N); alone: before",
        kind: Kind::Unread,
        channels: 1,
        unit: Unit::MebibytesPerSecond,
    },
    Scenario {
        name: "loaded-ping",
        summary: "pingpong beside a channel of bulk1; the value is the 99th percentile; alone: before the other began",
        kind: Kind::LoadedPing,
        channels: 1,
        unit: Unit::Microseconds99,
    },
    call("c-read", "--api c: a read of 64 bytes that have arrived"),
    call("c-write", "--api c: a write of 64 bytes, in bursts of 1,024"),
    call("c-write-more", "--api c: the same, with MUX_IO_MORE"),
    call("c-event", "--api c: an event of a queue, 64 at a time, of 1,024 readable channels"),
    call("c-open", "--api c: open and close of a channel, without the peer's part"),
];

const fn call(name: &'static str, summary: &'static str) -> Scenario {
    Scenario { name, summary, kind: Kind::Call, channels: 1, unit: Unit::Nanoseconds }
}

const IDLE_CHANNELS: [usize; 2] = [10_000, 100_000];
const UNREAD_CHANNELS: [usize; 3] = [1, 64, 1_000];

/// What runs when nobody says what.
pub(crate) const DEFAULT: &[&str] = &["bulk1", "bulk100", "small", "pingpong", "rr64", "churn", "churn64"];
/// What runs with `--api c` when nobody says what.
pub(crate) const THROUGH_C: &[&str] =
    &["bulk1", "small", "pingpong", "churn", "c-read", "c-write", "c-write-more", "c-event", "c-open"];
/// What runs with `--quick`.
pub(crate) const QUICK: &[&str] = &["bulk1", "small", "pingpong", "churn64"];

impl Scenario {
    /// The scenarios that `text` names: `idle` alone stands for two, `unread` for three.
    ///
    /// # Errors
    /// A usage error that lists what exists.
    pub(crate) fn parse(text: &str) -> Result<Vec<Self>, Exit> {
        let (name, channels) = text.split_once(':').map_or((text, None), |(name, channels)| (name, Some(channels)));
        let found = ALL.iter().find(|scenario| scenario.name == name).ok_or_else(|| {
            let known: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
            Exit::usage(format!("no scenario '{name}'; there are: {}", known.join(", ")))
        })?;
        let with = |channels| Self { channels, ..found.clone() };
        match (found.kind, channels) {
            (Kind::Idle, None) => Ok(IDLE_CHANNELS.into_iter().map(with).collect()),
            (Kind::Unread, None) => Ok(UNREAD_CHANNELS.into_iter().map(with).collect()),
            (Kind::Idle | Kind::Unread | Kind::PingPong, Some(text)) if name != "rr64" => match text.parse() {
                Ok(channels @ 1..=1_000_000) => Ok(vec![with(channels)]),
                _ => Err(Exit::usage(format!("scenario {name}:{text}: 1 to 1000000 channels are allowed"))),
            },
            (_, None) => Ok(vec![found.clone()]),
            (_, Some(_)) => {
                Err(Exit::usage(format!("scenario {name} takes no number of channels; pingpong, idle and unread do")))
            }
        }
    }

    /// As people and worker processes call it, the number of channels included where it varies.
    pub(crate) fn label(&self) -> String {
        match self.kind {
            Kind::PingPong if self.channels == 1 || self.name == "rr64" => self.name.to_owned(),
            Kind::Idle | Kind::Unread | Kind::PingPong => format!("{}:{}", self.name, self.channels),
            _ => self.name.to_owned(),
        }
    }

    /// Whether it is measured twice: alone, then beside a load.
    pub(crate) fn is_beside(&self) -> bool {
        matches!(self.kind, Kind::Unread | Kind::LoadedPing)
    }

    /// Channels that are open at the same time, all told.
    pub(crate) fn at_once(&self) -> usize {
        self.channels + usize::from(self.is_beside())
    }
}

/// How long a run takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Traffic runs before it is measured.
    pub(crate) warm_up: Duration,
    /// It is measured.
    pub(crate) measured: Duration,
}

impl Times {
    /// Loopback is warm at once.
    pub(crate) fn of_loopback(measured: Duration) -> Self {
        Self { warm_up: (measured / 5).clamp(Duration::from_millis(50), Duration::from_millis(500)), measured }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_resolved_and_mistakes_explained() {
        assert_eq!(Scenario::parse("bulk1").expect("known")[0].label(), "bulk1");
        let idle: Vec<_> = Scenario::parse("idle").expect("known").iter().map(Scenario::label).collect();
        assert_eq!(idle, ["idle:10000", "idle:100000"]);
        assert_eq!(Scenario::parse("idle:7").expect("known")[0].channels, 7);
        let unread: Vec<_> = Scenario::parse("unread").expect("known").iter().map(Scenario::label).collect();
        assert_eq!(unread, ["unread:1", "unread:64", "unread:1000"]);
        for label in ["pingpong", "pingpong:20", "rr64"] {
            assert_eq!(Scenario::parse(label).expect("known")[0].label(), label);
        }
        for bad in ["", "bulk", "bulk1:3", "idle:0", "idle:x", "rr64:3"] {
            assert!(Scenario::parse(bad).is_err(), "{bad}");
        }
        for name in DEFAULT.iter().chain(QUICK) {
            assert!(Scenario::parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn above_one_is_better_in_every_unit() {
        assert!(Unit::MebibytesPerSecond.ratio(2.0, 1.0) > 1.0);
        assert!(Unit::Microseconds.ratio(10.0, 20.0) > 1.0);
        assert!(Unit::Microseconds99.ratio(10.0, 20.0) > 1.0);
        assert!(Unit::BytesPerChannel.ratio(10.0, 20.0) > 1.0);
    }
}
