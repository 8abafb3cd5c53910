/* Wrong arguments and wrong handles: a status, never a crash, and nothing has changed. */
#include "t.h"

enum { KINDS = 7 };
static mux_handle live[KINDS]; /* one of each kind, by MUX_KIND - 1 */
static const char *listen_url;

/* Every function with a handle parameter, as a function of the handle alone. */
#define CALLS                                                                        \
  X(session_caps, mux_session_caps((mux_session){h}, &u64), MUX_KIND_SESSION)        \
  X(session_drain, mux_session_drain((mux_session){h}), MUX_KIND_SESSION)            \
  X(open, mux_channel_open((mux_session){h}, NULL, 0, &ch), MUX_KIND_SESSION)        \
  X(accept_channel, mux_channel_accept((mux_session){h}, 0, &ch), MUX_KIND_SESSION)  \
  X(accept_many, mux_channel_accept_many((mux_session){h}, &ch, 1), MUX_KIND_SESSION) \
  X(accept, mux_accept((mux_listener){h}, 0, &s, NULL), MUX_KIND_LISTENER)           \
  X(priority, mux_channel_set_priority((mux_channel){h}, 1, 0), MUX_KIND_CHANNEL)    \
  X(read, mux_read((mux_channel){h}, buf, 1, 0, 0), MUX_KIND_CHANNEL)                \
  X(write, mux_write((mux_channel){h}, buf, 0, 0, 0), MUX_KIND_CHANNEL)              \
  X(readv, mux_readv((mux_channel){h}, &iov, 1, 0, 0), MUX_KIND_CHANNEL)             \
  X(writev, mux_writev((mux_channel){h}, &iov, 1, 0, 0), MUX_KIND_CHANNEL)           \
  X(read_exact, mux_read_exact((mux_channel){h}, buf, 1, 0, NULL), MUX_KIND_CHANNEL) \
  X(write_all, mux_write_all((mux_channel){h}, buf, 1, 0, 0, NULL), MUX_KIND_CHANNEL) \
  X(finish, mux_finish((mux_channel){h}), MUX_KIND_CHANNEL)                          \
  X(reset, mux_reset((mux_channel){h}, 1), MUX_KIND_CHANNEL)                         \
  X(stop, mux_stop((mux_channel){h}, 1), MUX_KIND_CHANNEL)                           \
  X(abort, mux_abort((mux_channel){h}, 1), MUX_KIND_CHANNEL)                         \
  X(borrow, mux_read_borrow((mux_channel){h}, &iov, &one, 0, &lent), MUX_KIND_CHANNEL) \
  X(to_fd, mux_channel_to_fd((mux_channel){h}, &fd), MUX_KIND_CHANNEL)               \
  X(release, mux_borrow_release((mux_borrow){h}, 0), MUX_KIND_BORROW)                \
  X(ping, mux_ping((mux_session){h}, 0, &u64), MUX_KIND_SESSION)                     \
  X(datagram_send, mux_datagram_send((mux_session){h}, buf, 1), MUX_KIND_SESSION)    \
  X(datagram_recv, mux_datagram_recv((mux_session){h}, buf, 1, 0), MUX_KIND_SESSION) \
  X(io_ready, mux_io_ready((mux_session){h}, MUX_EV_READ), MUX_KIND_SESSION)         \
  X(reload, mux_listener_reload((mux_listener){h}, defaults, NULL), MUX_KIND_LISTENER) \
  X(set_waker, mux_queue_set_waker((mux_queue){h}, NULL, NULL), MUX_KIND_QUEUE)      \
  X(low_water, mux_watch_low_water((mux_channel){h}, 1, 1), MUX_KIND_CHANNEL)        \
  X(queue_fd, mux_queue_fd((mux_queue){h}, &fd), MUX_KIND_QUEUE)                     \
  X(queue_next, mux_queue_next((mux_queue){h}, &ev, 1, 0), MUX_KIND_QUEUE)           \
  X(queue_wake, mux_queue_wake((mux_queue){h}), MUX_KIND_QUEUE)                      \
  X(watch_q, mux_watch((mux_queue){h}, live[3], MUX_EV_ACCEPT, 0, 0), MUX_KIND_QUEUE) \
  X(unwatch_q, mux_unwatch((mux_queue){h}, live[3]), MUX_KIND_QUEUE)                 \
  X(set_u64, mux_config_set_u64((mux_config){h}, MUX_CFG_LINGER_MS, 5), MUX_KIND_CONFIG) \
  X(set_option, mux_config_set_option((mux_config){h}, "window", "64k"), MUX_KIND_CONFIG) \
  X(alpn, mux_config_alpn((mux_config){h}, "a"), MUX_KIND_CONFIG)                    \
  X(ca, mux_config_tls_ca((mux_config){h}, "x", 1, NULL), MUX_KIND_CONFIG)           \
  X(ca_file, mux_config_tls_ca_file((mux_config){h}, "x", NULL), MUX_KIND_CONFIG)    \
  X(identity, mux_config_tls_identity((mux_config){h}, "x", 1, "x", 1, NULL), MUX_KIND_CONFIG) \
  X(identity_files, mux_config_tls_identity_files((mux_config){h}, "x", "x", NULL), MUX_KIND_CONFIG) \
  X(server_name, mux_config_tls_server_name((mux_config){h}, "x"), MUX_KIND_CONFIG)  \
  X(pin, mux_config_tls_pin_sha256((mux_config){h}, (const uint8_t *)buf, 32), MUX_KIND_CONFIG) \
  X(set_runtime, mux_config_set_runtime((mux_config){h}, (mux_runtime){0}), MUX_KIND_CONFIG)

