/* libmux: one library for stream multiplexing. Generated from capi/src, do not edit.
 *
 * CONVENTIONS
 *
 * Results. mux_status is 0 (MUX_OK) or a negative number of enum mux_status_code; functions that
 * return int64_t give a count or such a number. Compare with < 0: later versions know more numbers.
 * Output is written only on success, except error details (mux_error), what mux_cause reports, and
 * *done of mux_read_exact and mux_write_all, which are for the other case. errno stays as it was.
 *
 * Handles are numbers, checked at every call: a stale, doubly closed or foreign one is an error
 * (MUX_EHANDLE, MUX_EKIND), never undefined behaviour. Each handle that a function gives out is
 * closed once with mux_close, in any order. A zero handle is never live; where a function takes a
 * mux_config or a mux_runtime, zero means the default.
 *
 * Memory. Nothing has to be freed: texts are static or copied into buffers of the caller, and no
 * buffer is used after the call it was passed to. Pointers are checked for NULL; what is not NULL
 * must be what the prototype says. Structs that begin with struct_size may grow: set it to sizeof.
 *
 * Threads. Every function may be called from any thread at any time. Two threads that read one
 * channel are served one after the other, each byte goes to one of them. Closing an object in one
 * thread makes calls that sleep on it in others return MUX_ECLOSED.
 *
 * Blocking. Functions marked [B] may wait, at most timeout_ms: 0 does not wait (MUX_AGAIN), -1 has
 * no limit. Everything else never blocks. A signal handler that ran on the sleeping thread ends the
 * wait with MUX_EINTR, whatever SA_RESTART says. Functions marked [S] are async-signal-safe.
 *
 * Processes. After fork the child gets MUX_EFORKED for inherited handles and may make its own.
 * Signals are never delivered to the library's threads, and a broken connection raises no SIGPIPE.
 * A program calls mux_runtime_shutdown before it exits, because unsent data does not outlive it.
 */


#ifndef MUX_H
#define MUX_H

#include <stddef.h>
#include <stdint.h>
/* A result that must be looked at: without it the outputs mean nothing. */
#if defined(__GNUC__) || defined(__clang__)
#define MUX_MUST_CHECK __attribute__((warn_unused_result))
#else
#define MUX_MUST_CHECK
#endif

/* A file descriptor: int on POSIX. */
typedef intptr_t mux_fd;


/**
 * Do not wait: a call that would have to gives MUX_AGAIN.
 */
#define MUX_NOWAIT 0

/**
 * Wait without limit.
 */
#define MUX_FOREVER -1

/**
 * What a call came to.
 */
typedef enum mux_status_code {
  MUX_OK = 0,
  /**
   * It would have to wait. Any call with any arguments may follow.
   */
  MUX_AGAIN = -1,
  /**
   * timeout_ms passed.
   */
  MUX_TIMEDOUT = -2,
  /**
   * A signal handler ran on the sleeping thread.
   */
  MUX_EINTR = -3,
  /**
   * mux_interrupt is in force.
   */
  MUX_CANCELED = -4,
  /**
   * Not a live handle: never given out, or closed.
   */
  MUX_EHANDLE = -16,
  /**
   * A live handle of another kind.
   */
  MUX_EKIND = -17,
  /**
   * An argument is NULL, out of range, unknown or malformed.
   */
  MUX_EINVAL = -18,
  /**
   * Not allowed in the present state.
   */
  MUX_ESTATE = -19,
  /**
   * This session or backend cannot do it; see mux_session_caps.
   */
  MUX_EUNSUPPORTED = -20,
  /**
   * The handle belongs to the parent process.
   */
  MUX_EFORKED = -21,
  /**
   * A call that may wait, from within a callback.
   */
  MUX_EREENTRANT = -22,
  MUX_ENOMEM = -32,
  /**
   * A budget or limit is exhausted: channels, bytes, sessions, handles.
   */
  MUX_ELIMIT = -33,
  /**
   * Out of file descriptors.
   */
  MUX_ENOFILE = -34,
  /**
   * A label, reason or message exceeds its bound.
   */
  MUX_ETOOBIG = -35,
  /**
   * Unknown scheme, unknown option or malformed URL.
   */
  MUX_EURL = -48,
  /**
   * The name could not be resolved.
   */
  MUX_EDNS = -49,
  /**
   * No listener there, or the peer refused the channel.
   */
  MUX_EREFUSED = -50,
  MUX_EUNREACH = -51,
  MUX_EADDRINUSE = -52,
  /**
   * The operating system forbids it.
   */
  MUX_EACCESS = -53,
  MUX_ETLS = -54,
  MUX_ECERT = -55,
  MUX_EALPN = -56,
  /**
   * The sender abandoned this direction, with a code.
   */
  MUX_ERESET = -64,
  /**
   * The receiver asked to stop, with a code.
   */
  MUX_ESTOPPED = -65,
  /**
   * This direction was ended already.
   */
  MUX_EFINISHED = -66,
  /**
   * The channel, session or listener is closed; mux_cause says by whom.
   */
  MUX_ECLOSED = -67,
  /**
   * The session takes no new channels.
   */
  MUX_EGOAWAY = -68,
  /**
   * The peer was silent for too long.
   */
  MUX_EIDLE = -69,
  /**
   * The peer violated the wire's rules.
   */
  MUX_EPROTO = -70,
  /**
   * The operating system reported an error; see os_errno.
   */
  MUX_EOS = -80,
  /**
   * A bug in libmux.
   */
  MUX_EINTERNAL = -81,
} mux_status_code;

/**
 * Who caused a failure.
 */
typedef enum mux_origin {
  MUX_BY_LOCAL = 1,
  MUX_BY_PEER = 2,
  MUX_BY_TRANSPORT = 3,
  MUX_BY_OS = 4,
} mux_origin;

/**
 * A direction of a channel.
 */
typedef enum mux_direction {
  /**
   * What we read.
   */
  MUX_RECEIVING = 1,
  /**
   * What we write.
   */
  MUX_SENDING = 2,
} mux_direction;

/**
 * What a session can do.
 */
