//! Exported: bytes through a channel, and the ends of its directions.

use std::ffi::c_void;
use std::io::IoSlice;

use libmux::{WriteFlags, codes};

use crate::abi::{mux_channel, mux_io_flag, mux_iovec, mux_status, mux_status_code};
use crate::boundary;
use crate::channel::Channel;
use crate::deadline::Deadline;
use crate::hub::Side;
use crate::pointer;
use crate::status::Fault;
use crate::world;

/// Pieces that one writev looks at: the rest is a partial transfer, which is normal.
const PIECES: usize = 16;

#[inline]
fn read_flags(flags: u32) -> Result<(), Fault> {
    if flags == 0 { Ok(()) } else { Err(Fault::invalid(format!("flags {flags:#x}: a read has none"))) }
}

#[inline]
fn write_flags(flags: u32) -> Result<WriteFlags, Fault> {
    const FIN: u32 = mux_io_flag::MUX_IO_FIN as u32;
    const MORE: u32 = mux_io_flag::MUX_IO_MORE as u32;
    if flags & !(FIN | MORE) != 0 {
        return Err(Fault::invalid(format!("flags {flags:#x}: MUX_IO_FIN and MUX_IO_MORE are allowed")));
    }
    let fin = if flags & FIN == 0 { WriteFlags::NONE } else { WriteFlags::FIN };
    let more = if flags & MORE == 0 { WriteFlags::NONE } else { WriteFlags::MORE };
    Ok(fin | more)
}

/// The flags of a part that is not the last one.
fn not_last(flags: WriteFlags) -> WriteFlags {
    if flags.contains(WriteFlags::FIN) { WriteFlags::MORE } else { flags }
}

/// Reads what is there, at most len bytes: the count, 0 at the clean end of the stream, which stays the end, or a
/// negative status. flags must be 0, len must not. Bytes that arrived in order before the peer's or the session's end are
/// read first. \[B\]
///
/// MUX_ERESET: the peer abandoned its direction, mux_cause has the code. MUX_EFINISHED: after mux_stop. MUX_ECLOSED and
/// others: the session ended; this is never mistaken for the end of the stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_read(ch: mux_channel, buf: *mut c_void, len: usize, flags: u32, timeout_ms: i32) -> i64 {
    boundary::count(|| {
        // SAFETY: by this function's contract.
        let room = unsafe { pointer::room(buf, len)? };
        read_flags(flags)?;
        let deadline = Deadline::new(timeout_ms)?;
        let channel = world::channel(ch.h)?;
        let count = channel.hub.wait(Some(Side::Recv), deadline, || channel.try_read(room))?;
        Ok(count as i64)
    })
}

/// Writes some of len bytes: the count, or a negative status. A write of nothing is allowed; with MUX_IO_FIN it ends the
/// direction, as mux_finish does. MUX_IO_FIN counts only when all len bytes were taken. What was taken is the library's to
/// deliver; buf is yours again. \[B\]
///
/// MUX_ESTOPPED: the peer asked to stop, mux_cause has the code. MUX_EFINISHED: the direction was ended. MUX_EREFUSED: the
/// peer refused the channel, safe to retry if mux_cause says so. Otherwise why the session ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_write(
    ch: mux_channel,
    buf: *const c_void,
    len: usize,
    flags: u32,
    timeout_ms: i32,
) -> i64 {
    boundary::count(|| {
        // SAFETY: by this function's contract.
        let data = unsafe { pointer::body(buf, len)? };
        let flags = write_flags(flags)?;
        let flags = if pointer::is_cut_at(len) { not_last(flags) } else { flags };
        let deadline = Deadline::new(timeout_ms)?;
        let channel = world::channel(ch.h)?;
        Ok(write(&channel, &[IoSlice::new(data)], flags, deadline)? as i64)
    })
}

#[inline]
fn write(channel: &Channel, bufs: &[IoSlice<'_>], flags: WriteFlags, deadline: Deadline) -> Result<usize, Fault> {
    channel.hub.wait(Some(Side::Send), deadline, || channel.try_write(bufs, flags))
}

/// As mux_read, into n pieces (1 to 1024) in order. \[B\]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_readv(ch: mux_channel, iov: *const mux_iovec, n: i32, flags: u32, timeout_ms: i32) -> i64 {
    boundary::count(|| {
        // SAFETY: by this function's contract.
        let pieces = unsafe { pointer::pieces(iov, n)? };
        read_flags(flags)?;
        let deadline = Deadline::new(timeout_ms)?;
        // SAFETY: by this function's contract, and checked above.
        let mut rooms = pieces.iter().filter_map(|piece| unsafe { pointer::piece_room(piece) }).peekable();
        if rooms.peek().is_none() {
            return Err(Fault::invalid("a read needs room for at least one byte"));
        }
        let channel = world::channel(ch.h)?;
        let mut total = 0;
        channel.hub.wait(Some(Side::Recv), deadline, || {
            while let Some(room) = rooms.peek_mut() {
                // What was read counts; an end or a failure after it is met again by the next call.
                let count = match channel.try_read(room) {
                    Ok(Some(count)) => count,
                    Ok(None) if total == 0 => return Ok(None),
                    Err(fault) if total == 0 => return Err(fault),
                    Ok(None) | Err(_) => break,
                };
                total += count as i64;
                if count < room.len() {
                    break;
                }
                rooms.next();
            }
            Ok(Some(total))
        })
    })
}