#define X(name, call, kind)                                                          \
  static int64_t call_##name(mux_handle h) {                                         \
    uint64_t u64; mux_channel ch; mux_session s; mux_fd fd; mux_event ev; char buf[32] = {0}; mux_borrow lent; int32_t one = 1; \
    mux_iovec iov; iov.base = buf; iov.len = 1;                                      \
    (void)u64; (void)ch; (void)s; (void)fd; (void)ev; (void)buf; (void)iov; (void)lent; (void)one;          \
    return call;                                                                     \
  }
CALLS
#undef X

static const struct {
  const char *name;
  int64_t (*call)(mux_handle);
  int kind;
} calls[] = {
#define X(name, call, kind) {#name, call_##name, kind},
    CALLS
#undef X
};

static void wrong_handles(mux_handle stale) {
  const mux_handle wrong[] = {0, 1, 7, ~(mux_handle)0, stale, stale + 1, (mux_handle)31 << 58 | 1, live[3] ^ ((mux_handle)1 << 40),
                              live[3] | (mux_handle)1 << 63, 0xFFFFFFFFu};
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
    for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
      int64_t got = calls[i].call(wrong[w]);
      if (got != MUX_EHANDLE) fprintf(stderr, "%s(%llx)\n", calls[i].name, (unsigned long long)wrong[w]);
      EQ(got, MUX_EHANDLE);
    }
    for (int kind = 1; kind <= KINDS; kind++) {
      if (kind == calls[i].kind) continue;
      int64_t got = calls[i].call(live[kind - 1]);
      if (got != MUX_EKIND) fprintf(stderr, "%s of kind %d\n", calls[i].name, kind);
      EQ(got, MUX_EKIND);
    }
  }
  mux_error e;
  char buf[8];
  uint32_t ready;
  mux_stats st = {0};
  st.struct_size = sizeof st;
  no_error(&e);
  for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
    EQ(mux_close(wrong[w]), MUX_EHANDLE);
    EQ(mux_interrupt(wrong[w]), MUX_EHANDLE);
    EQ(mux_resume(wrong[w]), MUX_EHANDLE);
    EQ(mux_wait(wrong[w], MUX_EV_READ, 0, &ready), MUX_EHANDLE);
    EQ(mux_cause(wrong[w], &e), MUX_EHANDLE);
    EQ(mux_info(wrong[w], MUX_INFO_KIND, buf, sizeof buf), MUX_EHANDLE);
    EQ(mux_shutdown(wrong[w], 0, NULL), MUX_EHANDLE);
    EQ(mux_watch((mux_queue){live[5]}, wrong[w], MUX_EV_READ, 0, 0), MUX_EHANDLE);
    EQ(mux_unwatch((mux_queue){live[5]}, wrong[w]), MUX_EHANDLE);
    if (wrong[w] != 0) {
      EQ(mux_stats_get(wrong[w], &st), MUX_EHANDLE);
      EQ(mux_runtime_shutdown((mux_runtime){wrong[w]}, 0), MUX_EHANDLE);
    }
  }
  EQ(e.status, 0); /* never written */
  for (int kind = 1; kind <= KINDS; kind++) {
    mux_handle h = live[kind - 1];
    int waits = kind == MUX_KIND_LISTENER || kind == MUX_KIND_SESSION || kind == MUX_KIND_CHANNEL;
    if (!waits) {
      EQ(mux_wait(h, MUX_EV_CLOSED, 0, NULL), MUX_EKIND);
      EQ(mux_watch((mux_queue){live[5]}, h, MUX_EV_CLOSED, 0, 0), MUX_EKIND);
      EQ(mux_cause(h, &e), MUX_EKIND);
      EQ(mux_shutdown(h, 0, NULL), MUX_EKIND);
      EQ(mux_stats_get(h, &st), MUX_EKIND);
    }
    uint32_t told = 0;
    EQ(mux_info(h, MUX_INFO_KIND, &told, sizeof told), 4);
    EQ(told, kind);
  }
  EQ(mux_runtime_shutdown((mux_runtime){live[3]}, 0), MUX_EKIND);
}