typedef enum mux_cap {
  /**
   * One direction can end while the other goes on.
   */
  MUX_CAP_HALF_CLOSE = 1,
  /**
   * Resets carry a code.
   */
  MUX_CAP_RESET_CODE = 2,
  /**
   * The receiver can ask the sender to stop.
   */
  MUX_CAP_STOP = 4,
  /**
   * A reset never looks like a clean end.
   */
  MUX_CAP_RESET_VISIBLE = 8,
  /**
   * The peer is told the urgency of a channel.
   */
  MUX_CAP_PRIORITY = 16,
  /**
   * Channels may have a label.
   */
  MUX_CAP_LABEL = 32,
  /**
   * The peer confirms an open.
   */
  MUX_CAP_OPENED = 64,
  /**
   * Unreliable messages beside the channels.
   */
  MUX_CAP_DATAGRAM = 128,
  /**
   * A lost packet delays only the channels whose bytes it carried.
   */
  MUX_CAP_NO_HOL = 256,
  /**
   * The session survives a change of address.
   */
  MUX_CAP_MIGRATION = 512,
  /**
   * The end of the session can be announced, with code and reason.
   */
  MUX_CAP_GOAWAY = 1024,
  /**
   * The end of a direction is known to have reached the peer's transport.
   */
  MUX_CAP_ACKED = 2048,
  /**
   * The accepting side of the session may open channels too.
   */
  MUX_CAP_SERVER_OPEN = 4096,
} mux_cap;

/**
 * What can be waited for. Anything that has failed or ended is ready for everything.
 */
typedef enum mux_event_bit {
  /**
   * Session: connected, or failed to.
   */
  MUX_EV_CONNECTED = 1,
  /**
   * Session: a channel waits to be accepted. Listener: a session does.
   */
  MUX_EV_ACCEPT = 2,
  /**
   * Session: a channel can be opened without waiting.
   */
  MUX_EV_OPEN = 4,
  /**
   * Channel: a read would not give MUX_AGAIN.
   */
  MUX_EV_READ = 8,
  /**
   * Channel: a write would not give MUX_AGAIN.
   */
  MUX_EV_WRITE = 16,
  /**
   * Channel, session: the transport has taken every byte written.
   */
  MUX_EV_DRAINED = 32,
  /**
   * Session: a datagram waits.
   */
  MUX_EV_DATAGRAM = 64,
  /**
   * Always reported. Session: over, its transport released. Listener: it stopped. Channel: both directions are over
   * and nothing is left to read.
   */
  MUX_EV_CLOSED = 128,
  /**
   * Channel: the peer has confirmed it (MUX_CAP_OPENED).
   */
  MUX_EV_OPENED = 256,
} mux_event_bit;

/**
 * The kind of a handle, as mux_info tells it.
 */
typedef enum mux_kind {
  MUX_KIND_RUNTIME = 1,
  MUX_KIND_CONFIG = 2,
  MUX_KIND_LISTENER = 3,
  MUX_KIND_SESSION = 4,
  MUX_KIND_CHANNEL = 5,
  MUX_KIND_QUEUE = 6,
  MUX_KIND_BORROW = 7,
} mux_kind;

/**
 * What mux_info can be asked.
 */
typedef enum mux_info_key {
  /**
   * uint32_t: enum mux_kind.
   */
  MUX_INFO_KIND = 1,
  /**
   * Text. Session: as dialed, or its listener's. Listener: the URL to dial, with the real port.
   */
  MUX_INFO_URL = 2,
  /**
   * Text: our address; empty where the transport has none.
   */
  MUX_INFO_LOCAL_ADDR = 3,
  /**
   * Text: the peer's address; empty where the transport has none.
   */
  MUX_INFO_PEER_ADDR = 4,
  /**
   * Text: the negotiated application protocol; empty without TLS.
   */
  MUX_INFO_ALPN = 5,
  /**
   * Text: TLS version and cipher; empty without TLS.
   */
  MUX_INFO_TLS = 6,
  /**
   * Bytes: the peer's certificate; none without one.
   */
  MUX_INFO_PEER_CERT_DER = 7,
  /**
   * Bytes: its SHA-256, as mux_config_tls_pin_sha256 takes it; none without one.
   */
  MUX_INFO_PEER_CERT_SHA256 = 8,
  /**
   * uint64_t: the number by which logs know a channel.
   */
  MUX_INFO_CHANNEL_ID = 9,
  /**
   * Bytes: the label a channel was opened with.
   */
  MUX_INFO_LABEL = 10,
  /**
   * mux_handle: the session of a channel.
   */
  MUX_INFO_PARENT = 11,
  /**
   * uint64_t: the largest datagram that a session can send now, in bytes; 0 where it has none.
   */
  MUX_INFO_MAX_DATAGRAM = 12,
} mux_info_key;

/**
 * Numbers that mux_config_set_u64 can set.
 */
typedef enum mux_config_key {
  /**
   * How long a dial may take.
   */
  MUX_CFG_CONNECT_MS = 1,
  /**
   * How often a silent peer is probed; 0 never.
   */
  MUX_CFG_KEEPALIVE_MS = 2,
  /**
   * A session without traffic for this long is ended; 0 never.
   */
  MUX_CFG_IDLE_MS = 3,
  /**
   * How long a closed channel or session may go on flushing in the background.
   */
  MUX_CFG_LINGER_MS = 4,
  /**
   * Channels that the peer may have open at once.
   */
  MUX_CFG_MAX_CHANNELS_IN = 16,
  /**
   * Bytes a channel may receive unread.
   */
  MUX_CFG_CHANNEL_WINDOW = 17,
  /**
   * Bytes the peer may make a session hold.
   */
  MUX_CFG_SESSION_WINDOW = 18,
  /**
   * Bytes a channel accepts for sending before the transport takes them.
   */
  MUX_CFG_SEND_BUFFER = 19,
  /**
   * The largest frame body to send.
   */
  MUX_CFG_FRAME_SIZE = 20,
  /**
   * Channels that wait for accept; an open beyond it is refused, safe to retry.
   */
  MUX_CFG_CHANNEL_BACKLOG = 21,
  /**
   * Sessions that wait for a listener's accept.
   */
  MUX_CFG_SESSION_BACKLOG = 22,
  /**
   * The longest label accepted, in bytes.
   */
  MUX_CFG_MAX_LABEL = 23,
  /**
   * Sessions that a listener serves at once.
   */
  MUX_CFG_MAX_SESSIONS = 24,
  /**
   * What a listener asks of its clients: 0 no certificate, 1 requests one, 2 requires one.
   */
  MUX_CFG_CLIENT_AUTH = 32,
  /**
   * 1 skips the verification of certificates, and logs a warning.
   */
  MUX_CFG_TLS_INSECURE = 33,
  /**
   * 0: sessions have no datagrams, also where the wire could; 1, the default: they have where it can.
   */
  MUX_CFG_DATAGRAMS = 34,
} mux_config_key;

/**
 * What goes with a write.
 */
