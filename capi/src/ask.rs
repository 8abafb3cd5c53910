//! Exported: questions. Version, why something ended, facts, counters.

use std::ffi::{CString, c_char, c_void};
use std::sync::OnceLock;

use libmux::{Error, SessionInfo};

use crate::abi::{
    mux_channel, mux_direction, mux_error, mux_handle, mux_info_key, mux_stats, mux_status, mux_status_code,
};
use crate::boundary;
use crate::hub::Side;
use crate::pointer;
use crate::session::Session;
use crate::status::{self, Fault};
use crate::world::{self, Object, world};

const fn number(text: &str) -> u32 {
    let mut value = 0;
    let mut at = 0;
    while at < text.len() {
        value = value * 10 + (text.as_bytes()[at] - b'0') as u32;
        at += 1;
    }
    value
}

const VERSION: u32 = number(env!("CARGO_PKG_VERSION_MAJOR")) << 16
    | number(env!("CARGO_PKG_VERSION_MINOR")) << 8
    | number(env!("CARGO_PKG_VERSION_PATCH"));

/// major << 16 | minor << 8 | patch. \[S\]
#[unsafe(no_mangle)]
pub extern "C" fn mux_version() -> u32 {
    VERSION
}

/// The number of libmux.so.0.
const SONAME: u32 = 0;

/// The ABI: number of the soname << 16 | number of its newest node of symbols, 1 of MUX_0.1. Within a soname a larger one has
/// everything that a smaller one had, from 1.0 on. \[S\]
#[unsafe(no_mangle)]
pub extern "C" fn mux_abi() -> u32 {
    SONAME << 16 | number(env!("CARGO_PKG_VERSION_MINOR"))
}

/// A static text: version and schemes.
#[unsafe(no_mangle)]
pub extern "C" fn mux_build_info() -> *const c_char {
    static TEXT: OnceLock<CString> = OnceLock::new();
    TEXT.get_or_init(|| {
        let schemes: Vec<&str> = libmux::registry().schemes().iter().map(|scheme| scheme.name).collect();
        let mut text = format!("libmux {}; schemes: {}", env!("CARGO_PKG_VERSION"), schemes.join(" "));
        if let Some(commit) = option_env!("MUX_COMMIT") {
            text.push_str("; commit ");
            text.push_str(commit);
        }
        CString::new(text).unwrap_or_default()
    })
    .as_ptr()
}

/// Why an object failed or ended: the first cause, for ever. Returns its status and fills out, which may be NULL; MUX_OK
/// while it lives, and for a channel whose directions both ended cleanly. A channel's is its own failure if it had one,
/// else why its session ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_cause(h: mux_handle, out: *mut mux_error) -> mux_status {
    let find = || match &*world::pin(h)? {
        Object::Session(session) => Ok(session.cause()),
        Object::Channel(channel) => Ok(channel.cause()),
        Object::Listener(listener) => Ok(listener.has_stopped().then(Error::closed_locally)),
        Object::Runtime(_) | Object::Config(_) | Object::Queue(_) | Object::Borrow(_) => {
            Err(mux_status_code::MUX_EKIND.into())
        }
    };
    // SAFETY: by this function's contract.
    unsafe { tell_cause(out, find) }
}

/// Tells what was found: its status, or that of a failure to look.
///
/// # Safety
/// `out` is null or points to a `mux_error` of the size it says.
unsafe fn tell_cause(out: *mut mux_error, find: impl FnOnce() -> Result<Option<Error>, Fault>) -> mux_status {
    let mut cause = None;
    let asked = boundary::status(|| {
        // SAFETY: by this function's contract.
        let mut place = unsafe { pointer::error(out)? };
        let found = find()?;
        let detail = found.map_or_else(status::nothing_failed, |error| Fault::Error(error).detail());
        if let Some(place) = &mut place {
            place.write(&detail);
        }
        cause = Some(detail.status);
        Ok(())
    });
    cause.unwrap_or(asked)
}

/// Why one direction (enum mux_direction) of a channel failed, which mux_cause no longer tells when the other one failed before:
/// returns its status and fills out, which may be NULL; MUX_OK while it lives and after a clean end. Where the direction has
/// no failure of its own, why the session ended.
///
/// MUX_EINVAL: another direction.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_channel_cause(ch: mux_channel, direction: u32, out: *mut mux_error) -> mux_status {
    let side = match direction {
        _ if direction == mux_direction::MUX_RECEIVING as u32 => Ok(Side::Recv),
        _ if direction == mux_direction::MUX_SENDING as u32 => Ok(Side::Send),
        _ => Err(Fault::invalid(format!("direction {direction}: MUX_RECEIVING and MUX_SENDING are allowed"))),
    };
    // SAFETY: by this function's contract.
    unsafe { tell_cause(out, || Ok(world::channel(ch.h)?.cause_of(side?))) }
}

enum Fact {
    Text(String),
    Bytes(Vec<u8>),
}

