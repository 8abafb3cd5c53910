/* Borrowed reads, channels as sockets, wakers, the log, pings, datagrams, certificates replaced while a listener runs. */
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "t.h"

static void borrows(struct pair p) {
  mux_channel a, b;
  mux_iovec iov[8];
  mux_borrow lent = {0};
  char buf[64];
  int32_t n = 8;
  channel_between(p.client, p.server, &a, &b);
  EQ(mux_read_borrow(b, iov, &n, 0, &lent), MUX_AGAIN);
  EQ(n, 8);
  OK(mux_write_all(a, "hello borrowed world", 20, 0, SOON, NULL));
  OK(mux_watch_low_water(b, 20, 0));
  OK(mux_wait(b.h, MUX_EV_READ, SOON, NULL));
  OK(mux_watch_low_water(b, 0, 0));
  int64_t total = mux_read_borrow(b, iov, &n, SOON, &lent);
  EQ(total, 20);
  CHECK(n >= 1 && n <= 8);
  size_t at = 0;
  for (int32_t i = 0; i < n; i++) {
    CHECK(memcmp(iov[i].base, "hello borrowed world" + at, iov[i].len) == 0);
    at += iov[i].len;
  }
  EQ(at, 20);
  /* While it is lent, nothing else is read. */
  EQ(mux_read(b, buf, 1, 0, 0), MUX_ESTATE);
  EQ(mux_read(b, buf, 1, 0, SOON), MUX_ESTATE);
  int32_t one = 1;
  mux_borrow second;
  EQ(mux_read_borrow(b, iov, &one, 0, &second), MUX_ESTATE);
  EQ(mux_borrow_release(lent, 21), MUX_EINVAL);
  OK(mux_borrow_release(lent, 6)); /* what was not used comes again */
  EQ(mux_borrow_release(lent, 0), MUX_EHANDLE);
  OK(mux_wait(b.h, MUX_EV_READ, 0, NULL));
  EQ(mux_read(b, buf, 5, 0, 0), 5);
  CHECK(memcmp(buf, "borro", 5) == 0);
  n = 8;
  EQ(mux_read_borrow(b, iov, &n, SOON, &lent), 9);
  OK(mux_close(lent.h)); /* all of it was used */
  EQ(mux_read(b, buf, 1, 0, 0), MUX_AGAIN);

  /* The end is an end here too; what was lent outlives the channel. */
  OK(mux_write_all(a, "last", 4, MUX_IO_FIN, SOON, NULL));
  OK(mux_wait(b.h, MUX_EV_READ, SOON, NULL));
  n = 8;
  EQ(mux_read_borrow(b, iov, &n, SOON, &lent), 4);
  OK(mux_close(b.h));
  CHECK(memcmp(iov[0].base, "last", iov[0].len) == 0);
  OK(mux_borrow_release(lent, 1));
  OK(mux_close(a.h));
  channel_between(p.client, p.server, &a, &b);
  OK(mux_finish(a));
  n = 8;
  lent.h = 0;
  EQ(mux_read_borrow(b, iov, &n, SOON, &lent), 0);
  EQ(n, 0);
  EQ(lent.h, 0);
  n = 8;
  EQ(mux_read_borrow(b, iov, &n, SOON, &lent), 0);
  OK(mux_close(a.h));
  OK(mux_close(b.h));

  n = 0;
  EQ(mux_read_borrow(b, iov, &n, 0, &lent), MUX_EINVAL);
  n = 1025;
  EQ(mux_read_borrow(b, iov, &n, 0, &lent), MUX_EINVAL);
  EQ(mux_read_borrow(b, iov, NULL, 0, &lent), MUX_EINVAL);
  n = 1;
  EQ(mux_read_borrow(b, NULL, &n, 0, &lent), MUX_EINVAL);
  EQ(mux_read_borrow(b, iov, &n, 0, NULL), MUX_EINVAL);
  EQ(mux_read_borrow(b, iov, &n, 0, &lent), MUX_EHANDLE);
}