typedef enum mux_io_flag {
  /**
   * The direction ends after these bytes, if all of them are taken.
   */
  MUX_IO_FIN = 1,
  /**
   * More follows at once: gather rather than send.
   */
  MUX_IO_MORE = 2,
} mux_io_flag;

/**
 * How long a watch lasts.
 */
typedef enum mux_watch_mode {
  /**
   * Until it was delivered once.
   */
  MUX_WATCH_ONESHOT = 0,
  /**
   * Until mux_unwatch: it is delivered by every mux_queue_next while the condition holds.
   */
  MUX_WATCH_LEVEL = 1,
} mux_watch_mode;

/**
 * Which end of a session we are.
 */
typedef enum mux_role {
  MUX_CLIENT = 0,
  MUX_SERVER = 1,
} mux_role;

/**
 * What becomes of descriptors that a session runs over.
 */
typedef enum mux_fd_flag {
  /**
   * They are the library's from now on: closed at once, and the connection ended with the session.
   */
  MUX_FD_OWN = 1,
} mux_fd_flag;

/**
 * How the functions of mux_io behave.
 */
typedef enum mux_io_option {
  /**
   * They wait instead of returning MUX_AGAIN.
   */
  MUX_WIRE_BLOCKING = 1,
} mux_io_option;

/**
 * What a backend is like.
 */
typedef enum mux_backend_flag {
  /**
   * It runs over TLS: URLs may have the options for that.
   */
  MUX_BACKEND_TLS = 1,
} mux_backend_flag;

/**
 * 0, or a negative enum mux_status_code. Unknown negative values are errors too.
 */
typedef int32_t mux_status;

/**
 * Any handle, for the functions that take several kinds. 0 is never valid.
 */
typedef uint64_t mux_handle;

/**
 * A failure in detail. Set struct_size to sizeof(mux_error) before use; it may grow.
 */
typedef struct mux_error {
  uint32_t struct_size;
  mux_status status;
  /**
   * enum mux_origin
   */
  uint32_t origin;
  /**
   * The operating system's error number, or 0.
   */
  int32_t os_errno;
  /**
   * The reset, stop, refusal or close code, where there is one.
   */
  uint64_t code;
  /**
   * The transport's own number: TLS alert, QUIC transport error, HTTP/2 code.
   */
  uint64_t detail;
  /**
   * 1 when the peer is known not to have acted on the failed work.
   */
  uint32_t retry_safe;
  uint32_t reserved;
  /**
   * UTF-8, always NUL-terminated.
   */
  char message[224];
} mux_error;

/**
 * Two byte streams in opposite directions.
 */
typedef struct mux_channel {
  mux_handle h;
} mux_channel;

/**
 * Counters. Set struct_size; fields that do not apply are 0.
 */
typedef struct mux_stats {
  uint32_t struct_size;
  uint32_t channels_open;
  uint64_t bytes_in;
  uint64_t bytes_out;
  uint64_t channels_opened;
  uint64_t channels_accepted;
  uint64_t resets_in;
  uint64_t resets_out;
  uint64_t recv_buffered;
  uint64_t send_buffered;
  /**
   * Of a channel: bytes that a write would take at present.
   */
  uint64_t send_credit;
  uint64_t rtt_us;
  uint64_t lost_packets;
  uint64_t handles_live;
} mux_stats;

/**
 * How a runtime is made. Set struct_size; everything else zero means the defaults.
 */
typedef struct mux_runtime_opts {
  uint32_t struct_size;
  /**
   * 0 means the number of cores, at most 4.
   */
  uint32_t worker_threads;
  /**
   * Must be 0.
   */
  uint32_t flags;
  uint32_t reserved;
  /**
   * Of the worker threads, at most 15 bytes; NULL means "libmux".
   */
  const char *thread_name;
} mux_runtime_opts;

/**
 * Threads that drive sessions. A zero one means the default runtime, which starts by itself.
 */
typedef struct mux_runtime {
  mux_handle h;
} mux_runtime;

/**
 * Configuration, copied by dial and listen. A zero one means the defaults.
 */
typedef struct mux_config {
  mux_handle h;
} mux_config;

/**
 * Many channels over one connection.
 */
typedef struct mux_session {
  mux_handle h;
} mux_session;

/**
 * A bound address that yields sessions.
 */
typedef struct mux_listener {
  mux_handle h;
} mux_listener;

/**
 * A piece of memory to read into or write from; the same layout as struct iovec.
 */
typedef struct mux_iovec {
  void *base;
  size_t len;
} mux_iovec;

/**
 * A transport of the application's own, as functions. Set struct_size. Every function gets ctx.
 */
typedef struct mux_io {
  uint32_t struct_size;
  /**
   * enum mux_io_option
   */
  uint32_t flags;
  void *ctx;
  /**
   * Reads some: the count, 0 at the end, MUX_AGAIN, or another negative number for a failure.
   */
  int64_t (*read)(void *ctx, void *buf, size_t len);
  /**
   * Writes some of n pieces: the count, MUX_AGAIN, or another negative number for a failure.
   */
  int64_t (*write)(void *ctx, const struct mux_iovec *iov, int32_t n);
  /**
   * The session is over: nothing more is written, and a read that waits must return.
   */
  void (*shutdown)(void *ctx);
  /**
   * The last call, exactly once. May be NULL.
   */
  void (*free)(void *ctx);
} mux_io;

/**
 * How a channel is opened. Set struct_size; everything else zero means the defaults.
 */
typedef struct mux_open_opts {
  uint32_t struct_size;
  /**
   * Must be 0.
   */
  uint32_t flags;
  /**
   * Bytes that the accepting side sees before any data; MUX_EUNSUPPORTED without MUX_CAP_LABEL.
   */
  const void *label;
  size_t label_len;
  /**
   * 0 means the default; else the urgency of RFC 9218 (0 first, 7 last) plus 1.
   */
  uint32_t urgency;
  /**
   * 1: parts are useful before the whole. Ignored when urgency is 0.
   */
  uint32_t incremental;
} mux_open_opts;

/**
 * Slices that mux_read_borrow lent.
 */
typedef struct mux_borrow {
  mux_handle h;
} mux_borrow;

/**
 * Tells which handles are ready.
 */
typedef struct mux_queue {
  mux_handle h;
} mux_queue;

/**
 * A handle that became ready. This layout will never change.
 */
typedef struct mux_event {
  uint64_t user;
  mux_handle h;
  /**
   * enum mux_event_bit
   */
  uint32_t events;
  uint32_t reserved[3];
} mux_event;

/**
 * Told that a queue has something to do.
 */
typedef void (*mux_wake_fn)(void *ctx);

