//! Exported: sessions and how channels come to be.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use bytes::Bytes;
use libmux::{OpenOptions, Priority};

use crate::abi::{mux_channel, mux_handle, mux_open_opts, mux_session, mux_status, mux_status_code};
use crate::boundary;
use crate::channel::Channel;
use crate::deadline::Deadline;
use crate::hub::Side;
use crate::pointer;
use crate::session::Session;
use crate::status::Fault;
use crate::world::{self, Object};

/// What every session of a scheme ("qmux", "qmux+unix") can do with a libmux peer: bits of enum mux_cap.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_scheme_caps(scheme: *const c_char, caps: *mut u64) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let (scheme, out) = unsafe { (pointer::text(scheme, "scheme")?, pointer::out(caps, "caps")?) };
        out.write(libmux::registry().scheme(scheme)?.capabilities.bits());
        Ok(())
    })
}

/// What this session can do, as negotiated with this peer. MUX_ESTATE: it is not connected yet.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_session_caps(s: mux_session, caps: *mut u64) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let out = unsafe { pointer::out(caps, "caps")? };
        out.write(world::session(s.h)?.connected_session()?.capabilities().bits());
        Ok(())
    })
}

/// Refuses new channels from now on, safe for the peer to retry elsewhere, and lets the old ones finish.
#[unsafe(no_mangle)]
pub extern "C" fn mux_session_drain(s: mux_session) -> mux_status {
    boundary::status(|| {
        world::session(s.h)?.connected_session()?.drain();
        Ok(())
    })
}

/// Begins the end of a session or listener; the handle stays. A session flushes what was finished, resets the rest and
/// tells the peer code and reason (UTF-8, may be NULL); MUX_EV_CLOSED says that it is over. mux_close alone does the same
/// in the background. A listener stops listening, its sessions live on.
///
/// MUX_EINVAL: a code of 2^62-256 or above. MUX_ETOOBIG: a reason of more than 1024 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_shutdown(h: mux_handle, code: u64, reason: *const c_char) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let reason = if reason.is_null() { "" } else { unsafe { pointer::text(reason, "reason")? } };
        match &*world::pin(h)? {
            Object::Session(session) => session.shut_down(code, reason),
            Object::Listener(listener) => {
                listener.stop();
                Ok(())
            }
            _ => Err(mux_status_code::MUX_EKIND.into()),
        }
    })
}

/// Measures the round trip to the peer's library, in microseconds. \[B\]
///
/// MUX_EUNSUPPORTED: the wire has no ping. MUX_ESTATE: not connected yet. Otherwise why the session ended.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_ping(s: mux_session, timeout_ms: i32, rtt_us: *mut u64) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let out = unsafe { pointer::maybe_out(rtt_us, "rtt_us")? };
        let deadline = Deadline::new(timeout_ms)?;
        let rtt = world::session(s.h)?.ping(deadline)?;
        if let Some(out) = out {
            out.write(rtt.as_micros().try_into().unwrap_or(u64::MAX));
        }
        Ok(())
    })
}

/// Sends a message that may be lost, or overtake others, of at most MUX_INFO_MAX_DATAGRAM bytes.
///
/// MUX_EUNSUPPORTED: the session has no datagrams. MUX_ETOOBIG: it is too long for the path.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_datagram_send(s: mux_session, buf: *const c_void, len: usize) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let data = unsafe { pointer::bytes(buf, len, "buf")? };
        world::session(s.h)?.send_datagram(data)
    })
}

/// Takes the next message: its length, which may be 0, or a negative status. \[B\]
///
/// MUX_ETOOBIG: it is longer than cap, and waits for a call with more room. MUX_EUNSUPPORTED: the session has no datagrams.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_datagram_recv(s: mux_session, buf: *mut c_void, cap: usize, timeout_ms: i32) -> i64 {
    boundary::count(|| {
        if buf.is_null() && cap > 0 {
            return Err(Fault::invalid("buf is NULL"));
        }
        let deadline = Deadline::new(timeout_ms)?;
        let session = world::session(s.h)?;
        session.hub.wait(Some(Side::Recv), deadline, || {
            session.try_datagram(|data| {
                if data.len() > cap {
                    let message = format!("the datagram has {} bytes, there is room for {cap}", data.len());
                    return Err(Fault::Said(mux_status_code::MUX_ETOOBIG, message));
                }
                // SAFETY: by this function's contract.
                unsafe { pointer::copy_out(data, false, buf, cap) }
            })
        })
    })
}

