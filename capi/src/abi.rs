//! The types and constants of the header. Enums are exported for their constants and never received: every integer that
//! comes in is checked first.

use std::ffi::{c_char, c_void};

/// Do not wait: a call that would have to gives MUX_AGAIN.
pub const MUX_NOWAIT: i32 = 0;
/// Wait without limit.
pub const MUX_FOREVER: i32 = -1;

/// Any handle, for the functions that take several kinds. 0 is never valid.
pub type mux_handle = u64;

/// Threads that drive sessions. A zero one means the default runtime, which starts by itself.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mux_runtime {
    pub h: mux_handle,
}

/// Configuration, copied by dial and listen. A zero one means the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mux_config {
    pub h: mux_handle,
}

/// A bound address that yields sessions.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mux_listener {
    pub h: mux_handle,
}

/// Many channels over one connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mux_session {
    pub h: mux_handle,
}

/// Two byte streams in opposite directions.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mux_channel {
    pub h: mux_handle,
}

/// Tells which handles are ready.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mux_queue {
    pub h: mux_handle,
}

/// Slices that mux_read_borrow lent.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mux_borrow {
    pub h: mux_handle,
}

/// A file descriptor.
pub type mux_fd = isize;

/// A piece of memory to read into or write from; the same layout as struct iovec.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mux_iovec {
    pub base: *mut c_void,
    pub len: usize,
}

/// 0, or a negative enum mux_status_code. Unknown negative values are errors too.
pub type mux_status = i32;

/// What a call came to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mux_status_code {
    MUX_OK = 0,
    /// It would have to wait. Any call with any arguments may follow.
    MUX_AGAIN = -1,
    /// timeout_ms passed.
    MUX_TIMEDOUT = -2,
    /// A signal handler ran on the sleeping thread.
    MUX_EINTR = -3,
    /// mux_interrupt is in force.
    MUX_CANCELED = -4,
    /// Not a live handle: never given out, or closed.
    MUX_EHANDLE = -16,
    /// A live handle of another kind.
    MUX_EKIND = -17,
    /// An argument is NULL, out of range, unknown or malformed.
    MUX_EINVAL = -18,
    /// Not allowed in the present state.
    MUX_ESTATE = -19,
    /// This session or backend cannot do it; see mux_session_caps.
    MUX_EUNSUPPORTED = -20,
    /// The handle belongs to the parent process.
    MUX_EFORKED = -21,
    /// A call that may wait, from within a callback.
    MUX_EREENTRANT = -22,
    MUX_ENOMEM = -32,
    /// A budget or limit is exhausted: channels, bytes, sessions, handles.
    MUX_ELIMIT = -33,
    /// Out of file descriptors.
    MUX_ENOFILE = -34,
    /// A label, reason or message exceeds its bound.
    MUX_ETOOBIG = -35,
    /// Unknown scheme, unknown option or malformed URL.
    MUX_EURL = -48,
    /// The name could not be resolved.
    MUX_EDNS = -49,
    /// No listener there, or the peer refused the channel.
    MUX_EREFUSED = -50,
    MUX_EUNREACH = -51,
    MUX_EADDRINUSE = -52,
    /// The operating system forbids it.
    MUX_EACCESS = -53,
    MUX_ETLS = -54,
    MUX_ECERT = -55,
    MUX_EALPN = -56,
    /// The sender abandoned this direction, with a code.
    MUX_ERESET = -64,
    /// The receiver asked to stop, with a code.
    MUX_ESTOPPED = -65,
    /// This direction was ended already.
    MUX_EFINISHED = -66,
    /// The channel, session or listener is closed; mux_cause says by whom.
    MUX_ECLOSED = -67,
    /// The session takes no new channels.
    MUX_EGOAWAY = -68,
    /// The peer was silent for too long.
    MUX_EIDLE = -69,
    /// The peer violated the wire's rules.
    MUX_EPROTO = -70,
    /// The operating system reported an error; see os_errno.
    MUX_EOS = -80,
    /// A bug in libmux.
    MUX_EINTERNAL = -81,
}

/// Who caused a failure.
#[repr(C)]
pub enum mux_origin {
    MUX_BY_LOCAL = 1,
    MUX_BY_PEER = 2,
    MUX_BY_TRANSPORT = 3,
    MUX_BY_OS = 4,
}