/**
 * Told what happens: level 1 (error) to 5 (trace), the part of the library, and words.
 */
typedef void (*mux_log_fn)(void *ctx, int32_t level, const char *target, const char *text);

/**
 * A backend of the application's own, as functions. Set struct_size; those that are marked optional may be NULL.
 *
 * None of them waits: what cannot be done yet is MUX_AGAIN, and mux_backend_ready with the object's cookie says when to ask
 * again. A cookie counts from the call that got it, if that gave MUX_OK, until the object is freed. The calls for one
 * session, its channels among them, come one after the other, those for one listener too; different sessions are served
 * at the same time, from any thread. Functions of this library may be called inside, with timeout_ms 0, but not on the
 * session, channels or listener that the call is for: that is refused.
 *
 * What has ended answers at once, as everywhere in this library: reads give what arrived in order, then the failure.
 */
typedef struct mux_backend {
  uint32_t struct_size;
  /**
   * enum mux_backend_flag
   */
  uint32_t flags;
  /**
   * What it serves: "toy,toy+unix", each a word of a-z and 0-9, or two with a plus.
   */
  const char *schemes;
  /**
   * Options of URLs that it understands beside those that all do: "delay,loss". Others are an error before it is asked.
   * NULL means none.
   */
  const char *options;
  /**
   * enum mux_cap: what a session can do with a peer of the same kind.
   */
  uint64_t caps;
  /**
   * Begins to connect. *session may still be connecting: `ready` says MUX_EV_CONNECTED once it is, or MUX_EV_CLOSED. c has
   * the URL's options applied and lives as long as this call; mux_config_get_u64 reads it. On failure err, never NULL, may be
   * filled in.
   */
  mux_status (*dial)(void *ctx,
                     const char *url,
                     struct mux_config c,
                     uint64_t cookie,
                     void **session,
                     struct mux_error *err);
  /**
   * Binds. `info` must then tell MUX_INFO_URL, with the real port.
   */
  mux_status (*listen)(void *ctx,
                       const char *url,
                       struct mux_config c,
                       uint64_t cookie,
                       void **listener,
                       struct mux_error *err);
  /**
   * Takes the next session, which is connected: MUX_OK, or MUX_AGAIN. Anything else ends the listener.
   */
  mux_status (*accept)(void *listener, uint64_t cookie, void **session);
  /**
   * Stops listening; its sessions live on. `ready` says MUX_EV_CLOSED once the address is free.
   */
  void (*listener_close)(void *listener);
  /**
   * Opens a channel and tells the peer, even if nothing is written. o is complete; a label is given only with
   * MUX_CAP_LABEL, and is not longer than MUX_CFG_MAX_LABEL.
   */
  mux_status (*open)(void *session, const struct mux_open_opts *o, uint64_t cookie, void **channel);
  /**
   * Takes the next channel that the peer opened; after the session's end those that arrived before it, then the failure.
   */
  mux_status (*incoming)(void *session, uint64_t cookie, void **channel);
  /**
   * Refuses new channels of the peer, safe to retry, and lets the old ones finish. Opens give MUX_EGOAWAY from now on.
   */
  void (*session_drain)(void *session);
  /**
   * Begins the polite end: what was finished is sent, the rest is reset, then the peer is told. After
   * MUX_CFG_LINGER_MS session_abort follows.
   */
  void (*session_close)(void *session, uint64_t code, const char *reason);
  /**
   * Ends at once: channels fail, unsent data is dropped.
   */
  void (*session_abort)(void *session, uint64_t code);
  /**
   * As mux_read without waiting. Not called any more after the end, a failure, or `stop`.
   */
  int64_t (*read)(void *channel, void *buf, size_t len);
  /**
   * As mux_writev without waiting. A write of nothing never gives MUX_AGAIN. Not called any more after MUX_IO_FIN with
   * everything taken, a failure, or `reset`.
   */
  int64_t (*write)(void *channel, const struct mux_iovec *iov, int32_t n, uint32_t flags);
  /**
   * Abandons the sending direction: unsent data is dropped. Codes above those of applications come from the library:
   * where the wire cannot carry one, another is sent.
   */
  mux_status (*reset)(void *channel, uint64_t code);
  /**
   * Reads no more. Without MUX_CAP_STOP what arrives is dropped, and the peer is not told.
   */
  mux_status (*stop)(void *channel, uint64_t code);
  /**
   * Which of the events (enum mux_event_bit) hold for an object of enum mux_kind; of each that does not, mux_backend_ready
   * tells when it does. Asked of a session: CONNECTED, OPEN, DRAINED, CLOSED (over, and its transport released); of a channel
   * READ and WRITE (at least min bytes, or as much as can ever be), DRAINED, OPENED, and CLOSED, which means its sending
   * direction: finished and taken by the transport, stopped, or failed; of a listener CLOSED.
   */
  uint32_t (*ready)(uint32_t kind, void *object, uint32_t events, size_t min);
  /**
   * Fills in a failure. e->status is what a function gave for this object, or MUX_OK: then it is set to why the session
   * ended, or the channel's sending direction, and stays as it is while that lives and after a clean end. e->message is
   * empty: it may stay so.
   */
  void (*cause)(uint32_t kind, void *object, struct mux_error *e);
  /**
   * As mux_info: URL of a listener; LOCAL_ADDR, PEER_ADDR and with TLS the TLS keys of a session; LABEL and CHANNEL_ID (unique
   * among the live channels of a session) of a channel. 0 or MUX_EINVAL: it has none.
   */
  int64_t (*info)(uint32_t kind, void *object, uint32_t key, void *buf, size_t cap);
  /**
   * The last call for a listener.
   */
  void (*listener_free)(void *listener);
  /**
   * The last call for a session, after its channels were freed. One that was not closed is aborted by this.
   */
  void (*session_free)(void *session);
  /**
   * The last call for a channel: its directions were ended before, what was finished still goes out.
   */
  void (*channel_free)(void *channel);
  /**
   * Optional: what was negotiated with this peer; without it caps.
   */
  uint64_t (*session_caps)(void *session);
  /**
   * Optional: begins to measure the round trip, then MUX_AGAIN until the answer is there. Asked again after every
   * mux_backend_ready of the session.
   */
  mux_status (*ping)(void *session, uint64_t *rtt_us);
  /**
   * Optional: sends a datagram, or drops an older one that waits. MUX_ETOOBIG beyond MUX_INFO_MAX_DATAGRAM of `info`.
   */
  mux_status (*datagram_send)(void *session, const void *buf, size_t len);
  /**
   * Optional: takes the next datagram; buf has room for 64 KiB.
   */
  int64_t (*datagram_recv)(void *session, void *buf, size_t cap);
  /**
   * Optional: changes how urgent a channel is; as in mux_open_opts.
   */
  void (*set_priority)(void *channel, uint32_t urgency, uint32_t incremental);
  /**
   * Optional: counters of a session, or recv_buffered, send_buffered and send_credit of a channel.
   */
  void (*stats)(uint32_t kind, void *object, struct mux_stats *out);
  /**
   * Optional: takes certificates and limits for sessions to come.
   */
  mux_status (*reload)(void *listener, struct mux_config c, struct mux_error *err);
} mux_backend;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * A static text for a status, never NULL. [S]
 */
