//! Exported: waiting for one object, and for many by a queue.

use std::ffi::c_void;

use crate::abi::{mux_channel, mux_event, mux_event_bit, mux_fd, mux_handle, mux_queue, mux_runtime, mux_status};
use crate::abi::{mux_status_code, mux_wake_fn, mux_watch_mode};
use crate::boundary;
use crate::deadline::Deadline;
use crate::hub::{SIDES, Side};
use crate::pointer;
use crate::queue::{Queue, Waitable};
use crate::runtime::Runtime;
use crate::status::Fault;
use crate::world::{self, Object, QueueHandle};

const CLOSED: u32 = mux_event_bit::MUX_EV_CLOSED as u32;

/// Checks what an application wants to wait for.
fn check(object: &dyn Waitable, events: u32) -> Result<(), Fault> {
    let [recv, send] = object.sides();
    let known = recv | send | CLOSED;
    if events == 0 || events & !known != 0 {
        return Err(Fault::invalid(format!(
            "events {events:#x}: this kind of handle has {known:#x}, at least one is needed"
        )));
    }
    object.check(events)
}

/// The sides that events belong to. The end alone rides on the side that every kind has.
fn sides_of(object: &dyn Waitable, events: u32) -> impl Iterator<Item = Side> {
    let sides = object.sides();
    let only_closed = events == CLOSED;
    let default = if sides[Side::Send as usize] == 0 { Side::Recv } else { Side::Send };
    SIDES.into_iter().filter(move |side| events & sides[*side as usize] != 0 || (only_closed && *side == default))
}

/// Waits until one of the events (enum mux_event_bit) holds; *ready, which may be NULL, says which do. MUX_EV_CLOSED is
/// always among those waited for. Takes nothing: read, write and accept do. \[B\]
///
/// MUX_EUNSUPPORTED: MUX_EV_OPENED on a session without MUX_CAP_OPENED.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_wait(h: mux_handle, events: u32, timeout_ms: i32, ready: *mut u32) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let out = unsafe { pointer::maybe_out(ready, "ready")? };
        let deadline = Deadline::new(timeout_ms)?;
        let object = world::pin(h)?;
        let object = object.waitable().ok_or(mux_status_code::MUX_EKIND)?;
        check(object, events)?;
        let ready = object.hub().wait(None, deadline, || {
            let ready = sides_of(object, events).fold(0, |ready, side| ready | object.ready(side, events));
            Ok((ready != 0).then_some(ready))
        })?;
        if let Some(out) = out {
            out.write(ready);
        }
        Ok(())
    })
}

/// Makes blocking calls on a listener, session, channel or queue return MUX_CANCELED, those that sleep now and those to
/// come, until mux_resume. Calls with timeout 0 are not affected.
#[unsafe(no_mangle)]
pub extern "C" fn mux_interrupt(h: mux_handle) -> mux_status {
    boundary::status(|| {
        let object = world::pin(h)?;
        match (&*object, object.waitable()) {
            (Object::Queue(queue), _) => queue.0.interrupt(),
            (_, Some(object)) => object.hub().interrupt(),
            _ => return Err(mux_status_code::MUX_EKIND.into()),
        }
        Ok(())
    })
}

/// Undoes mux_interrupt.
#[unsafe(no_mangle)]
pub extern "C" fn mux_resume(h: mux_handle) -> mux_status {
    boundary::status(|| {
        let object = world::pin(h)?;
        match (&*object, object.waitable()) {
            (Object::Queue(queue), _) => queue.0.resume(),
            (_, Some(object)) => object.hub().resume(),
            _ => return Err(mux_status_code::MUX_EKIND.into()),
        }
        Ok(())
    })
}

/// Makes a readiness queue. Which runtime drives what it watches does not matter; rt must be 0 or a live runtime.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_queue_new(rt: mux_runtime, out: *mut mux_queue) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let out = unsafe { pointer::out(out, "out")? };
        if rt.h != 0 {
            Runtime::of(rt)?;
        }
        let queue = QueueHandle(std::sync::Arc::new(Queue::new()));
        out.write(mux_queue { h: world::insert(Object::Queue(queue))? });
        Ok(())
    })
}

/// A descriptor that is readable while mux_queue_next has something to do, for poll, epoll and event loops. It stays the
/// queue's: do not read, write or close it. An edge-triggered poller calls mux_queue_next until it returns less than max.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_queue_fd(q: mux_queue, out: *mut mux_fd) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let out = unsafe { pointer::out(out, "out")? };
        out.write(world::queue(q.h)?.0.fd()?);
        Ok(())
    })
}