/// As mux_write, from n pieces (1 to 1024) in order. \[B\]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_writev(
    ch: mux_channel,
    iov: *const mux_iovec,
    n: i32,
    flags: u32,
    timeout_ms: i32,
) -> i64 {
    boundary::count(|| {
        // SAFETY: by this function's contract.
        let pieces = unsafe { pointer::pieces(iov, n)? };
        let mut flags = write_flags(flags)?;
        let deadline = Deadline::new(timeout_ms)?;
        let mut bufs = [IoSlice::new(&[]); PIECES];
        let mut used = 0;
        // Empty pieces are passed over: they must not take the places of those that have something.
        let mut pieces = pieces.iter().filter(|piece| piece.len > 0);
        for piece in pieces.by_ref().take(PIECES) {
            // SAFETY: by this function's contract, and checked above.
            bufs[used] = unsafe { pointer::piece_body(piece)? };
            used += 1;
            if pointer::is_cut(piece) {
                flags = not_last(flags);
                break;
            }
        }
        if pieces.next().is_some() {
            flags = not_last(flags);
        }
        let channel = world::channel(ch.h)?;
        Ok(write(&channel, &bufs[..used], flags, deadline)? as i64)
    })
}

/// Reads exactly len bytes; timeout_ms covers the whole call. *done, which may be NULL, says how far it got in every case
/// but a bad handle or argument. \[B\]
///
/// MUX_EFINISHED: the stream ended cleanly before len bytes. Otherwise as mux_read.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_read_exact(
    ch: mux_channel,
    buf: *mut c_void,
    len: usize,
    timeout_ms: i32,
    done: *mut usize,
) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let progress = unsafe { pointer::maybe_out(done, "done")? };
        let deadline = Deadline::new(timeout_ms)?;
        let channel = world::channel(ch.h)?;
        let mut total = 0;
        let result = channel.hub.wait(Some(Side::Recv), deadline, || {
            while total < len {
                // SAFETY: by this function's contract; `total` is below `len`, so the sum stays inside.
                let room = unsafe { pointer::room(pointer::skip(buf, total), len - total)? };
                match channel.try_read(room)? {
                    None => return Ok(None),
                    Some(0) => return Err(mux_status_code::MUX_EFINISHED.into()),
                    Some(count) => total += count,
                }
            }
            Ok(Some(()))
        });
        if let Some(progress) = progress {
            progress.write(total);
        }
        result
    })
}

/// Writes all len bytes; timeout_ms covers the whole call. With MUX_IO_FIN data and end travel together. *done, which may
/// be NULL, says how far it got in every case but a bad handle or argument. \[B\]
///
/// As mux_write.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_write_all(
    ch: mux_channel,
    buf: *const c_void,
    len: usize,
    flags: u32,
    timeout_ms: i32,
    done: *mut usize,
) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let progress = unsafe { pointer::maybe_out(done, "done")? };
        let flags = write_flags(flags)?;
        let deadline = Deadline::new(timeout_ms)?;
        let channel = world::channel(ch.h)?;
        let mut total = 0;
        let result = channel.hub.wait(Some(Side::Send), deadline, || {
            loop {
                // SAFETY: by this function's contract; `total` is at most `len`.
                let data = unsafe { pointer::body(pointer::skip(buf.cast_mut(), total), len - total)? };
                let flags = if pointer::is_cut_at(len - total) { not_last(flags) } else { flags };
                match channel.try_write(&[IoSlice::new(data)], flags)? {
                    None => return Ok(None),
                    Some(count) => total += count,
                }
                if total == len {
                    return Ok(Some(()));
                }
            }
        });
        if let Some(progress) = progress {
            progress.write(total);
        }
        result
    })
}

/// Ends my direction: the peer reads everything written, then the end. The other direction goes on. MUX_EFINISHED: it was
/// ended before.
#[unsafe(no_mangle)]
pub extern "C" fn mux_finish(ch: mux_channel) -> mux_status {
    boundary::status(|| world::channel(ch.h)?.finish())
}

/// Abandons my direction: unsent data is dropped and the peer's reads fail with code (0 to 2^62-257, portably 0 to
/// 2^32-1). MUX_EUNSUPPORTED: this session cannot carry the code.
#[unsafe(no_mangle)]
pub extern "C" fn mux_reset(ch: mux_channel, code: u64) -> mux_status {
    boundary::status(|| world::channel(ch.h)?.reset(code))
}

/// Reads no more: what waits is dropped and the peer's writes fail with code. MUX_EUNSUPPORTED: this session cannot tell
/// the peer (MUX_CAP_STOP).
#[unsafe(no_mangle)]
pub extern "C" fn mux_stop(ch: mux_channel, code: u64) -> mux_status {
    boundary::status(|| world::channel(ch.h)?.stop(code))
}

/// Reset, stop and close in one: for error paths. The peer never sees a clean end. Where the session cannot carry the
/// code, or cannot stop the peer, it does what it can. MUX_EINVAL: code out of range, the channel lives on.
#[unsafe(no_mangle)]
pub extern "C" fn mux_abort(ch: mux_channel, code: u64) -> mux_status {
    boundary::status(|| {
        let code = codes::check(code)?;
        // Looked at first, so that a handle of another kind is not closed.
        drop(world::channel(ch.h)?);
        let object = world::world().table.close(ch.h)?;
        if let world::Object::Channel(channel) = &*object {
            channel.abort(code);
        }
        Ok(())
    })
}