/* Much data by borrows of odd sizes, each used in part. */
static void borrowed_stream(struct pair p) {
  mux_channel a, b;
  size_t total = scaled(2u << 20), at = 0, sent = 0;
  static char block[10000];
  uint64_t random = 9;
  channel_between(p.client, p.server, &a, &b);
  while (at < total) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    if (sent < total) {
      size_t len = total - sent < sizeof block ? total - sent : sizeof block;
      for (size_t i = 0; i < len; i++) block[i] = (char)pattern(sent + i, 11);
      int64_t n = mux_write(a, block, len, 0, 0);
      if (n > 0) sent += (size_t)n;
    }
    mux_iovec iov[4];
    mux_borrow lent;
    int32_t n = 1 + (int32_t)(random >> 62);
    int64_t got = mux_read_borrow(b, iov, &n, sent < total ? 1 : SOON, &lent);
    if (got == MUX_TIMEDOUT) continue;
    CHECK(got > 0);
    size_t use = (size_t)got - (random >> 40) % 3 * ((size_t)got / 3), left = use;
    for (int32_t i = 0; i < n && left > 0; i++)
      for (size_t k = 0; k < iov[i].len && left > 0; k++, left--, at++)
        CHECK(((unsigned char *)iov[i].base)[k] == pattern(at, 11));
    OK(mux_borrow_release(lent, use));
  }
  OK(mux_close(a.h));
  OK(mux_close(b.h));
}

static void *read_all_of_fd(void *arg) {
  int fd = *(int *)arg;
  unsigned char buf[4000];
  size_t at = 0;
  ssize_t n;
  while ((n = read(fd, buf, sizeof buf)) > 0)
    for (ssize_t i = 0; i < n; i++, at++) CHECK(buf[i] == pattern(at, 5));
  EQ(n, 0);
  return (void *)(uintptr_t)at;
}

static void sockets(struct pair p) {
  mux_channel a, b;
  mux_fd out = -1;
  char buf[1000];
  channel_between(p.client, p.server, &a, &b);
  OK(mux_channel_to_fd(b, &out));
  int fd = (int)out;
  CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
  EQ(mux_channel_to_fd(b, &out), MUX_ESTATE);
  EQ(mux_read(b, buf, 1, 0, SOON), MUX_ESTATE);
  EQ(mux_write(b, buf, 1, 0, SOON), MUX_ESTATE);
  /* In: up to its end. */
  size_t total = scaled(2u << 20);
  pthread_t t = start(read_all_of_fd, &fd);
  for (size_t at = 0; at < total; at += sizeof buf) {
    for (size_t i = 0; i < sizeof buf; i++) buf[i] = (char)pattern(at + i, 5);
    OK(mux_write_all(a, buf, sizeof buf, 0, SOON, NULL));
  }
  OK(mux_finish(a));
  void *read;
  EQ(pthread_join(t, &read), 0);
  EQ((uintptr_t)read, (total + sizeof buf - 1) / sizeof buf * sizeof buf);
  /* Out: up to the end of writing there. */
  EQ(write(fd, "answer", 6), 6);
  EQ(shutdown(fd, SHUT_WR), 0);
  OK(mux_read_exact(a, buf, 6, SOON, NULL));
  EQ(mux_read(a, buf, 1, 0, SOON), 0);
  OK(mux_wait(b.h, MUX_EV_CLOSED, SOON, NULL));
  EQ(close(fd), 0);
  OK(mux_close(a.h));
  OK(mux_close(b.h));

  /* Closed by the application: the peer's writer is told. */
  channel_between(p.client, p.server, &a, &b);
  OK(mux_channel_to_fd(b, &out));
  EQ(close((int)out), 0);
  int64_t n;
  while ((n = mux_write(a, buf, sizeof buf, 0, SOON)) > 0) {
  }
  EQ(n, MUX_ESTOPPED);
  OK(mux_close(a.h));
  OK(mux_close(b.h));

  /* A reset ends the socket; only the channel tells why. */
  channel_between(p.client, p.server, &a, &b);
  OK(mux_channel_to_fd(b, &out));
  OK(mux_reset(a, 55));
  CHECK(recv((int)out, buf, 1, 0) <= 0);
  mux_error e;
  no_error(&e);
  EQ(mux_cause(b.h, &e), MUX_ERESET);
  EQ(e.code, 55);
  EQ(close((int)out), 0);
  OK(mux_close(a.h));
  OK(mux_close(b.h));
}