/// A direction of a channel.
#[repr(C)]
pub enum mux_direction {
    /// What we read.
    MUX_RECEIVING = 1,
    /// What we write.
    MUX_SENDING = 2,
}

/// A failure in detail. Set struct_size to sizeof(mux_error) before use; it may grow.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mux_error {
    pub struct_size: u32,
    pub status: mux_status,
    /// enum mux_origin
    pub origin: u32,
    /// The operating system's error number, or 0.
    pub os_errno: i32,
    /// The reset, stop, refusal or close code, where there is one.
    pub code: u64,
    /// The transport's own number: TLS alert, QUIC transport error, HTTP/2 code.
    pub detail: u64,
    /// 1 when the peer is known not to have acted on the failed work.
    pub retry_safe: u32,
    pub reserved: u32,
    /// UTF-8, always NUL-terminated.
    pub message: [c_char; 224],
}

/// What a session can do.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum mux_cap {
    /// One direction can end while the other goes on.
    MUX_CAP_HALF_CLOSE = 1,
    /// Resets carry a code.
    MUX_CAP_RESET_CODE = 2,
    /// The receiver can ask the sender to stop.
    MUX_CAP_STOP = 4,
    /// A reset never looks like a clean end.
    MUX_CAP_RESET_VISIBLE = 8,
    /// The peer is told the urgency of a channel.
    MUX_CAP_PRIORITY = 16,
    /// Channels may have a label.
    MUX_CAP_LABEL = 32,
    /// The peer confirms an open.
    MUX_CAP_OPENED = 64,
    /// Unreliable messages beside the channels.
    MUX_CAP_DATAGRAM = 128,
    /// A lost packet delays only the channels whose bytes it carried.
    MUX_CAP_NO_HOL = 256,
    /// The session survives a change of address.
    MUX_CAP_MIGRATION = 512,
    /// The end of the session can be announced, with code and reason.
    MUX_CAP_GOAWAY = 1024,
    /// The end of a direction is known to have reached the peer's transport.
    MUX_CAP_ACKED = 2048,
    /// The accepting side of the session may open channels too.
    MUX_CAP_SERVER_OPEN = 4096,
}

/// What can be waited for. Anything that has failed or ended is ready for everything.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum mux_event_bit {
    /// Session: connected, or failed to.
    MUX_EV_CONNECTED = 1,
    /// Session: a channel waits to be accepted. Listener: a session does.
    MUX_EV_ACCEPT = 2,
    /// Session: a channel can be opened without waiting.
    MUX_EV_OPEN = 4,
    /// Channel: a read would not give MUX_AGAIN.
    MUX_EV_READ = 8,
    /// Channel: a write would not give MUX_AGAIN.
    MUX_EV_WRITE = 16,
    /// Channel, session: the transport has taken every byte written.
    MUX_EV_DRAINED = 32,
    /// Session: a datagram waits.
    MUX_EV_DATAGRAM = 64,
    /// Always reported. Session: over, its transport released. Listener: it stopped. Channel: both directions are over
    /// and nothing is left to read.
    MUX_EV_CLOSED = 128,
    /// Channel: the peer has confirmed it (MUX_CAP_OPENED).
    MUX_EV_OPENED = 256,
}

/// The kind of a handle, as mux_info tells it.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum mux_kind {
    MUX_KIND_RUNTIME = 1,
    MUX_KIND_CONFIG = 2,
    MUX_KIND_LISTENER = 3,
    MUX_KIND_SESSION = 4,
    MUX_KIND_CHANNEL = 5,
    MUX_KIND_QUEUE = 6,
    MUX_KIND_BORROW = 7,
}