/// Has the queue report a listener, session or channel when one of the events holds, now or later: the order of "try, get
/// MUX_AGAIN, watch" loses nothing. The receive side (ACCEPT, READ) and the send side (CONNECTED, OPEN, WRITE, DRAINED,
/// OPENED) are watched apart, each by one queue at most: a watch replaces the earlier one of the sides it names.
/// MUX_EV_CLOSED is always reported. mode is enum mux_watch_mode; user comes back in mux_event.
#[unsafe(no_mangle)]
pub extern "C" fn mux_watch(q: mux_queue, h: mux_handle, events: u32, mode: u32, user: u64) -> mux_status {
    boundary::status(|| {
        let level = match mode {
            _ if mode == mux_watch_mode::MUX_WATCH_ONESHOT as u32 => false,
            _ if mode == mux_watch_mode::MUX_WATCH_LEVEL as u32 => true,
            _ => return Err(Fault::invalid(format!("mode {mode} is not in enum mux_watch_mode"))),
        };
        let queue = world::queue(q.h)?;
        let object = world::pin(h)?;
        let object = object.waitable().ok_or(mux_status_code::MUX_EKIND)?;
        check(object, events)?;
        for side in sides_of(object, events) {
            queue.0.watch(object, side, events, level, user);
        }
        Ok(())
    })
}

/// Ends what this queue watches of a handle: no later mux_queue_next returns it. One that runs in another thread at this
/// moment still may.
#[unsafe(no_mangle)]
pub extern "C" fn mux_unwatch(q: mux_queue, h: mux_handle) -> mux_status {
    boundary::status(|| {
        let queue = world::queue(q.h)?;
        let object = world::pin(h)?;
        let object = object.waitable().ok_or(mux_status_code::MUX_EKIND)?;
        object.hub().unwatch_from(&queue.0);
        Ok(())
    })
}

/// How many bytes must wait, or be writable, before a channel is reported as ready; what can never be reached counts as
/// all there can be. 0 means 1, the default. An end or a failure is always reported.
#[unsafe(no_mangle)]
pub extern "C" fn mux_watch_low_water(ch: mux_channel, read_min: usize, write_min: usize) -> mux_status {
    boundary::status(|| {
        world::channel(ch.h)?.set_low_water(read_min, write_min);
        Ok(())
    })
}

/// Takes up to max events: the count, 0 after mux_queue_wake, or a negative status. A reported watch of mode ONESHOT is
/// over; one of mode LEVEL comes again while it holds. Readiness may be spurious, it is never missed. \[B\]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_queue_next(q: mux_queue, out: *mut mux_event, max: i32, timeout_ms: i32) -> i64 {
    boundary::count(|| {
        // SAFETY: by this function's contract.
        let out = unsafe { pointer::outs(out, max, "out")? };
        let deadline = Deadline::new(timeout_ms)?;
        let queue = world::queue(q.h)?;
        let max = out.len();
        let mut places = out.iter_mut();
        queue.0.next(max, deadline, |event| {
            if let Some(place) = places.next() {
                place.write(event);
            }
        })
    })
}

/// Makes one mux_queue_next return 0, one that sleeps or the next to come. \[S\] as long as no other thread closes the queue
/// at that moment.
#[unsafe(no_mangle)]
pub extern "C" fn mux_queue_wake(q: mux_queue) -> mux_status {
    boundary::status(|| {
        world::queue(q.h)?.0.wake();
        Ok(())
    })
}

/// Has a function called when the queue's list becomes non-empty, for event loops that take no descriptor: once each time,
/// from any thread, with no lock held. It should do no more than wake the loop (uv_async_send, PostMessage), which then calls
/// mux_queue_next until it returns less than max; with watches of mode ONESHOT, because LEVEL ones never run out. NULL ends it.
/// Returns when an earlier function runs no more, so that its ctx may be freed. mux_queue_wake does not call it.
///
/// MUX_EREENTRANT: from within a callback.
#[unsafe(no_mangle)]
pub extern "C" fn mux_queue_set_waker(q: mux_queue, function: mux_wake_fn, ctx: *mut c_void) -> mux_status {
    boundary::status(|| world::queue(q.h)?.0.set_waker(function, ctx))
}