static void null_pointers(void) {
  mux_channel ch = {live[4]};
  mux_session s = {live[3]};
  mux_listener l = {live[2]};
  mux_config c = {live[1]};
  mux_queue q = {live[5]};
  mux_runtime rt = {0};
  mux_iovec none = {NULL, 4};
  EQ(mux_dial(NULL, defaults, 0, &s, NULL), MUX_EINVAL);
  EQ(mux_dial("qmux://127.0.0.1:1", defaults, 0, NULL, NULL), MUX_EINVAL);
  EQ(mux_listen(NULL, defaults, 0, &l, NULL), MUX_EINVAL);
  EQ(mux_listen(listen_url, defaults, 0, NULL, NULL), MUX_EINVAL);
  EQ(mux_accept(l, 0, NULL, NULL), MUX_EINVAL);
  EQ(mux_channel_open(s, NULL, 0, NULL), MUX_EINVAL);
  EQ(mux_channel_accept(s, 0, NULL), MUX_EINVAL);
  EQ(mux_channel_accept_many(s, NULL, 1), MUX_EINVAL);
  EQ(mux_scheme_caps(NULL, NULL), MUX_EINVAL);
  EQ(mux_scheme_caps("qmux", NULL), MUX_EINVAL);
  EQ(mux_session_caps(s, NULL), MUX_EINVAL);
  EQ(mux_read(ch, NULL, 1, 0, 0), MUX_EINVAL);
  EQ(mux_write(ch, NULL, 1, 0, 0), MUX_EINVAL);
  EQ(mux_readv(ch, NULL, 1, 0, 0), MUX_EINVAL);
  EQ(mux_writev(ch, NULL, 1, 0, 0), MUX_EINVAL);
  EQ(mux_readv(ch, &none, 1, 0, 0), MUX_EINVAL);
  EQ(mux_writev(ch, &none, 1, 0, 0), MUX_EINVAL);
  EQ(mux_read_exact(ch, NULL, 1, 0, NULL), MUX_EINVAL);
  EQ(mux_write_all(ch, NULL, 1, 0, 0, NULL), MUX_EINVAL);
  EQ(mux_queue_new(rt, NULL), MUX_EINVAL);
  EQ(mux_queue_fd(q, NULL), MUX_EINVAL);
  EQ(mux_channel_to_fd(ch, NULL), MUX_EINVAL);
  EQ(mux_datagram_send(s, NULL, 1), MUX_EINVAL);
  EQ(mux_datagram_recv(s, NULL, 1, 0), MUX_EINVAL);
  EQ(mux_session_from_fds(0, 0, 0, NULL, 0, defaults, &s, NULL), MUX_EINVAL);
  EQ(mux_session_from_fds(0, 0, 0, "qmux", 0, defaults, NULL, NULL), MUX_EINVAL);
  EQ(mux_session_from_wire(NULL, 0, defaults, &s, &ch, NULL), MUX_EINVAL);
  EQ(mux_session_from_wire("qmux", 0, defaults, NULL, &ch, NULL), MUX_EINVAL);
  EQ(mux_session_from_wire("qmux", 0, defaults, &s, NULL, NULL), MUX_EINVAL);
  EQ(mux_session_from_wire("qmux", 2, defaults, &s, &ch, NULL), MUX_EINVAL);
  EQ(mux_log_callback(-1, NULL, NULL), MUX_EINVAL);
  EQ(mux_log_pull(NULL, 1, NULL), MUX_EINVAL);
  EQ(mux_queue_next(q, NULL, 1, 0), MUX_EINVAL);
  EQ(mux_config_new(NULL), MUX_EINVAL);
  EQ(mux_config_set_option(c, NULL, "1"), MUX_EINVAL);
  EQ(mux_config_set_option(c, "window", NULL), MUX_EINVAL);
  EQ(mux_config_tls_ca(c, NULL, 1, NULL), MUX_EINVAL);
  EQ(mux_config_tls_ca_file(c, NULL, NULL), MUX_EINVAL);
  EQ(mux_config_tls_identity(c, NULL, 1, NULL, 1, NULL), MUX_EINVAL);
  EQ(mux_config_tls_identity_files(c, NULL, NULL, NULL), MUX_EINVAL);
  EQ(mux_config_tls_server_name(c, NULL), MUX_EINVAL);
  EQ(mux_config_tls_pin_sha256(c, NULL, 32), MUX_EINVAL);
  EQ(mux_config_alpn(c, NULL), MUX_EINVAL);
  EQ(mux_runtime_new(NULL, NULL), MUX_EINVAL);
  EQ(mux_stats_get(0, NULL), MUX_EINVAL);
  EQ(mux_info(s.h, MUX_INFO_URL, NULL, 1), MUX_EINVAL);
  CHECK(mux_info(s.h, MUX_INFO_URL, NULL, 0) > 0);
  OK(mux_cause(s.h, NULL));
}