/// What mux_info can be asked.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum mux_info_key {
    /// uint32_t: enum mux_kind.
    MUX_INFO_KIND = 1,
    /// Text. Session: as dialed, or its listener's. Listener: the URL to dial, with the real port.
    MUX_INFO_URL = 2,
    /// Text: our address; empty where the transport has none.
    MUX_INFO_LOCAL_ADDR = 3,
    /// Text: the peer's address; empty where the transport has none.
    MUX_INFO_PEER_ADDR = 4,
    /// Text: the negotiated application protocol; empty without TLS.
    MUX_INFO_ALPN = 5,
    /// Text: TLS version and cipher; empty without TLS.
    MUX_INFO_TLS = 6,
    /// Bytes: the peer's certificate; none without one.
    MUX_INFO_PEER_CERT_DER = 7,
    /// Bytes: its SHA-256, as mux_config_tls_pin_sha256 takes it; none without one.
    MUX_INFO_PEER_CERT_SHA256 = 8,
    /// uint64_t: the number by which logs know a channel.
    MUX_INFO_CHANNEL_ID = 9,
    /// Bytes: the label a channel was opened with.
    MUX_INFO_LABEL = 10,
    /// mux_handle: the session of a channel.
    MUX_INFO_PARENT = 11,
    /// uint64_t: the largest datagram that a session can send now, in bytes; 0 where it has none.
    MUX_INFO_MAX_DATAGRAM = 12,
}

/// How a runtime is made. Set struct_size; everything else zero means the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mux_runtime_opts {
    pub struct_size: u32,
    /// 0 means the number of cores, at most 4.
    pub worker_threads: u32,
    /// Must be 0.
    pub flags: u32,
    pub reserved: u32,
    /// Of the worker threads, at most 15 bytes; NULL means "libmux".
    pub thread_name: *const c_char,
}

/// Numbers that mux_config_set_u64 can set.
#[repr(C)]
pub enum mux_config_key {
    /// How long a dial may take.
    MUX_CFG_CONNECT_MS = 1,
    /// How often a silent peer is probed; 0 never.
    MUX_CFG_KEEPALIVE_MS = 2,
    /// A session without traffic for this long is ended; 0 never.
    MUX_CFG_IDLE_MS = 3,
    /// How long a closed channel or session may go on flushing in the background.
    MUX_CFG_LINGER_MS = 4,
    /// Channels that the peer may have open at once.
    MUX_CFG_MAX_CHANNELS_IN = 16,
    /// Bytes a channel may receive unread.
    MUX_CFG_CHANNEL_WINDOW = 17,
    /// Bytes the peer may make a session hold.
    MUX_CFG_SESSION_WINDOW = 18,
    /// Bytes a channel accepts for sending before the transport takes them.
    MUX_CFG_SEND_BUFFER = 19,
    /// The largest frame body to send.
    MUX_CFG_FRAME_SIZE = 20,
    /// Channels that wait for accept; an open beyond it is refused, safe to retry.
    MUX_CFG_CHANNEL_BACKLOG = 21,
    /// Sessions that wait for a listener's accept.
    MUX_CFG_SESSION_BACKLOG = 22,
    /// The longest label accepted, in bytes.
    MUX_CFG_MAX_LABEL = 23,
    /// Sessions that a listener serves at once.
    MUX_CFG_MAX_SESSIONS = 24,
    /// What a listener asks of its clients: 0 no certificate, 1 requests one, 2 requires one.
    MUX_CFG_CLIENT_AUTH = 32,
    /// 1 skips the verification of certificates, and logs a warning.
    MUX_CFG_TLS_INSECURE = 33,
    /// 0: sessions have no datagrams, also where the wire could; 1, the default: they have where it can.
    MUX_CFG_DATAGRAMS = 34,
}

/// How a channel is opened. Set struct_size; everything else zero means the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mux_open_opts {
    pub struct_size: u32,
    /// Must be 0.
    pub flags: u32,
    /// Bytes that the accepting side sees before any data; MUX_EUNSUPPORTED without MUX_CAP_LABEL.
    pub label: *const c_void,
    pub label_len: usize,
    /// 0 means the default; else the urgency of RFC 9218 (0 first, 7 last) plus 1.
    pub urgency: u32,
    /// 1: parts are useful before the whole. Ignored when urgency is 0.
    pub incremental: u32,
}

/// Which end of a session we are.
#[repr(C)]
pub enum mux_role {
    MUX_CLIENT = 0,
    MUX_SERVER = 1,
}

/// What becomes of descriptors that a session runs over.
#[repr(C)]
pub enum mux_fd_flag {
    /// They are the library's from now on: closed at once, and the connection ended with the session.
    MUX_FD_OWN = 1,
}

/// How the functions of mux_io behave.
#[repr(C)]
pub enum mux_io_option {
    /// They wait instead of returning MUX_AGAIN.
    MUX_WIRE_BLOCKING = 1,
}