const char *mux_status_text(mux_status status);

/**
 * major << 16 | minor << 8 | patch. [S]
 */
uint32_t mux_version(void);

/**
 * The ABI: number of the soname << 16 | number of its newest node of symbols, 1 of MUX_0.1. Within a soname a larger one has
 * everything that a smaller one had, from 1.0 on. [S]
 */
uint32_t mux_abi(void);

/**
 * A static text: version and schemes.
 */
const char *mux_build_info(void);

/**
 * Why an object failed or ended: the first cause, for ever. Returns its status and fills out, which may be NULL; MUX_OK
 * while it lives, and for a channel whose directions both ended cleanly. A channel's is its own failure if it had one,
 * else why its session ended.
 */
mux_status mux_cause(mux_handle h, struct mux_error *out);

/**
 * Why one direction (enum mux_direction) of a channel failed, which mux_cause no longer tells when the other one failed before:
 * returns its status and fills out, which may be NULL; MUX_OK while it lives and after a clean end. Where the direction has
 * no failure of its own, why the session ended.
 *
 * MUX_EINVAL: another direction.
 */
mux_status mux_channel_cause(struct mux_channel ch,
                             uint32_t direction,
                             struct mux_error *out);

/**
 * Tells a fact (enum mux_info_key): copies at most cap bytes and returns the full length, so buf may be NULL when cap is
 * 0. A text is terminated where there is room; the length does not count that.
 *
 * MUX_EINVAL: unknown key, or one that this kind of handle does not have. MUX_ESTATE: the session is not connected yet.
 */
int64_t mux_info(mux_handle h,
                 uint32_t key,
                 void *buf,
                 size_t cap);

/**
 * Tells the counters of a session or channel, or with 0 those of the process.
 */
mux_status mux_stats_get(mux_handle h, struct mux_stats *out);

/**
 * Starts a runtime of its own, for programs that want to choose threads. Most do not need one: a zero mux_runtime means
 * the default runtime. End it with mux_runtime_shutdown; mux_close alone lets its sessions go on until they are closed.
 *
 * MUX_EINVAL: options out of range. MUX_EOS, MUX_ENOFILE, MUX_ENOMEM: the system refused threads or descriptors.
 */
MUX_MUST_CHECK mux_status mux_runtime_new(const struct mux_runtime_opts *opts, struct mux_runtime *out);

/**
 * Ends a runtime, the default one for a zero handle: closes every listener, session and channel handle that belongs to
 * it, lets what was finished flush for at most timeout_ms, then stops and joins its threads. The handles are dead
 * afterwards; configurations and queues live on. A later dial starts the default runtime anew. A program calls this
 * before it exits: unsent data does not outlive the process. [B]
 *
 * MUX_TIMEDOUT: it has ended, but data was lost. MUX_EINTR: it goes on ending, call again.
 */
mux_status mux_runtime_shutdown(struct mux_runtime rt, int32_t timeout_ms);

/**
 * Makes a configuration with every default. It is copied by dial and listen: changing or closing it afterwards does not
 * touch what was made with it.
 */
MUX_MUST_CHECK mux_status mux_config_new(struct mux_config *out);

/**
 * Chooses the runtime; a zero handle means the default one again.
 */
mux_status mux_config_set_runtime(struct mux_config c, struct mux_runtime rt);

/**
 * Sets a number by its key (enum mux_config_key). MUX_EINVAL: unknown key or out of range; nothing has changed.
 */
mux_status mux_config_set_u64(struct mux_config c, uint32_t key, uint64_t value);

/**
 * Reads a number by its key (enum mux_config_key), of a zero handle the default. MUX_EINVAL: unknown key.
 */
mux_status mux_config_get_u64(struct mux_config c, uint32_t key, uint64_t *value);

/**
 * Sets an option by the name that URLs use: mux_config_set_option(c, "window", "1m"). One that only one backend knows
 * ("ext" of qmux) is checked by that backend when it dials or listens; others do not look at it.
 *
 * MUX_EURL: no backend has such an option. MUX_EINVAL: a value that is not allowed.
 */
mux_status mux_config_set_option(struct mux_config c, const char *name, const char *value);

/**
 * The authorities to trust instead of the platform's, in PEM. err may be NULL, as in all functions that take one.
 */
mux_status mux_config_tls_ca(struct mux_config c, const void *pem, size_t len, struct mux_error *err);

/**
 * As mux_config_tls_ca, from a file that is read when a session is dialed or a listener bound.
 */
mux_status mux_config_tls_ca_file(struct mux_config c, const char *path, struct mux_error *err);

/**
 * Our certificate chain and its key, in PEM.
 */
mux_status mux_config_tls_identity(struct mux_config c,
                                   const void *cert_pem,
                                   size_t cert_len,
                                   const void *key_pem,
                                   size_t key_len,
                                   struct mux_error *err);

/**
 * As mux_config_tls_identity, from files that are read when a session is dialed or a listener bound.
 */
mux_status mux_config_tls_identity_files(struct mux_config c, const char *cert, const char *key, struct mux_error *err);

/**
 * The name to verify instead of the URL's host.
 */
mux_status mux_config_tls_server_name(struct mux_config c, const char *name);

/**
 * Accepts the certificate whose DER has this SHA-256 (32 bytes) instead of verifying chain and name. May be repeated.
 */
mux_status mux_config_tls_pin_sha256(struct mux_config c, const uint8_t *hash, size_t len);

/**
 * The application protocols to offer instead of the backend's own, separated by commas.
 */
mux_status mux_config_alpn(struct mux_config c, const char *comma_list);

