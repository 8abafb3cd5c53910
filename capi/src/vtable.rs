//! What a backend written in C is: its functions.

use std::ffi::{c_char, c_void};

use crate::abi::{mux_config, mux_error, mux_iovec, mux_open_opts, mux_stats, mux_status};

/// What a backend is like.
#[repr(C)]
pub enum mux_backend_flag {
    /// It runs over TLS: URLs may have the options for that.
    MUX_BACKEND_TLS = 1,
}

/// A backend of the application's own, as functions. Set struct_size; those that are marked optional may be NULL.
///
/// None of them waits: what cannot be done yet is MUX_AGAIN, and mux_backend_ready with the object's cookie says when to ask
/// again. A cookie counts from the call that got it, if that gave MUX_OK, until the object is freed. The calls for one
/// session, its channels among them, come one after the other, those for one listener too; different sessions are served
/// at the same time, from any thread. Functions of this library may be called inside, with timeout_ms 0, but not on the
/// session, channels or listener that the call is for: that is refused.
///
/// What has ended answers at once, as everywhere in this library: reads give what arrived in order, then the failure.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mux_backend {
    pub struct_size: u32,
    /// enum mux_backend_flag
    pub flags: u32,
    /// What it serves: "toy,toy+unix", each a word of a-z and 0-9, or two with a plus.
    pub schemes: *const c_char,
    /// Options of URLs that it understands beside those that all do: "delay,loss". Others are an error before it is asked.
    /// NULL means none.
    pub options: *const c_char,
    /// enum mux_cap: what a session can do with a peer of the same kind.
    pub caps: u64,
    /// Begins to connect. *session may still be connecting: `ready` says MUX_EV_CONNECTED once it is, or MUX_EV_CLOSED. c has
    /// the URL's options applied and lives as long as this call; mux_config_get_u64 reads it. On failure err, never NULL, may be
    /// filled in.
    pub dial: Option<
        unsafe extern "C" fn(
            ctx: *mut c_void,
            url: *const c_char,
            c: mux_config,
            cookie: u64,
            session: *mut *mut c_void,
            err: *mut mux_error,
        ) -> mux_status,
    >,
    /// Binds. `info` must then tell MUX_INFO_URL, with the real port.
    pub listen: Option<
        unsafe extern "C" fn(
            ctx: *mut c_void,
            url: *const c_char,
            c: mux_config,
            cookie: u64,
            listener: *mut *mut c_void,
            err: *mut mux_error,
        ) -> mux_status,
    >,
    /// Takes the next session, which is connected: MUX_OK, or MUX_AGAIN. Anything else ends the listener.
    pub accept:
        Option<unsafe extern "C" fn(listener: *mut c_void, cookie: u64, session: *mut *mut c_void) -> mux_status>,
    /// Stops listening; its sessions live on. `ready` says MUX_EV_CLOSED once the address is free.
    pub listener_close: Option<unsafe extern "C" fn(listener: *mut c_void)>,
    /// Opens a channel and tells the peer, even if nothing is written. o is complete; a label is given only with
    /// MUX_CAP_LABEL, and is not longer than MUX_CFG_MAX_LABEL.
    pub open: Option<
        unsafe extern "C" fn(
            session: *mut c_void,
            o: *const mux_open_opts,
            cookie: u64,
            channel: *mut *mut c_void,
        ) -> mux_status,
    >,
    /// Takes the next channel that the peer opened; after the session's end those that arrived before it, then the failure.
    pub incoming:
        Option<unsafe extern "C" fn(session: *mut c_void, cookie: u64, channel: *mut *mut c_void) -> mux_status>,
    /// Refuses new channels of the peer, safe to retry, and lets the old ones finish. Opens give MUX_EGOAWAY from now on.
    pub session_drain: Option<unsafe extern "C" fn(session: *mut c_void)>,
    /// Begins the polite end: what was finished is sent, the rest is reset, then the peer is told. After
    /// MUX_CFG_LINGER_MS session_abort follows.
    pub session_close: Option<unsafe extern "C" fn(session: *mut c_void, code: u64, reason: *const c_char)>,
    /// Ends at once: channels fail, unsent data is dropped.
    pub session_abort: Option<unsafe extern "C" fn(session: *mut c_void, code: u64)>,
    /// As mux_read without waiting. Not called any more after the end, a failure, or `stop`.
    pub read: Option<unsafe extern "C" fn(channel: *mut c_void, buf: *mut c_void, len: usize) -> i64>,
    /// As mux_writev without waiting. A write of nothing never gives MUX_AGAIN. Not called any more after MUX_IO_FIN with
    /// everything taken, a failure, or `reset`.
    pub write: Option<unsafe extern "C" fn(channel: *mut c_void, iov: *const mux_iovec, n: i32, flags: u32) -> i64>,
    /// Abandons the sending direction: unsent data is dropped. Codes above those of applications come from the library:
    /// where the wire cannot carry one, another is sent.
    pub reset: Option<unsafe extern "C" fn(channel: *mut c_void, code: u64) -> mux_status>,
    /// Reads no more. Without MUX_CAP_STOP what arrives is dropped, and the peer is not told.
    pub stop: Option<unsafe extern "C" fn(channel: *mut c_void, code: u64) -> mux_status>,
    /// Which of the events (enum mux_event_bit) hold for an object of enum mux_kind; of each that does not, mux_backend_ready
    /// tells when it does. Asked of a session: CONNECTED, OPEN, DRAINED, CLOSED (over, and its transport released); of a channel
    /// READ and WRITE (at least min bytes, or as much as can ever be), DRAINED, OPENED, and CLOSED, which means its sending
    /// direction: finished and taken by the transport, stopped, or failed; of a listener CLOSED.
    pub ready: Option<unsafe extern "C" fn(kind: u32, object: *mut c_void, events: u32, min: usize) -> u32>,
    /// Fills in a failure. e->status is what a function gave for this object, or MUX_OK: then it is set to why the session
    /// ended, or the channel's sending direction, and stays as it is while that lives and after a clean end. e->message is
    /// empty: it may stay so.
    pub cause: Option<unsafe extern "C" fn(kind: u32, object: *mut c_void, e: *mut mux_error)>,
    /// As mux_info: URL of a listener; LOCAL_ADDR, PEER_ADDR and with TLS the TLS keys of a session; LABEL and CHANNEL_ID (unique
    /// among the live channels of a session) of a channel. 0 or MUX_EINVAL: it has none.
    pub info:
        Option<unsafe extern "C" fn(kind: u32, object: *mut c_void, key: u32, buf: *mut c_void, cap: usize) -> i64>,
    /// The last call for a listener.
    pub listener_free: Option<unsafe extern "C" fn(listener: *mut c_void)>,
    /// The last call for a session, after its channels were freed. One that was not closed is aborted by this.
    pub session_free: Option<unsafe extern "C" fn(session: *mut c_void)>,
    /// The last call for a channel: its directions were ended before, what was finished still goes out.
    pub channel_free: Option<unsafe extern "C" fn(channel: *mut c_void)>,
    /// Optional: what was negotiated with this peer; without it caps.
    pub session_caps: Option<unsafe extern "C" fn(session: *mut c_void) -> u64>,
    /// Optional: begins to measure the round trip, then MUX_AGAIN until the answer is there. Asked again after every
    /// mux_backend_ready of the session.
    pub ping: Option<unsafe extern "C" fn(session: *mut c_void, rtt_us: *mut u64) -> mux_status>,
    /// Optional: sends a datagram, or drops an older one that waits. MUX_ETOOBIG beyond MUX_INFO_MAX_DATAGRAM of `info`.
    pub datagram_send: Option<unsafe extern "C" fn(session: *mut c_void, buf: *const c_void, len: usize) -> mux_status>,
    /// Optional: takes the next datagram; buf has room for 64 KiB.
    pub datagram_recv: Option<unsafe extern "C" fn(session: *mut c_void, buf: *mut c_void, cap: usize) -> i64>,
    /// Optional: changes how urgent a channel is; as in mux_open_opts.
    pub set_priority: Option<unsafe extern "C" fn(channel: *mut c_void, urgency: u32, incremental: u32)>,
    /// Optional: counters of a session, or recv_buffered, send_buffered and send_credit of a channel.
    pub stats: Option<unsafe extern "C" fn(kind: u32, object: *mut c_void, out: *mut mux_stats)>,
    /// Optional: takes certificates and limits for sessions to come.
    pub reload: Option<unsafe extern "C" fn(listener: *mut c_void, c: mux_config, err: *mut mux_error) -> mux_status>,
}