/// A transport of the application's own, as functions. Set struct_size. Every function gets ctx.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mux_io {
    pub struct_size: u32,
    /// enum mux_io_option
    pub flags: u32,
    pub ctx: *mut c_void,
    /// Reads some: the count, 0 at the end, MUX_AGAIN, or another negative number for a failure.
    pub read: Option<unsafe extern "C" fn(ctx: *mut c_void, buf: *mut c_void, len: usize) -> i64>,
    /// Writes some of n pieces: the count, MUX_AGAIN, or another negative number for a failure.
    pub write: Option<unsafe extern "C" fn(ctx: *mut c_void, iov: *const mux_iovec, n: i32) -> i64>,
    /// The session is over: nothing more is written, and a read that waits must return.
    pub shutdown: Option<unsafe extern "C" fn(ctx: *mut c_void)>,
    /// The last call, exactly once. May be NULL.
    pub free: Option<unsafe extern "C" fn(ctx: *mut c_void)>,
}

/// Told that a queue has something to do.
pub type mux_wake_fn = Option<unsafe extern "C" fn(ctx: *mut c_void)>;

/// Told what happens: level 1 (error) to 5 (trace), the part of the library, and words.
pub type mux_log_fn =
    Option<unsafe extern "C" fn(ctx: *mut c_void, level: i32, target: *const c_char, text: *const c_char)>;

/// What goes with a write.
#[repr(C)]
pub enum mux_io_flag {
    /// The direction ends after these bytes, if all of them are taken.
    MUX_IO_FIN = 1,
    /// More follows at once: gather rather than send.
    MUX_IO_MORE = 2,
}

/// How long a watch lasts.
#[repr(C)]
pub enum mux_watch_mode {
    /// Until it was delivered once.
    MUX_WATCH_ONESHOT = 0,
    /// Until mux_unwatch: it is delivered by every mux_queue_next while the condition holds.
    MUX_WATCH_LEVEL = 1,
}

/// A handle that became ready. This layout will never change.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mux_event {
    pub user: u64,
    pub h: mux_handle,
    /// enum mux_event_bit
    pub events: u32,
    pub reserved: [u32; 3],
}

/// Counters. Set struct_size; fields that do not apply are 0.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct mux_stats {
    pub struct_size: u32,
    pub channels_open: u32,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub channels_opened: u64,
    pub channels_accepted: u64,
    pub resets_in: u64,
    pub resets_out: u64,
    pub recv_buffered: u64,
    pub send_buffered: u64,
    /// Of a channel: bytes that a write would take at present.
    pub send_credit: u64,
    pub rtt_us: u64,
    pub lost_packets: u64,
    pub handles_live: u64,
}

/// The header's bits are those of mux-api, number for number.
const _: () = {
    use libmux::Capabilities as Cap;
    let pairs = [
        (mux_cap::MUX_CAP_HALF_CLOSE, Cap::HALF_CLOSE),
        (mux_cap::MUX_CAP_RESET_CODE, Cap::RESET_CODE),
        (mux_cap::MUX_CAP_STOP, Cap::STOP),
        (mux_cap::MUX_CAP_RESET_VISIBLE, Cap::RESET_VISIBLE),
        (mux_cap::MUX_CAP_PRIORITY, Cap::PRIORITY),
        (mux_cap::MUX_CAP_LABEL, Cap::LABEL),
        (mux_cap::MUX_CAP_OPENED, Cap::OPENED),
        (mux_cap::MUX_CAP_DATAGRAM, Cap::DATAGRAM),
        (mux_cap::MUX_CAP_NO_HOL, Cap::NO_HOL),
        (mux_cap::MUX_CAP_MIGRATION, Cap::MIGRATION),
        (mux_cap::MUX_CAP_GOAWAY, Cap::GOAWAY),
        (mux_cap::MUX_CAP_ACKED, Cap::ACKED),
        (mux_cap::MUX_CAP_SERVER_OPEN, Cap::SERVER_OPEN),
    ];
    let mut at = 0;
    while at < pairs.len() {
        assert!(pairs[at].0 as u64 == pairs[at].1.bits());
        at += 1;
    }
    assert!(at == Cap::NAMES.len());
};