static void values_out_of_range(void) {
  mux_channel ch = {live[4]}, out = {99};
  mux_session s = {live[3]};
  mux_config c = {live[1]};
  mux_queue q = {live[5]};
  mux_error e;
  mux_event ev;
  char buf[4] = {0};
  mux_iovec empty = {buf, 0};
  mux_open_opts opts = {0};
  mux_runtime_opts ropts = {0};
  mux_runtime rt;
  uint32_t ready;
  EQ(mux_read(ch, buf, 0, 0, 0), MUX_EINVAL); /* 0 bytes would look like the end */
  EQ(mux_read(ch, buf, 4, 1, 0), MUX_EINVAL);
  EQ(mux_read(ch, buf, 4, 0, -2), MUX_EINVAL);
  EQ(mux_read(ch, buf, SIZE_MAX, 0, 0), MUX_AGAIN);
  EQ(mux_write(ch, buf, 4, 4, 0), MUX_EINVAL);
  EQ(mux_write(ch, buf, 0, 0, 0), 0);
  EQ(mux_readv(ch, &empty, 1, 0, 0), MUX_EINVAL);
  EQ(mux_readv(ch, &empty, 0, 0, 0), MUX_EINVAL);
  EQ(mux_readv(ch, &empty, -1, 0, 0), MUX_EINVAL);
  EQ(mux_writev(ch, &empty, 1025, 0, 0), MUX_EINVAL);
  EQ(mux_writev(ch, &empty, 1, 0, 0), 0);
  EQ(mux_reset(ch, UINT64_MAX), MUX_EINVAL);
  EQ(mux_reset(ch, (1ull << 62) - 256), MUX_EINVAL);
  EQ(mux_stop(ch, 1ull << 62), MUX_EINVAL);
  EQ(mux_abort(ch, 1ull << 62), MUX_EINVAL);
  EQ(mux_shutdown(s.h, 1ull << 62, NULL), MUX_EINVAL);
  EQ(mux_channel_set_priority(ch, 9, 0), MUX_EINVAL);
  EQ(mux_channel_set_priority(ch, 1, 2), MUX_EINVAL);
  EQ(mux_wait(ch.h, 0, 0, &ready), MUX_EINVAL);
  EQ(mux_wait(ch.h, MUX_EV_ACCEPT, 0, &ready), MUX_EINVAL);
  EQ(mux_wait(s.h, MUX_EV_READ, 0, &ready), MUX_EINVAL);
  EQ(mux_wait(s.h, 1u << 31, 0, &ready), MUX_EINVAL);
  EQ(mux_watch(q, ch.h, MUX_EV_READ, 2, 0), MUX_EINVAL);
  EQ(mux_watch(q, ch.h, 0, 0, 0), MUX_EINVAL);
  EQ(mux_queue_next(q, &ev, 0, 0), MUX_EINVAL);
  EQ(mux_queue_next(q, &ev, -5, 0), MUX_EINVAL);
  EQ(mux_channel_accept_many(s, &out, 0), MUX_EINVAL);
  EQ(mux_info(s.h, 0, buf, 4), MUX_EINVAL);
  EQ(mux_info(s.h, 13, buf, 4), MUX_EINVAL);
  EQ(mux_info(s.h, MUX_INFO_LABEL, buf, 4), MUX_EINVAL);
  EQ(mux_info(live[1], MUX_INFO_URL, buf, 4), MUX_EINVAL);
  EQ(mux_config_set_u64(c, 0, 1), MUX_EINVAL);
  EQ(mux_config_set_u64(c, MUX_CFG_CHANNEL_WINDOW, 1), MUX_EINVAL);
  EQ(mux_config_set_u64(c, MUX_CFG_CONNECT_MS, UINT64_MAX), MUX_EINVAL);
  EQ(mux_config_set_u64(c, MUX_CFG_FRAME_SIZE, UINT64_MAX), MUX_EINVAL);
  EQ(mux_config_set_option(c, "no_such_option", "1"), MUX_EURL);
  EQ(mux_config_set_option(c, "window", "many"), MUX_EINVAL);
  EQ(mux_config_set_option(c, "window", "\xff"), MUX_EINVAL);
  EQ(mux_config_tls_pin_sha256(c, (const uint8_t *)"abc", 3), MUX_EINVAL);
  EQ(mux_config_alpn(c, "a,,b"), MUX_EINVAL);
  EQ(mux_channel_open(s, &opts, 0, &out), MUX_EINVAL); /* struct_size 0 */
  opts.struct_size = 1u << 30;
  EQ(mux_channel_open(s, &opts, 0, &out), MUX_EINVAL);
  opts.struct_size = sizeof opts;
  opts.flags = 1;
  EQ(mux_channel_open(s, &opts, 0, &out), MUX_EINVAL);
  opts.flags = 0;
  opts.urgency = 9;
  EQ(mux_channel_open(s, &opts, 0, &out), MUX_EINVAL);
  opts.urgency = 0;
  opts.label_len = 1;
  EQ(mux_channel_open(s, &opts, 0, &out), MUX_EINVAL);
  EQ(mux_runtime_new(&ropts, &rt), MUX_EINVAL);
  ropts.struct_size = sizeof ropts;
  ropts.worker_threads = 100000;
  EQ(mux_runtime_new(&ropts, &rt), MUX_EINVAL);
  ropts.worker_threads = 1;
  ropts.thread_name = "a name of more than fifteen bytes";
  EQ(mux_runtime_new(&ropts, &rt), MUX_EINVAL);
  EQ(mux_runtime_shutdown((mux_runtime){0}, -7), MUX_EINVAL);
  EQ(out.h, 99); /* outputs are written on success only */

  /* The detail of a failure, and what happens without room for it. */
  memset(&e, 0, sizeof e);
  EQ(mux_dial("qmux://127.0.0.1:1", defaults, SOON, &s, &e), MUX_EINVAL);
  e.struct_size = UINT32_MAX;
  EQ(mux_dial("qmux://127.0.0.1:1", defaults, SOON, &s, &e), MUX_EINVAL);
  no_error(&e);
  EQ(mux_dial("nothing://x", defaults, SOON, &s, &e), MUX_EURL);
  CHECK(strstr(e.message, "qmux") != NULL);
  EQ(e.status, MUX_EURL);
  EQ(e.origin, MUX_BY_LOCAL);
  no_error(&e);
  EQ(mux_dial("qmux://127.0.0.1:1?nonsense=1", defaults, SOON, &s, &e), MUX_EURL);
  CHECK(strstr(e.message, "nonsense") != NULL);
  no_error(&e);
  EQ(mux_dial("qmux+tcp://127.0.0.1:1", defaults, SOON, &s, &e), MUX_EREFUSED);
  EQ(e.os_errno, ECONNREFUSED);
  EQ(e.retry_safe, 1);
  EQ(mux_dial("qmux+unix:///nonexistent/socket", defaults, SOON, &s, NULL) < 0, 1);
  EQ(s.h, live[3]); /* untouched */
  EQ(mux_scheme_caps("nothing", &(uint64_t){0}), MUX_EURL);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  listen_url = argv[1];
  struct pair p = connect_pair(listen_url);
  mux_channel ch, peer, gone, gone_peer;
  mux_queue q;
  mux_config c;
  mux_runtime rt;
  channel_between(p.client, p.server, &ch, &peer);
  channel_between(p.client, p.server, &gone, &gone_peer);
  OK(mux_queue_new((mux_runtime){0}, &q));
  OK(mux_config_new(&c));
  OK(mux_runtime_new(NULL, &rt));
  live[MUX_KIND_RUNTIME - 1] = rt.h;
  live[MUX_KIND_CONFIG - 1] = c.h;
  live[MUX_KIND_LISTENER - 1] = p.listener.h;
  live[MUX_KIND_SESSION - 1] = p.client.h;
  live[MUX_KIND_CHANNEL - 1] = ch.h;
  live[MUX_KIND_QUEUE - 1] = q.h;
  mux_channel lender, reader;
  mux_borrow borrow;
  mux_iovec slice;
  int32_t slices = 1;
  channel_between(p.client, p.server, &lender, &reader);
  OK(mux_write_all(lender, "lent", 4, 0, SOON, NULL));
  CHECK(mux_read_borrow(reader, &slice, &slices, SOON, &borrow) > 0);
  live[MUX_KIND_BORROW - 1] = borrow.h;
  OK(mux_close(gone.h));
  EQ(mux_close(gone.h), MUX_EHANDLE); /* closed twice */
  OK(mux_close(gone_peer.h));

  errno = 1234;
  wrong_handles(gone.h);
  null_pointers();
  values_out_of_range();
  EQ(errno, 1234);

  /* After all that, everything still works. */
  char got[6] = {0};
  OK(mux_write_all(ch, "alive", 5, MUX_IO_FIN, SOON, NULL));
  OK(mux_read_exact(peer, got, 5, SOON, NULL));
  CHECK(strcmp(got, "alive") == 0);
  EQ(mux_read(peer, got, 1, 0, SOON), 0);

  /* A code out of range did not end the channel, one in range does; then it is gone. */
  OK(mux_abort(ch, 7));
  EQ(mux_abort(ch, 7), MUX_EHANDLE);
  OK(mux_close(peer.h));
  OK(mux_close(q.h));
  OK(mux_close(c.h));
  OK(mux_close(rt.h));
  OK(mux_close(borrow.h));
  OK(mux_close(lender.h));
  OK(mux_close(reader.h));
  disconnect(p);

  CHECK(strcmp(mux_status_text(MUX_OK), "success") == 0);
  CHECK(mux_status_text(-12345) != NULL && mux_status_text(7) != NULL);
  finish_test();
  return 0;
}