static atomic_int calls, inside_wrong;

static void on_ready(void *ctx) {
  mux_event ev;
  mux_queue q = *(mux_queue *)ctx;
  if (mux_queue_next(q, &ev, 1, 1000) != MUX_EREENTRANT) inside_wrong++;
  if (mux_queue_set_waker(q, NULL, NULL) != MUX_EREENTRANT) inside_wrong++;
  calls++;
}

static void until_called(int want) {
  for (int64_t end = now_ms() + SOON; calls < want; sleep_ms(1)) CHECK(now_ms() < end);
}

static void wakers(struct pair p) {
  mux_channel a, b;
  mux_event ev[4];
  mux_queue q;
  char buf[8];
  calls = 0;
  channel_between(p.client, p.server, &a, &b);
  OK(mux_queue_new((mux_runtime){0}, &q));
  OK(mux_queue_set_waker(q, on_ready, &q));
  OK(mux_watch(q, b.h, MUX_EV_READ, MUX_WATCH_ONESHOT, 1));
  for (int i = 1; i <= 20; i++) {
    OK(mux_write_all(a, "x", 1, 0, SOON, NULL));
    until_called(i);
    EQ(mux_queue_next(q, ev, 4, SOON), 1);
    EQ(mux_queue_next(q, ev, 4, 0), MUX_AGAIN);
    EQ(mux_read(b, buf, 8, 0, SOON), 1);
    OK(mux_watch(q, b.h, MUX_EV_READ, MUX_WATCH_ONESHOT, 1));
    mux_queue_next(q, ev, 4, 0); /* a spurious candidate goes away */
    if (calls > i) calls = i;
  }
  /* Set when something waits already: told at once. */
  OK(mux_queue_set_waker(q, NULL, NULL));
  OK(mux_write_all(a, "x", 1, 0, SOON, NULL));
  OK(mux_wait(b.h, MUX_EV_READ, SOON, NULL));
  sleep_ms(20);
  int before = calls;
  OK(mux_queue_set_waker(q, on_ready, &q));
  until_called(before + 1);
  EQ(mux_queue_next(q, ev, 4, SOON), 1);
  EQ(inside_wrong, 0);
  OK(mux_queue_set_waker(q, NULL, NULL));
  OK(mux_close(q.h));
  EQ(mux_queue_set_waker(q, on_ready, &q), MUX_EHANDLE);
  OK(mux_close(a.h));
  OK(mux_close(b.h));
}

static atomic_int lines, log_wrong;

static void on_log(void *ctx, int32_t level, const char *target, const char *text) {
  mux_session s;
  if (ctx != &lines || level < 1 || level > 5 || !target[0] || !text) log_wrong++;
  if (mux_dial("qmux://127.0.0.1:1", defaults, 1000, &s, NULL) != MUX_EREENTRANT) log_wrong++;
  lines++;
}

static void logging(void) {
  mux_config c;
  char text[512];
  int32_t level = 0;
  EQ(mux_log_callback(6, NULL, NULL), MUX_EINVAL);
  EQ(mux_log_pull(text, sizeof text, &level), MUX_AGAIN);
  OK(mux_config_new(&c));
  OK(mux_config_set_u64(c, MUX_CFG_TLS_INSECURE, 1)); /* warns, to nobody yet */
  EQ(mux_log_pull(text, sizeof text, &level), MUX_AGAIN);
  OK(mux_log_callback(2, NULL, NULL));
  OK(mux_config_set_u64(c, MUX_CFG_TLS_INSECURE, 1));
  int64_t n = mux_log_pull(text, 4, &level); /* cut, the full length is told */
  CHECK(n > 4);
  EQ(level, 2);
  OK(mux_config_set_u64(c, MUX_CFG_TLS_INSECURE, 1));
  CHECK(mux_log_pull(text, sizeof text, NULL) > 0);
  CHECK(strstr(text, "not be verified") != NULL);
  EQ(mux_log_pull(text, sizeof text, &level), MUX_AGAIN);

  OK(mux_log_callback(2, on_log, &lines));
  for (int i = 1; i <= 10; i++) {
    OK(mux_config_set_u64(c, MUX_CFG_TLS_INSECURE, 1));
    for (int64_t end = now_ms() + SOON; lines < i; sleep_ms(1)) CHECK(now_ms() < end);
  }
  OK(mux_log_callback(0, NULL, NULL));
  OK(mux_config_set_u64(c, MUX_CFG_TLS_INSECURE, 1));
  EQ(mux_log_pull(text, sizeof text, &level), MUX_AGAIN);
  EQ(lines, 10);
  EQ(log_wrong, 0);
  OK(mux_close(c.h));
}

