//! timeout_ms of the C API.

use std::time::{Duration, Instant};

use crate::abi::{MUX_FOREVER, MUX_NOWAIT, mux_status_code};
use crate::callback;
use crate::status::Fault;

/// How long a call may still wait. The clock is read when the call first has to wait: one that need not pays nothing.
#[derive(Clone, Debug)]
pub(crate) enum Deadline {
    Never,
    NoWait,
    In(Duration),
    At(Instant),
}

impl Deadline {
    #[inline]
    pub(crate) fn new(timeout_ms: i32) -> Result<Self, Fault> {
        match timeout_ms {
            MUX_NOWAIT => Ok(Self::NoWait),
            MUX_FOREVER.. => Self::waiting(timeout_ms),
            _ => Err(Fault::invalid(format!("timeout_ms is {timeout_ms}; -1 (no limit), 0 and above are allowed"))),
        }
    }

    fn waiting(timeout_ms: i32) -> Result<Self, Fault> {
        callback::may_wait()?;
        match timeout_ms {
            MUX_FOREVER => Ok(Self::Never),
            _ => Ok(Self::In(Duration::from_millis(u64::from(timeout_ms.unsigned_abs())))),
        }
    }

    pub(crate) fn may_block(&self) -> bool {
        !matches!(self, Self::NoWait)
    }

    /// The time that is left, `None` without limit; MUX_AGAIN or MUX_TIMEDOUT when there is none.
    pub(crate) fn remaining(&mut self) -> Result<Option<Duration>, Fault> {
        if let Self::In(limit) = self {
            *self = Self::At(Instant::now() + *limit);
        }
        match self {
            Self::Never => Ok(None),
            Self::At(end) => match end.saturating_duration_since(Instant::now()) {
                Duration::ZERO => Err(mux_status_code::MUX_TIMEDOUT.into()),
                left => Ok(Some(left)),
            },
            Self::NoWait | Self::In(_) => Err(mux_status_code::MUX_AGAIN.into()),
        }
    }
}