/**
 * Connects to a URL such as "qmux://host:port" or "qmux+unix:///path", with a configuration or {0}. timeout_ms 0 returns
 * at once: with what is known to fail at once, else with a session that may still be connecting. Wait for
 * MUX_EV_CONNECTED on it, and ask mux_cause if that comes with MUX_EV_CLOSED. Any other timeout returns a connected session or none. err may be NULL. [B]
 *
 * MUX_EURL: unknown scheme, unknown option or malformed, the message lists what exists. MUX_EDNS, MUX_EREFUSED,
 * MUX_EUNREACH, MUX_ETLS, MUX_ECERT, MUX_EALPN, MUX_EPROTO: it cannot be had. MUX_TIMEDOUT: the attempt was given up.
 */
MUX_MUST_CHECK
mux_status mux_dial(const char *url,
                    struct mux_config c,
                    int32_t timeout_ms,
                    struct mux_session *out,
                    struct mux_error *err);

/**
 * Listens on a URL; port 0 lets the system choose, MUX_INFO_URL then has the real one. err may be NULL. [B] for the
 * lookup of a name; an address or a path needs no waiting.
 *
 * MUX_EURL as in mux_dial; MUX_EADDRINUSE, MUX_EACCESS, MUX_EDNS.
 */
MUX_MUST_CHECK
mux_status mux_listen(const char *url,
                      struct mux_config c,
                      int32_t timeout_ms,
                      struct mux_listener *out,
                      struct mux_error *err);

/**
 * Takes the next session whose handshake is complete. err may be NULL. [B]
 *
 * MUX_ECLOSED: the listener was shut down or closed.
 */
MUX_MUST_CHECK
mux_status mux_accept(struct mux_listener l,
                      int32_t timeout_ms,
                      struct mux_session *out,
                      struct mux_error *err);

/**
 * Takes certificates and limits from a configuration for the sessions that come from now on. The whole configuration
 * counts: what the listener's own URL said about certificates counts no more. err may be NULL.
 *
 * MUX_EUNSUPPORTED: this kind of listener cannot. Otherwise what is wrong with c; nothing has changed then.
 */
mux_status mux_listener_reload(struct mux_listener l, struct mux_config c, struct mux_error *err);

/**
 * Runs a session over descriptors that are connected already: one socket (rfd equal to wfd), or a pair of pipes or
 * terminals, such as 0 and 1. proto is the scheme without a transport: "qmux", "h2c". Returns at once, as mux_dial with
 * timeout 0 does. The library works on copies and leaves O_NONBLOCK as it is: the caller may close its own at once, and
 * with MUX_FD_OWN the library does that. err may be NULL.
 *
 * MUX_EUNSUPPORTED: a wire that needs packets or TLS. MUX_EURL: no such scheme. MUX_EOS: not open descriptors of streams;
 * they are left as they were.
 */
MUX_MUST_CHECK
mux_status mux_session_from_fds(mux_fd rfd,
                                mux_fd wfd,
                                uint32_t fd_flags,
                                const char *proto,
                                uint32_t role,
                                struct mux_config c,
                                struct mux_session *out,
                                struct mux_error *err);

/**
 * Runs a session over a transport of the application's own, without callbacks: the bytes of the channel *wire are the
 * transport's. What mux_read takes from it is to be sent to the peer, what the peer sends goes in by mux_write. It is watched
 * like any channel; mux_finish on it is the end of the transport, mux_reset its failure. Carry on until it reads 0: what a
 * closed session still says is among its last bytes. Both handles are the caller's to close.
 *
 * Errors as of mux_session_from_fds.
 */
MUX_MUST_CHECK
mux_status mux_session_from_wire(const char *proto,
                                 uint32_t role,
                                 struct mux_config c,
                                 struct mux_session *out,
                                 struct mux_channel *wire,
                                 struct mux_error *err);

/**
 * Runs a session over functions of the application, which are called from threads of the library with no lock held: read and
 * write from one thread at a time each, shutdown once when the session has let go (a read that waits must return then), free
 * once, last. Without MUX_WIRE_BLOCKING they must not wait but return MUX_AGAIN, and mux_io_ready says when to try again; with
 * it each gets a thread of its own. free is called also when this fails, unless io is NULL or its struct_size is wrong.
 *
 * MUX_EINVAL: a function that is missing. Otherwise as mux_session_from_fds.
 */
MUX_MUST_CHECK
mux_status mux_session_from_io(const struct mux_io *io,
                               const char *proto,
                               uint32_t role,
                               struct mux_config c,
                               struct mux_session *out,
                               struct mux_error *err);

/**
 * Says that a function of mux_io which returned MUX_AGAIN is to be called again: MUX_EV_READ, MUX_EV_WRITE or both. May be
 * called too often, at any time, from anywhere.
 *
 * MUX_ESTATE: the session does not run over functions.
 */
mux_status mux_io_ready(struct mux_session s,
                        uint32_t events);

/**
 * Hands the bytes of a channel to a connected AF_UNIX stream socket, for read(2), splice(2) or a child process: *out is
 * the caller's to close. What is read there came from the peer, what is written there goes to it; its end of writing is
 * ours. The channel's handle stays: it tells the cause, which the socket cannot, and closing it ends the transfer. Reads and
 * writes on it are MUX_ESTATE from now on.
 *
 * MUX_ESTATE: handed over before, or a borrow is out. MUX_ENOFILE: no descriptors left.
 */
MUX_MUST_CHECK
mux_status mux_channel_to_fd(struct mux_channel ch,
                             mux_fd *out);

/**
 * What every session of a scheme ("qmux", "qmux+unix") can do with a libmux peer: bits of enum mux_cap.
 */
MUX_MUST_CHECK mux_status mux_scheme_caps(const char *scheme, uint64_t *caps);

/**
 * What this session can do, as negotiated with this peer. MUX_ESTATE: it is not connected yet.
 */
MUX_MUST_CHECK mux_status mux_session_caps(struct mux_session s, uint64_t *caps);

/**
 * Refuses new channels from now on, safe for the peer to retry elsewhere, and lets the old ones finish.
 */
mux_status mux_session_drain(struct mux_session s);

/**
 * Begins the end of a session or listener; the handle stays. A session flushes what was finished, resets the rest and
 * tells the peer code and reason (UTF-8, may be NULL); MUX_EV_CLOSED says that it is over. mux_close alone does the same
 * in the background. A listener stops listening, its sessions live on.
 *
 * MUX_EINVAL: a code of 2^62-256 or above. MUX_ETOOBIG: a reason of more than 1024 bytes.
 */
mux_status mux_shutdown(mux_handle h,
                        uint64_t code,
                        const char *reason);

/**
 * Measures the round trip to the peer's library, in microseconds. [B]
 *
 * MUX_EUNSUPPORTED: the wire has no ping. MUX_ESTATE: not connected yet. Otherwise why the session ended.
 */
