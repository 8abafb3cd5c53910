//! Exported: backends written in C.

use std::ffi::c_void;
use std::sync::Arc;

use libmux::Capabilities;

use crate::abi::{mux_error, mux_status};
use crate::boundary;
use crate::callback::Holding;
use crate::foreign::{Foreign, Registered};
use crate::pointer;
use crate::status::Fault;
use crate::vtable::{mux_backend, mux_backend_flag};
use crate::world::world;

/// The words of a comma list.
fn words(list: &str) -> Vec<&str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()
}

fn is_word(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

fn check_scheme(scheme: &str) -> Result<(), Fault> {
    let parts: Vec<&str> = scheme.split('+').collect();
    if parts.len() <= 2 && parts.iter().all(|part| is_word(part)) {
        return Ok(());
    }
    Err(Fault::invalid(format!("scheme '{scheme}': a word of a-z and 0-9 is allowed, or two with a plus")))
}

/// The functions that a backend must have, by name.
fn check_functions(b: &mux_backend) -> Result<(), Fault> {
    let there = [
        ("dial", b.dial.is_some()),
        ("listen", b.listen.is_some()),
        ("accept", b.accept.is_some()),
        ("listener_close", b.listener_close.is_some()),
        ("open", b.open.is_some()),
        ("incoming", b.incoming.is_some()),
        ("session_drain", b.session_drain.is_some()),
        ("session_close", b.session_close.is_some()),
        ("session_abort", b.session_abort.is_some()),
        ("read", b.read.is_some()),
        ("write", b.write.is_some()),
        ("reset", b.reset.is_some()),
        ("stop", b.stop.is_some()),
        ("ready", b.ready.is_some()),
        ("cause", b.cause.is_some()),
        ("info", b.info.is_some()),
        ("listener_free", b.listener_free.is_some()),
        ("session_free", b.session_free.is_some()),
        ("channel_free", b.channel_free.is_some()),
    ];
    match there.iter().find(|(_, there)| !there) {
        Some((name, _)) => Err(Fault::invalid(format!("mux_backend lacks {name}, which is not optional"))),
        None => Ok(()),
    }
}

fn check_caps(b: &mux_backend) -> Result<(), Fault> {
    let known = Capabilities::NAMES.iter().fold(0, |all, (cap, _)| all | cap.bits());
    if b.caps & !known != 0 {
        return Err(Fault::invalid(format!(
            "caps {:#x}: bits of enum mux_cap are allowed, which are {known:#x}",
            b.caps
        )));
    }
    let datagrams = Capabilities::from_bits(b.caps).contains(Capabilities::DATAGRAM);
    if datagrams && (b.datagram_send.is_none() || b.datagram_recv.is_none()) {
        return Err(Fault::invalid("MUX_CAP_DATAGRAM needs datagram_send and datagram_recv"));
    }
    Ok(())
}

/// Adds a backend of the application's own: from now on its schemes can be dialed and listened on, by every function that
/// takes a URL. b is copied; what its functions are called with, and when, stands at struct mux_backend. There is no way to
/// take it back: its code and ctx live as long as the process. err may be NULL.
///
/// MUX_EINVAL: a function that is missing, a malformed scheme, unknown bits. MUX_ESTATE: a scheme is registered already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_backend_register(
    b: *const mux_backend,
    ctx: *mut c_void,
    err: *mut mux_error,
) -> mux_status {
    // SAFETY: by this function's contract, here and below.
    unsafe {
        boundary::status_with(err, || {
            let b = pointer::options(b, "the mux_backend")?.ok_or_else(|| Fault::invalid("b is NULL"))?;
            let tls = mux_backend_flag::MUX_BACKEND_TLS as u32;
            if b.flags & !tls != 0 {
                return Err(Fault::invalid(format!("flags {:#x}: MUX_BACKEND_TLS is allowed", b.flags)));
            }
            let schemes = words(pointer::text(b.schemes, "schemes")?);
            let options = if b.options.is_null() { Vec::new() } else { words(pointer::text(b.options, "options")?) };
            if schemes.is_empty() {
                return Err(Fault::invalid("schemes names none"));
            }
            schemes.iter().try_for_each(|scheme| check_scheme(scheme))?;
            check_functions(&b)?;
            check_caps(&b)?;
            let foreign = Foreign::new(b, ctx, &schemes, &options, b.flags == tls);
            libmux::registry().register(Arc::new(Registered(Box::leak(Box::new(foreign)))))?;
            Ok(())
        })
    }
}

/// Says that what a function of a backend answered with MUX_AGAIN, or did not report as ready, can be asked again: the events
/// (enum mux_event_bit) that may hold now for the listener, session or channel of this cookie. MUX_EV_CLOSED counts for everything
/// that waits there, and of a session for its channels too. May be called too often, at any time, from anywhere, also with
/// locks held that the backend's functions take, and from within them: nothing of the backend or the application is called before
/// it returns.
///
/// MUX_EHANDLE: the object was freed, or never came to be; harmless. MUX_EINVAL: events that its kind does not have.
#[unsafe(no_mangle)]
pub extern "C" fn mux_backend_ready(cookie: u64, events: u32) -> mux_status {
    boundary::status(|| {
        let holding = Holding::new();
        let wakers = world().cookies.pin(cookie)?;
        let known = wakers.events();
        if events == 0 || events & !known != 0 {
            return Err(Fault::invalid(format!("events {events:#x}: this kind of object has {known:#x}")));
        }
        wakers.ready(events);
        let due = holding.take();
        if !due.is_empty() {
            wakers.runtime.spawn(async move { due.iter().for_each(|queue| queue.announce_now()) });
        }
        Ok(())
    })
}