fn fact(object: &Object, key: u32) -> Result<Fact, Fault> {
    type Key = mux_info_key;
    let is = |known: Key| key == known as u32;
    if !(Key::MUX_INFO_KIND as u32..=Key::MUX_INFO_MAX_DATAGRAM as u32).contains(&key) {
        return Err(Fault::invalid(format!("key {key} is not in enum mux_info_key")));
    }
    if is(Key::MUX_INFO_KIND) {
        return Ok(Fact::Bytes(u32::from(object.kind()).to_ne_bytes().to_vec()));
    }
    match object {
        Object::Session(session) if is(Key::MUX_INFO_MAX_DATAGRAM) => {
            let most = session.connected_session()?.max_datagram().unwrap_or(0);
            Ok(Fact::Bytes((most as u64).to_ne_bytes().to_vec()))
        }
        Object::Listener(listener) if is(Key::MUX_INFO_URL) => Ok(Fact::Text(listener.url().to_owned())),
        Object::Channel(channel) if is(Key::MUX_INFO_CHANNEL_ID) => Ok(Fact::Bytes(channel.id.to_ne_bytes().to_vec())),
        Object::Channel(channel) if is(Key::MUX_INFO_LABEL) => Ok(Fact::Bytes(channel.label.to_vec())),
        Object::Channel(channel) if is(Key::MUX_INFO_PARENT) => {
            Ok(Fact::Bytes(channel.session.hub.handle().to_ne_bytes().to_vec()))
        }
        Object::Channel(channel) => of_session(&channel.session, key),
        Object::Session(session) => of_session(session, key),
        _ => Err(Fault::invalid(format!("key {key} does not apply to this kind of handle"))),
    }
}

fn of_session(session: &Session, key: u32) -> Result<Fact, Fault> {
    type Key = mux_info_key;
    if key == Key::MUX_INFO_URL as u32 {
        return Ok(Fact::Text(session.url().to_owned()));
    }
    let connected = session.connected_session()?;
    let info: &SessionInfo = connected.info();
    let tls = info.tls.as_ref();
    let text = |text: Option<&String>| Ok(Fact::Text(text.cloned().unwrap_or_default()));
    match key {
        _ if key == Key::MUX_INFO_LOCAL_ADDR as u32 => text(Some(&info.local_addr)),
        _ if key == Key::MUX_INFO_PEER_ADDR as u32 => text(Some(&connected.peer_addr())),
        _ if key == Key::MUX_INFO_ALPN as u32 => text(tls.map(|tls| &tls.alpn)),
        _ if key == Key::MUX_INFO_TLS as u32 => text(tls.map(|tls| &tls.summary)),
        _ if key == Key::MUX_INFO_PEER_CERT_DER as u32 => {
            let certificate = tls.and_then(|tls| tls.peer_certificate.as_ref());
            Ok(Fact::Bytes(certificate.map(|der| der.to_vec()).unwrap_or_default()))
        }
        _ if key == Key::MUX_INFO_PEER_CERT_SHA256 as u32 => {
            let certificate = tls.and_then(|tls| tls.peer_certificate.as_ref());
            let hash = certificate.map(|der| ring::digest::digest(&ring::digest::SHA256, der).as_ref().to_vec());
            Ok(Fact::Bytes(hash.unwrap_or_default()))
        }
        _ => Err(Fault::invalid(format!("key {key} does not apply to a session"))),
    }
}

/// Tells a fact (enum mux_info_key): copies at most cap bytes and returns the full length, so buf may be NULL when cap is
/// 0. A text is terminated where there is room; the length does not count that.
///
/// MUX_EINVAL: unknown key, or one that this kind of handle does not have. MUX_ESTATE: the session is not connected yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_info(h: mux_handle, key: u32, buf: *mut c_void, cap: usize) -> i64 {
    boundary::count(|| {
        let (value, is_text) = match fact(&*world::pin(h)?, key)? {
            Fact::Text(text) => (text.into_bytes(), true),
            Fact::Bytes(bytes) => (bytes, false),
        };
        // SAFETY: by this function's contract.
        unsafe { pointer::copy_out(&value, is_text, buf, cap) }
    })
}

/// Tells the counters of a session or channel, or with 0 those of the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_stats_get(h: mux_handle, out: *mut mux_stats) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let mut out = unsafe { pointer::sized_out(out, "out")? };
        let mut stats = mux_stats::default();
        if h == 0 {
            stats.handles_live = world().table.live();
            out.write(&stats);
            return Ok(());
        }
        match &*world::pin(h)? {
            Object::Session(session) => {
                let now = session.connected_session()?.stats();
                stats.channels_open = now.channels_open.try_into().unwrap_or(u32::MAX);
                stats.bytes_in = now.bytes_in;
                stats.bytes_out = now.bytes_out;
                stats.channels_opened = now.channels_opened;
                stats.channels_accepted = now.channels_accepted;
                stats.resets_in = now.resets_in;
                stats.resets_out = now.resets_out;
                stats.recv_buffered = now.recv_buffered;
                stats.send_buffered = now.send_buffered;
                stats.lost_packets = now.lost_packets;
                stats.rtt_us = now.rtt.map_or(0, |rtt| rtt.as_micros().try_into().unwrap_or(u64::MAX));
            }
            Object::Channel(channel) => {
                let (recv, send) = channel.buffered()?;
                (stats.recv_buffered, stats.send_buffered) = (recv as u64, send as u64);
                stats.send_credit = channel.room()? as u64;
            }
            _ => return Err(mux_status_code::MUX_EKIND.into()),
        }
        out.write(&stats);
        Ok(())
    })
}