MUX_MUST_CHECK mux_status mux_ping(struct mux_session s, int32_t timeout_ms, uint64_t *rtt_us);

/**
 * Sends a message that may be lost, or overtake others, of at most MUX_INFO_MAX_DATAGRAM bytes.
 *
 * MUX_EUNSUPPORTED: the session has no datagrams. MUX_ETOOBIG: it is too long for the path.
 */
mux_status mux_datagram_send(struct mux_session s, const void *buf, size_t len);

/**
 * Takes the next message: its length, which may be 0, or a negative status. [B]
 *
 * MUX_ETOOBIG: it is longer than cap, and waits for a call with more room. MUX_EUNSUPPORTED: the session has no datagrams.
 */
int64_t mux_datagram_recv(struct mux_session s,
                          void *buf,
                          size_t cap,
                          int32_t timeout_ms);

/**
 * Opens a channel, which can be written at once and which the peer sees even if nothing is written. opts may be NULL.
 * Waits while the session connects and while the peer's open credit is used up. [B]
 *
 * MUX_EUNSUPPORTED: a label on a session without labels. MUX_ETOOBIG: it is too long. MUX_EGOAWAY: the peer takes no new
 * channels. MUX_ELIMIT: no memory budget for another one. Otherwise why the session ended.
 */
MUX_MUST_CHECK
mux_status mux_channel_open(struct mux_session s,
                            const struct mux_open_opts *opts,
                            int32_t timeout_ms,
                            struct mux_channel *out);

/**
 * Takes the next channel that the peer opened. Channels that arrived before the session's end come first. [B]
 */
MUX_MUST_CHECK mux_status mux_channel_accept(struct mux_session s, int32_t timeout_ms, struct mux_channel *out);

/**
 * Takes up to max channels that wait, without waiting for more: the count, 0 if none, or a negative status.
 */
int64_t mux_channel_accept_many(struct mux_session s, struct mux_channel *out, int32_t max);

/**
 * Changes how urgent a channel is beside others: a hint. urgency and incremental as in mux_open_opts.
 */
mux_status mux_channel_set_priority(struct mux_channel ch, uint32_t urgency, uint32_t incremental);

/**
 * Ends the life of a handle, whatever its kind; never blocks. Calls that sleep on it return MUX_ECLOSED.
 *
 * A channel finishes what was written in the background and stops receiving with code 0. A session lets finished
 * channels flush first, at most MUX_CFG_LINGER_MS; its channels end, but their handles are yours to close, in any order.
 * A listener stops. A queue forgets its watches and its fd is closed. Of a configuration or runtime nothing is taken
 * from what was made with it. On an error path use mux_abort, so that the peer does not see a clean end.
 *
 * MUX_EHANDLE: closed before; harmless.
 */
mux_status mux_close(mux_handle h);

/**
 * Reads what is there, at most len bytes: the count, 0 at the clean end of the stream, which stays the end, or a
 * negative status. flags must be 0, len must not. Bytes that arrived in order before the peer's or the session's end are
 * read first. [B]
 *
 * MUX_ERESET: the peer abandoned its direction, mux_cause has the code. MUX_EFINISHED: after mux_stop. MUX_ECLOSED and
 * others: the session ended; this is never mistaken for the end of the stream.
 */
int64_t mux_read(struct mux_channel ch,
                 void *buf,
                 size_t len,
                 uint32_t flags,
                 int32_t timeout_ms);

/**
 * Writes some of len bytes: the count, or a negative status. A write of nothing is allowed; with MUX_IO_FIN it ends the
 * direction, as mux_finish does. MUX_IO_FIN counts only when all len bytes were taken. What was taken is the library's to
 * deliver; buf is yours again. [B]
 *
 * MUX_ESTOPPED: the peer asked to stop, mux_cause has the code. MUX_EFINISHED: the direction was ended. MUX_EREFUSED: the
 * peer refused the channel, safe to retry if mux_cause says so. Otherwise why the session ended.
 */
int64_t mux_write(struct mux_channel ch,
                  const void *buf,
                  size_t len,
                  uint32_t flags,
                  int32_t timeout_ms);

/**
 * As mux_read, into n pieces (1 to 1024) in order. [B]
 */
int64_t mux_readv(struct mux_channel ch, const struct mux_iovec *iov, int32_t n, uint32_t flags, int32_t timeout_ms);

/**
 * As mux_write, from n pieces (1 to 1024) in order. [B]
 */
int64_t mux_writev(struct mux_channel ch, const struct mux_iovec *iov, int32_t n, uint32_t flags, int32_t timeout_ms);

/**
 * Reads exactly len bytes; timeout_ms covers the whole call. *done, which may be NULL, says how far it got in every case
 * but a bad handle or argument. [B]
 *
 * MUX_EFINISHED: the stream ended cleanly before len bytes. Otherwise as mux_read.
 */
MUX_MUST_CHECK
mux_status mux_read_exact(struct mux_channel ch,
                          void *buf,
                          size_t len,
                          int32_t timeout_ms,
                          size_t *done);

/**
 * Writes all len bytes; timeout_ms covers the whole call. With MUX_IO_FIN data and end travel together. *done, which may
 * be NULL, says how far it got in every case but a bad handle or argument. [B]
 *
 * As mux_write.
 */
MUX_MUST_CHECK
mux_status mux_write_all(struct mux_channel ch,
                         const void *buf,
                         size_t len,
                         uint32_t flags,
                         int32_t timeout_ms,
                         size_t *done);

/**
 * Ends my direction: the peer reads everything written, then the end. The other direction goes on. MUX_EFINISHED: it was
 * ended before.
 */
mux_status mux_finish(struct mux_channel ch);

/**
 * Abandons my direction: unsent data is dropped and the peer's reads fail with code (0 to 2^62-257, portably 0 to
 * 2^32-1). MUX_EUNSUPPORTED: this session cannot carry the code.
 */
mux_status mux_reset(struct mux_channel ch, uint64_t code);

/**
 * Reads no more: what waits is dropped and the peer's writes fail with code. MUX_EUNSUPPORTED: this session cannot tell
 * the peer (MUX_CAP_STOP).
 */
mux_status mux_stop(struct mux_channel ch, uint64_t code);

/**
 * Reset, stop and close in one: for error paths. The peer never sees a clean end. Where the session cannot carry the
 * code, or cannot stop the peer, it does what it can. MUX_EINVAL: code out of range, the channel lives on.
 */
mux_status mux_abort(struct mux_channel ch, uint64_t code);