static void *interrupt_later(void *arg) {
  sleep_ms(30);
  OK(mux_interrupt(*(mux_handle *)arg));
  return NULL;
}

static void pings(struct pair p) {
  uint64_t us = 0;
  OK(mux_ping(p.client, SOON, &us));
  CHECK(us > 0);
  OK(mux_ping(p.server, SOON, NULL));
  OK(mux_interrupt(p.client.h));
  EQ(mux_ping(p.client, SOON, &us), MUX_CANCELED);
  OK(mux_resume(p.client.h));
  OK(mux_ping(p.client, SOON, &us));
}

static void datagrams(struct pair p) {
  uint64_t caps, most = 9;
  uint32_t ready;
  static char buf[70000];
  OK(mux_session_caps(p.client, &caps));
  EQ(mux_info(p.client.h, MUX_INFO_MAX_DATAGRAM, &most, sizeof most), 8);
  if (!(caps & MUX_CAP_DATAGRAM)) {
    EQ(most, 0);
    EQ(mux_datagram_send(p.client, "x", 1), MUX_EUNSUPPORTED);
    EQ(mux_datagram_recv(p.client, buf, sizeof buf, SOON), MUX_EUNSUPPORTED);
    EQ(mux_wait(p.client.h, MUX_EV_DATAGRAM, 0, &ready), MUX_EUNSUPPORTED);
    return;
  }
  CHECK(most >= 1000 && most < sizeof buf);
  EQ(mux_datagram_recv(p.server, buf, sizeof buf, 0), MUX_AGAIN);
  int64_t n = MUX_TIMEDOUT; /* one may be lost */
  for (int i = 0; i < 100 && n == MUX_TIMEDOUT; i++) {
    OK(mux_datagram_send(p.client, "datagram", 8));
    n = mux_datagram_recv(p.server, buf, 3, 500);
  }
  EQ(n, MUX_ETOOBIG);
  OK(mux_wait(p.server.h, MUX_EV_DATAGRAM, SOON, &ready));
  EQ(mux_datagram_recv(p.server, buf, sizeof buf, SOON), 8); /* it waited */
  CHECK(memcmp(buf, "datagram", 8) == 0);
  EQ(mux_datagram_send(p.client, buf, sizeof buf), MUX_ETOOBIG); /* no path takes that */
  pthread_t t = start(interrupt_later, &p.server.h);
  while ((n = mux_datagram_recv(p.server, buf, sizeof buf, MUX_FOREVER)) >= 0) {
  }
  EQ(n, MUX_CANCELED);
  join(t);
  OK(mux_resume(p.server.h));
}

/* Datagrams that one end switches off are not there on either. */
static void no_datagrams(const char *url) {
  mux_config c;
  uint64_t caps, value = 9;
  OK(mux_config_new(&c));
  OK(mux_config_get_u64(c, MUX_CFG_DATAGRAMS, &value));
  EQ(value, 1);
  OK(mux_config_set_u64(c, MUX_CFG_DATAGRAMS, 0));
  EQ(mux_config_set_u64(c, MUX_CFG_DATAGRAMS, 2), MUX_EINVAL);
  OK(mux_config_get_u64(c, MUX_CFG_DATAGRAMS, &value));
  EQ(value, 0);
  struct pair p = connect_with(url, c);
  const mux_session ends[2] = {p.client, p.server};
  for (int i = 0; i < 2; i++) {
    OK(mux_session_caps(ends[i], &caps));
    EQ(caps & MUX_CAP_DATAGRAM, 0);
    EQ(mux_datagram_send(ends[i], "x", 1), MUX_EUNSUPPORTED);
    EQ(mux_info(ends[i].h, MUX_INFO_MAX_DATAGRAM, &value, sizeof value), 8);
    EQ(value, 0);
  }
  OK(mux_close(c.h));
  disconnect(p);
}