/// Urgency 0 is the default, else that of RFC 9218 plus 1.
fn priority(urgency: u32, incremental: u32) -> Result<Priority, Fault> {
    if urgency > 8 || incremental > 1 {
        let message =
            format!("urgency {urgency}, incremental {incremental}: 0 (default) or 1 to 8, and 0 or 1, are allowed");
        return Err(Fault::invalid(message));
    }
    match urgency {
        0 => Ok(Priority::default()),
        _ => Ok(Priority::new(urgency as u8 - 1, incremental == 1)?),
    }
}

fn hand_out(session: &Arc<Session>, channel: libmux::Channel) -> Result<mux_channel, Fault> {
    let channel = Channel::new(Arc::clone(session), channel);
    Ok(mux_channel { h: world::insert(Object::Channel(channel))? })
}

/// Opens a channel, which can be written at once and which the peer sees even if nothing is written. opts may be NULL.
/// Waits while the session connects and while the peer's open credit is used up. \[B\]
///
/// MUX_EUNSUPPORTED: a label on a session without labels. MUX_ETOOBIG: it is too long. MUX_EGOAWAY: the peer takes no new
/// channels. MUX_ELIMIT: no memory budget for another one. Otherwise why the session ended.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_channel_open(
    s: mux_session,
    opts: *const mux_open_opts,
    timeout_ms: i32,
    out: *mut mux_channel,
) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let (opts, out) = unsafe { (pointer::options(opts, "opts")?, pointer::out(out, "out")?) };
        let mut options = OpenOptions::new();
        if let Some(opts) = &opts {
            if opts.flags != 0 {
                return Err(Fault::invalid("flags of an open must be 0"));
            }
            // SAFETY: by this function's contract.
            let label = unsafe { pointer::bytes(opts.label, opts.label_len, "label")? };
            options = options.label(Bytes::copy_from_slice(label)).priority(priority(opts.urgency, opts.incremental)?);
        }
        let deadline = Deadline::new(timeout_ms)?;
        let session = world::session(s.h)?;
        let channel = session.hub.wait(Some(Side::Send), deadline, || session.try_open(&options))?;
        out.write(hand_out(&session, channel)?);
        Ok(())
    })
}

/// Takes the next channel that the peer opened. Channels that arrived before the session's end come first. \[B\]
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_channel_accept(s: mux_session, timeout_ms: i32, out: *mut mux_channel) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let out = unsafe { pointer::out(out, "out")? };
        let deadline = Deadline::new(timeout_ms)?;
        let session = world::session(s.h)?;
        let channel = session.hub.wait(Some(Side::Recv), deadline, || session.try_accept())?;
        out.write(hand_out(&session, channel)?);
        Ok(())
    })
}

/// Takes up to max channels that wait, without waiting for more: the count, 0 if none, or a negative status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_channel_accept_many(s: mux_session, out: *mut mux_channel, max: i32) -> i64 {
    boundary::count(|| {
        // SAFETY: by this function's contract.
        let out = unsafe { pointer::outs(out, max, "out")? };
        let session = world::session(s.h)?;
        let mut count = 0;
        for place in out {
            // What was taken counts; a failure is met again by the next call.
            match session.try_accept() {
                Ok(Some(channel)) => place.write(hand_out(&session, channel)?),
                Ok(None) => break,
                Err(fault) if count == 0 => return Err(fault),
                Err(_) => break,
            };
            count += 1;
        }
        Ok(count)
    })
}

/// Changes how urgent a channel is beside others: a hint. urgency and incremental as in mux_open_opts.
#[unsafe(no_mangle)]
pub extern "C" fn mux_channel_set_priority(ch: mux_channel, urgency: u32, incremental: u32) -> mux_status {
    boundary::status(|| {
        let priority = priority(urgency, incremental)?;
        world::channel(ch.h)?.set_priority(priority)
    })
}

/// Ends the life of a handle, whatever its kind; never blocks. Calls that sleep on it return MUX_ECLOSED.
///
/// A channel finishes what was written in the background and stops receiving with code 0. A session lets finished
/// channels flush first, at most MUX_CFG_LINGER_MS; its channels end, but their handles are yours to close, in any order.
/// A listener stops. A queue forgets its watches and its fd is closed. Of a configuration or runtime nothing is taken
/// from what was made with it. On an error path use mux_abort, so that the peer does not see a clean end.
///
/// MUX_EHANDLE: closed before; harmless.
#[unsafe(no_mangle)]
pub extern "C" fn mux_close(h: mux_handle) -> mux_status {
    boundary::status(|| {
        world::world().table.close(h)?.end();
        Ok(())
    })
}