/**
 * Reads what is there without copying it: fills in up to *n slices (at most 1024), sets *n to their number, and returns
 * their bytes together, at most 256 KiB; 0 at the clean end, with nothing lent. The slices may be read until *out is released,
 * also if the channel is closed meanwhile. Until then every other read of the channel is MUX_ESTATE. [B]
 *
 * Errors as of mux_read.
 */
int64_t mux_read_borrow(struct mux_channel ch,
                        struct mux_iovec *iov,
                        int32_t *n,
                        int32_t timeout_ms,
                        struct mux_borrow *out);

/**
 * Gives slices back; the handle is dead afterwards. The first consumed bytes of them were used, the next read begins
 * behind. mux_close does the same with all of them.
 *
 * MUX_EINVAL: more than was lent; nothing has changed.
 */
mux_status mux_borrow_release(struct mux_borrow b, size_t consumed);

/**
 * Waits until one of the events (enum mux_event_bit) holds; *ready, which may be NULL, says which do. MUX_EV_CLOSED is
 * always among those waited for. Takes nothing: read, write and accept do. [B]
 *
 * MUX_EUNSUPPORTED: MUX_EV_OPENED on a session without MUX_CAP_OPENED.
 */
MUX_MUST_CHECK mux_status mux_wait(mux_handle h, uint32_t events, int32_t timeout_ms, uint32_t *ready);

/**
 * Makes blocking calls on a listener, session, channel or queue return MUX_CANCELED, those that sleep now and those to
 * come, until mux_resume. Calls with timeout 0 are not affected.
 */
mux_status mux_interrupt(mux_handle h);

/**
 * Undoes mux_interrupt.
 */
mux_status mux_resume(mux_handle h);

/**
 * Makes a readiness queue. Which runtime drives what it watches does not matter; rt must be 0 or a live runtime.
 */
MUX_MUST_CHECK mux_status mux_queue_new(struct mux_runtime rt, struct mux_queue *out);

/**
 * A descriptor that is readable while mux_queue_next has something to do, for poll, epoll and event loops. It stays the
 * queue's: do not read, write or close it. An edge-triggered poller calls mux_queue_next until it returns less than max.
 */
mux_status mux_queue_fd(struct mux_queue q,
                        mux_fd *out);

/**
 * Has the queue report a listener, session or channel when one of the events holds, now or later: the order of "try, get
 * MUX_AGAIN, watch" loses nothing. The receive side (ACCEPT, READ) and the send side (CONNECTED, OPEN, WRITE, DRAINED,
 * OPENED) are watched apart, each by one queue at most: a watch replaces the earlier one of the sides it names.
 * MUX_EV_CLOSED is always reported. mode is enum mux_watch_mode; user comes back in mux_event.
 */
mux_status mux_watch(struct mux_queue q,
                     mux_handle h,
                     uint32_t events,
                     uint32_t mode,
                     uint64_t user);

/**
 * Ends what this queue watches of a handle: no later mux_queue_next returns it. One that runs in another thread at this
 * moment still may.
 */
mux_status mux_unwatch(struct mux_queue q, mux_handle h);

/**
 * How many bytes must wait, or be writable, before a channel is reported as ready; what can never be reached counts as
 * all there can be. 0 means 1, the default. An end or a failure is always reported.
 */
mux_status mux_watch_low_water(struct mux_channel ch, size_t read_min, size_t write_min);

/**
 * Takes up to max events: the count, 0 after mux_queue_wake, or a negative status. A reported watch of mode ONESHOT is
 * over; one of mode LEVEL comes again while it holds. Readiness may be spurious, it is never missed. [B]
 */
int64_t mux_queue_next(struct mux_queue q, struct mux_event *out, int32_t max, int32_t timeout_ms);

/**
 * Makes one mux_queue_next return 0, one that sleeps or the next to come. [S] as long as no other thread closes the queue
 * at that moment.
 */
mux_status mux_queue_wake(struct mux_queue q);

/**
 * Has a function called when the queue's list becomes non-empty, for event loops that take no descriptor: once each time,
 * from any thread, with no lock held. It should do no more than wake the loop (uv_async_send, PostMessage), which then calls
 * mux_queue_next until it returns less than max; with watches of mode ONESHOT, because LEVEL ones never run out. NULL ends it.
 * Returns when an earlier function runs no more, so that its ctx may be freed. mux_queue_wake does not call it.
 *
 * MUX_EREENTRANT: from within a callback.
 */
mux_status mux_queue_set_waker(struct mux_queue q,
                               mux_wake_fn function,
                               void *ctx);

/**
 * Chooses what is logged: 0 nothing, 1 errors, 2 warnings, 3 information, 4 debugging, 5 everything. What happens from now
 * on is given to fn, from a thread of the library, in order; without fn (NULL) it waits for mux_log_pull. The 1,024 newest
 * lines are kept. Returns when the earlier fn runs no more, so that its ctx may be freed. Before a level was chosen nothing is
 * logged, and nothing is spent on it.
 *
 * MUX_EINVAL: another level. MUX_EREENTRANT: from within a callback.
 */
mux_status mux_log_callback(int32_t level,
                            mux_log_fn function,
                            void *ctx);

/**
 * Takes the oldest line that waits, "target: text", its level to *level, which may be NULL: copies at most cap bytes and
 * returns the full length. MUX_AGAIN: none waits.
 */
int64_t mux_log_pull(char *buf,
                     size_t cap,
                     int32_t *level);

/**
 * Adds a backend of the application's own: from now on its schemes can be dialed and listened on, by every function that
 * takes a URL. b is copied; what its functions are called with, and when, stands at struct mux_backend. There is no way to
 * take it back: its code and ctx live as long as the process. err may be NULL.
 *
 * MUX_EINVAL: a function that is missing, a malformed scheme, unknown bits. MUX_ESTATE: a scheme is registered already.
 */
mux_status mux_backend_register(const struct mux_backend *b,
                                void *ctx,
                                struct mux_error *err);

/**
 * Says that what a function of a backend answered with MUX_AGAIN, or did not report as ready, can be asked again: the events
 * (enum mux_event_bit) that may hold now for the listener, session or channel of this cookie. MUX_EV_CLOSED counts for everything
 * that waits there, and of a session for its channels too. May be called too often, at any time, from anywhere, also with
 * locks held that the backend's functions take, and from within them: nothing of the backend or the application is called before
 * it returns.
 *
 * MUX_EHANDLE: the object was freed, or never came to be; harmless. MUX_EINVAL: events that its kind does not have.
 */
mux_status mux_backend_ready(uint64_t cookie,
                             uint32_t events);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MUX_H */
