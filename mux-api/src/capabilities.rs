//! What a session can do: asked, never guessed.

use std::fmt;
use std::ops::BitOr;

/// A set of abilities. Of a scheme: what it can do with a libmux peer. Of a session: what was negotiated with this one.
///
/// What a session cannot do is an [`Unsupported`](crate::ErrorKind::Unsupported) error, never a silent no-op; the only
/// exception is priority, which is a hint. The bits are those of the C API's `enum mux_cap`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(u64);

impl Capabilities {
    /// One direction can end while the other goes on.
    pub const HALF_CLOSE: Self = Self(1);
    /// Resets carry the application's code.
    pub const RESET_CODE: Self = Self(2);
    /// The receiver can ask the sender to stop.
    pub const STOP: Self = Self(4);
    /// A reset can be told from a clean end.
    pub const RESET_VISIBLE: Self = Self(8);
    /// The peer is told a channel's urgency.
    pub const PRIORITY: Self = Self(16);
    /// Channels may be opened with a label.
    pub const LABEL: Self = Self(32);
    /// The peer confirms an open, so that `opened()` means something.
    pub const OPENED: Self = Self(64);
    /// Unreliable messages beside the channels.
    pub const DATAGRAM: Self = Self(128);
    /// A lost packet delays only the channels whose bytes it carried.
    pub const NO_HOL: Self = Self(256);
    /// The session survives a change of address.
    pub const MIGRATION: Self = Self(512);
    /// The end of the session can be announced, with code and reason.
    pub const GOAWAY: Self = Self(1024);
    /// The end of a direction is known to have reached the peer's transport.
    pub const ACKED: Self = Self(2048);
    /// The accepting side of the session may open channels too.
    pub const SERVER_OPEN: Self = Self(4096);

    /// The set without any ability.
    pub const fn none() -> Self {
        Self(0)
    }

    /// The set with these bits; unknown bits are kept.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The set as the C API's bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all abilities of `other` are in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together, in constants.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the abilities of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Each known ability with its name, in the order of the bits.
    pub const NAMES: [(Self, &'static str); 13] = [
        (Self::HALF_CLOSE, "half-close"),
        (Self::RESET_CODE, "reset-code"),
        (Self::STOP, "stop"),
        (Self::RESET_VISIBLE, "reset-visible"),
        (Self::PRIORITY, "priority"),
        (Self::LABEL, "label"),
        (Self::OPENED, "opened"),
        (Self::DATAGRAM, "datagram"),
        (Self::NO_HOL, "no-hol"),
        (Self::MIGRATION, "migration"),
        (Self::GOAWAY, "goaway"),
        (Self::ACKED, "acked"),
        (Self::SERVER_OPEN, "server-open"),
    ];
}

impl BitOr for Capabilities {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

/// The names of the abilities, separated by spaces.
impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (_, name) in Self::NAMES.iter().filter(|(cap, _)| self.contains(*cap)) {
            if !first {
                f.write_str(" ")?;
            }
            first = false;
            f.write_str(name)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Capabilities({self})")
    }
}
