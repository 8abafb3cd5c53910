//! Exported: reading without a copy. The slices of one read belong to a handle until it is released.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes};

use crate::abi::{mux_borrow, mux_channel, mux_iovec, mux_status, mux_status_code};
use crate::boundary;
use crate::channel::Channel;
use crate::deadline::Deadline;
use crate::hub::Side;
use crate::pointer;
use crate::status::Fault;
use crate::world::{self, Object};

/// The most that one borrow holds: what is lent is charged to nobody's window any more.
const MOST: usize = 256 * 1024;

/// Slices that the application reads.
pub(crate) struct Borrow {
    channel: Arc<Channel>,
    slices: Vec<Bytes>,
    ended: AtomicBool,
}

impl Borrow {
    /// Gives the slices back, of which the first `consumed` bytes were used.
    fn release(&self, consumed: usize) {
        if self.ended.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut left = consumed;
        let rest = self.slices.iter().filter_map(|slice| {
            let used = left.min(slice.len());
            left -= used;
            let mut slice = slice.clone();
            slice.advance(used);
            (!slice.is_empty()).then_some(slice)
        });
        self.channel.give_back(rest.collect());
    }

    /// The handle was closed: everything counts as used.
    pub(crate) fn end(&self) {
        self.release(usize::MAX);
    }

    fn len(&self) -> usize {
        self.slices.iter().map(Bytes::len).sum()
    }
}

/// Reads what is there without copying it: fills in up to *n slices (at most 1024), sets *n to their number, and returns
/// their bytes together, at most 256 KiB; 0 at the clean end, with nothing lent. The slices may be read until *out is released,
/// also if the channel is closed meanwhile. Until then every other read of the channel is MUX_ESTATE. [B]
///
/// Errors as of mux_read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_read_borrow(
    ch: mux_channel,
    iov: *mut mux_iovec,
    n: *mut i32,
    timeout_ms: i32,
    out: *mut mux_borrow,
) -> i64 {
    boundary::count(|| {
        // SAFETY: by this function's contract.
        let (places, out) = unsafe { (pointer::places(iov, n)?, pointer::out(out, "out")?) };
        let (iov, n) = places;
        let deadline = Deadline::new(timeout_ms)?;
        let channel = world::channel(ch.h)?;
        let slices = channel.hub.wait(Some(Side::Recv), deadline, || channel.try_borrow(iov.len(), MOST))?;
        if slices.is_empty() {
            n.write(0);
            return Ok(0);
        }
        let borrow = Borrow { channel: Arc::clone(&channel), slices, ended: AtomicBool::new(false) };
        let borrow = Arc::new(borrow);
        let kept = Arc::clone(&borrow);
        // Bytes that nobody could be given stay the channel's.
        let h = world::insert(Object::Borrow(borrow)).inspect_err(|_| kept.release(0))?;
        for (place, slice) in iov.iter_mut().zip(&kept.slices) {
            place.write(mux_iovec { base: slice.as_ptr().cast_mut().cast(), len: slice.len() });
        }
        n.write(kept.slices.len() as i32);
        out.write(mux_borrow { h });
        Ok(kept.len() as i64)
    })
}

/// Gives slices back; the handle is dead afterwards. The first consumed bytes of them were used, the next read begins
/// behind. mux_close does the same with all of them.
///
/// MUX_EINVAL: more than was lent; nothing has changed.
#[unsafe(no_mangle)]
pub extern "C" fn mux_borrow_release(b: mux_borrow, consumed: usize) -> mux_status {
    boundary::status(|| {
        let lent = world::borrow(b.h)?.len();
        if consumed > lent {
            return Err(Fault::invalid(format!("consumed is {consumed}; {lent} bytes were lent")));
        }
        let object = world::world().table.close(b.h)?;
        match &*object {
            Object::Borrow(borrow) => borrow.release(consumed),
            _ => return Err(mux_status_code::MUX_EKIND.into()),
        }
        Ok(())
    })
}