/* Each direction keeps a failure of its own; mux_cause tells the first. */
static void causes(struct pair p) {
  mux_channel a, b;
  mux_error e;
  char buf[8] = {0};
  mux_stats st = {0};
  no_error(&e);
  st.struct_size = sizeof st;
  channel_between(p.client, p.server, &a, &b);
  OK(mux_stats_get(a.h, &st));
  CHECK(st.send_credit > 0);
  OK(mux_channel_cause(b, MUX_RECEIVING, &e));
  OK(mux_channel_cause(b, MUX_SENDING, NULL));
  EQ(mux_channel_cause(b, 0, &e), MUX_EINVAL);
  EQ(mux_channel_cause(b, 3, &e), MUX_EINVAL);
  OK(mux_reset(a, 71));
  EQ(mux_read(b, buf, 1, 0, SOON), MUX_ERESET);
  OK(mux_channel_cause(b, MUX_SENDING, NULL));
  OK(mux_stop(a, 72));
  while (mux_write(b, buf, 1, 0, SOON) > 0) sleep_ms(1);
  EQ(mux_cause(b.h, &e), MUX_ERESET);
  EQ(e.code, 71);
  EQ(mux_channel_cause(b, MUX_RECEIVING, &e), MUX_ERESET);
  EQ(e.code, 71);
  EQ(mux_channel_cause(b, MUX_SENDING, &e), MUX_ESTOPPED);
  EQ(e.code, 72);
  OK(mux_close(a.h));
  OK(mux_close(b.h));
  EQ(mux_channel_cause(b, MUX_SENDING, &e), MUX_EHANDLE);
}

/* A listener's certificate is replaced while it runs; its address and its sessions stay. */
static void reloading(const char *url) {
  mux_config c, bad;
  mux_error e;
  char path[2][512];
  OK(mux_config_new(&c));
  OK(mux_config_new(&bad));
  no_error(&e);
  struct pair p = connect_pair(url);
  if (!is_tls(url)) {
    mux_status st = mux_listener_reload(p.listener, c, &e);
    CHECK(st == MUX_OK || st == MUX_EUNSUPPORTED);
  } else {
    mux_session s;
    char target[256], der[4096];
    snprintf(path[0], sizeof path[0], "%s/client.pem", certs());
    snprintf(path[1], sizeof path[1], "%s/client.key", certs());
    OK(mux_config_tls_identity_files(bad, path[0], "/nonexistent", NULL));
    OK(mux_config_tls_identity_files(c, path[0], path[1], NULL));
    mux_status st = mux_listener_reload(p.listener, bad, &e);
    if (st == MUX_EUNSUPPORTED) {
      EQ(mux_listener_reload(p.listener, c, NULL), MUX_EUNSUPPORTED);
      goto unchanged;
    }
    EQ(st, MUX_EOS);
    CHECK(strstr(e.message, "nonexistent") != NULL);
    OK(mux_listener_reload(p.listener, c, &e));
    url_of(p.listener, target, sizeof target);
    s = dial_to(target, defaults);
    int64_t after = mux_info(s.h, MUX_INFO_PEER_CERT_DER, der, sizeof der);
    FILE *file;
    char want[4096];
    snprintf(path[0], sizeof path[0], "%s/client.der", certs());
    CHECK((file = fopen(path[0], "rb")) != NULL);
    EQ(fread(want, 1, sizeof want, file), (size_t)after);
    fclose(file);
    CHECK(memcmp(der, want, (size_t)after) == 0);
    OK(mux_close(s.h));
  }
unchanged:;
  mux_channel a, b;
  channel_between(p.client, p.server, &a, &b);
  OK(mux_close(a.h));
  OK(mux_close(b.h));
  OK(mux_close(c.h));
  OK(mux_close(bad.h));
  disconnect(p);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  logging();
  struct pair p = connect_pair(argv[1]);
  borrows(p);
  borrowed_stream(p);
  sockets(p);
  wakers(p);
  pings(p);
  datagrams(p);
  causes(p);
  disconnect(p);
  no_datagrams(argv[1]);
  reloading(argv[1]);
  finish_test();
  return 0;
}
