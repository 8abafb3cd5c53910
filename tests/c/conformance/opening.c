/* Clauses 1, 2, 3, 15, 16: how channels come to be. */
#include <dirent.h>

#include "conform.h"

static void both_sides_open(const char *url) {
  enum { EACH = 8 };
  struct pair p = connect_pair(url);
  mux_channel a[2 * EACH], b[2 * EACH];
  CHECK(caps_of(p.server) & MUX_CAP_SERVER_OPEN);
  for (int i = 0; i < 2 * EACH; i++) {
    mux_session from = i % 2 ? p.client : p.server, to = i % 2 ? p.server : p.client;
    channel_between(from, to, &a[i], &b[i]);
  }
  /* All at once, in an order of their own. */
  for (int i = 2 * EACH - 1; i >= 0; i--) round_trip(a[i], b[i], "either side");
  for (int i = 0; i < 2 * EACH; i++) close_both(b[i], a[i]);
  disconnect(p);
}

static void *open_and_send(void *arg) {
  mux_session s = *(mux_session *)arg;
  mux_channel ch;
  OK(mux_channel_open(s, NULL, SOON, &ch));
  OK(mux_write_all(ch, "hello", 5, MUX_IO_FIN, SOON, NULL));
  EQ(read_out(ch, NULL), 0);
  OK(mux_close(ch.h));
  return NULL;
}

/* Both ends open at the same moment: the channels are two, not one. */
static void simultaneous_opens_are_two_channels(const char *url) {
  struct pair p = connect_pair(url);
  for (int i = 0; i < 10; i++) {
    mux_session ends[2] = {p.client, p.server};
    pthread_t t[2] = {start(open_and_send, &ends[0]), start(open_and_send, &ends[1])};
    for (int side = 0; side < 2; side++) {
      mux_channel ch;
      char buf[5];
      OK(mux_channel_accept(ends[side], SOON, &ch));
      OK(mux_read_exact(ch, buf, 5, SOON, NULL));
      EQ(mux_read(ch, buf, 1, 0, SOON), 0);
      OK(mux_finish(ch));
      OK(mux_close(ch.h));
    }
    join(t[0]);
    join(t[1]);
  }
  disconnect(p);
}

/* The acceptor writes first on a channel that its opener only opened. */
static void accepted_before_a_byte_is_written(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b;
  char buf[16];
  for (int side = 0; side < 2; side++) {
    channel_between(side ? p.server : p.client, side ? p.client : p.server, &a, &b);
    OK(mux_write_all(b, "welcome", 7, MUX_IO_FIN, SOON, NULL));
    OK(mux_read_exact(a, buf, 7, SOON, NULL));
    CHECK(memcmp(buf, "welcome", 7) == 0);
    EQ(mux_read(a, buf, 1, 0, SOON), 0);
    close_both(a, b);
  }
  disconnect(p);
}

/* A dial that does not wait gives a session on which a channel can be opened; it waits for the connection by itself. */
static void open_waits_for_the_connection(const char *url) {
  char target[512];
  mux_session s, server;
  mux_channel a, b;
  mux_listener l = listen_on(url);
  url_of(l, target, sizeof target);
  OK(mux_dial(target, defaults, MUX_NOWAIT, &s, NULL));
  OK(mux_channel_open(s, NULL, SOON, &a));
  OK(mux_accept(l, SOON, &server, NULL));
  OK(mux_channel_accept(server, SOON, &b));
  round_trip(a, b, "connected");
  close_both(a, b);
  disconnect((struct pair){l, s, server});
}

static int descriptors(void) {
  int count = 0;
  DIR *dir = opendir("/proc/self/fd");
  CHECK(dir != NULL);
  while (readdir(dir)) count++;
  closedir(dir);
  return count;
}

static void open_and_close_leaves_nothing(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b;
  channel_between(p.client, p.server, &a, &b);
  close_both(a, b);
  int fds = descriptors();
  uint64_t handles = stats_of(0).handles_live;
  for (size_t i = 0; i < scaled(1000); i++) {
    int side = i % 2;
    channel_between(side ? p.server : p.client, side ? p.client : p.server, &a, &b);
    if (i % 3 == 0) {
      close_both(a, b);
    } else {
      OK(mux_abort(i % 3 == 1 ? a : b, 5));
      OK(mux_close(i % 3 == 1 ? b.h : a.h));
    }
  }
  EQ(stats_of(0).handles_live, handles);
  EQ(descriptors(), fds);
  int64_t end = now_ms() + SOON;
  while (stats_of(p.client.h).channels_open + stats_of(p.server.h).channels_open > 0) {
    CHECK(now_ms() < end);
    sleep_ms(5);
  }
  EQ(stats_of(p.client.h).recv_buffered + stats_of(p.server.h).recv_buffered, 0);
  OK(mux_cause(p.client.h, NULL));
  OK(mux_cause(p.server.h, NULL));
  disconnect(p);
}

/* Beyond the peer's open credit an open waits, or is refused safe to retry; a place that becomes free is used. */
static void open_beyond_the_limit_waits_or_is_refused(const char *url) {
  mux_config c = with_u64(MUX_CFG_MAX_CHANNELS_IN, 2);
  struct pair p = connect_with(url, c);
  mux_channel a[2], b[2], extra, peer;
  for (int i = 0; i < 2; i++) channel_between(p.client, p.server, &a[i], &b[i]);
  mux_status st = mux_channel_open(p.client, NULL, 100, &extra);
  if (st == MUX_OK) {
    EQ(read_out(extra, NULL), MUX_EREFUSED);
    EQ(cause_of(extra.h, MUX_EREFUSED).retry_safe, 1);
    OK(mux_close(extra.h));
  } else {
    EQ(st, MUX_TIMEDOUT);
    EQ(mux_channel_open(p.client, NULL, MUX_NOWAIT, &extra), MUX_AGAIN);
  }
  round_trip(a[0], b[0], "not disturbed");
  close_both(a[1], b[1]);
  /* The place is free once both directions are over on both sides. */
  int64_t end = now_ms() + SOON;
  for (;;) {
    CHECK(now_ms() < end);
    OK(mux_channel_open(p.client, NULL, SOON, &extra));
    st = mux_channel_accept(p.server, 500, &peer);
    if (st == MUX_OK) break;
    EQ(st, MUX_TIMEDOUT);
    EQ(read_out(extra, NULL), MUX_EREFUSED);
    OK(mux_close(extra.h));
  }
  round_trip(extra, peer, "in its place");
  close_both(extra, peer);
  close_both(a[0], b[0]);
  OK(mux_close(c.h));
  disconnect(p);
}

static void confirmation_of_an_open(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b;
  uint32_t ready = 0;
  OK(mux_channel_open(p.client, NULL, SOON, &a));
  if (caps_of(p.client) & MUX_CAP_OPENED) {
    OK(mux_channel_accept(p.server, SOON, &b));
    OK(mux_wait(a.h, MUX_EV_OPENED, SOON, &ready));
    EQ(ready, MUX_EV_OPENED);
  } else {
    EQ(mux_wait(a.h, MUX_EV_OPENED, SOON, &ready), MUX_EUNSUPPORTED);
    OK(mux_channel_accept(p.server, SOON, &b));
  }
  close_both(a, b);
  disconnect(p);
}

/* Opens beyond the accept backlog are refused, safe to retry; those within it are served, and nothing else suffers. */
static void backlog_refuses_safe_to_retry(const char *url) {
  enum { BACKLOG = 3, MORE = 5 };
  mux_config c = with_u64(MUX_CFG_CHANNEL_BACKLOG, BACKLOG);
  struct pair p = connect_with(url, c);
  mux_channel old_a, old_b, a[BACKLOG + MORE], b;
  channel_between(p.client, p.server, &old_a, &old_b);
  for (int i = 0; i < BACKLOG + MORE; i++) OK(mux_channel_open(p.client, NULL, SOON, &a[i]));
  round_trip(old_a, old_b, "nobody accepts");
  int refused = 0, is_refused[BACKLOG + MORE] = {0};
  for (int64_t end = now_ms() + SOON; refused < MORE;) {
    CHECK(now_ms() < end);
    for (int i = 0; i < BACKLOG + MORE; i++) {
      char byte;
      if (is_refused[i]) continue;
      int64_t n = mux_read(a[i], &byte, 1, 0, MUX_NOWAIT); /* who waits in the backlog has nothing to read */
      if (n == MUX_AGAIN) continue;
      EQ(n, MUX_EREFUSED);
      mux_error e = cause_of(a[i].h, MUX_EREFUSED);
      EQ(e.retry_safe, 1);
      EQ(e.origin, MUX_BY_PEER);
      EQ(write_out(a[i]), MUX_EREFUSED);
      is_refused[i] = 1;
      refused++;
    }
    sleep_ms(5);
  }
  EQ(refused, MORE);
  for (int i = 0; i < BACKLOG; i++) {
    OK(mux_channel_accept(p.server, SOON, &b));
    OK(mux_finish(b));
    OK(mux_close(b.h));
  }
  EQ(mux_channel_accept(p.server, 30, &b), MUX_TIMEDOUT);
  for (int i = 0; i < BACKLOG + MORE; i++) OK(mux_close(a[i].h));
  channel_between(p.client, p.server, &a[0], &b); /* retried, it works */
  round_trip(a[0], b, "retried");
  close_both(a[0], b);
  close_both(old_a, old_b);
  OK(mux_close(c.h));
  disconnect(p);
}

/* What a session says it can do is what its scheme promises, and what it cannot do is an error. */
static void capabilities_are_told(const char *url) {
  struct pair p = connect_pair(url);
  char scheme[32];
  uint64_t promised;
  mux_channel a, b;
  snprintf(scheme, sizeof scheme, "%.*s", (int)strcspn(url, ":"), url);
  OK(mux_scheme_caps(scheme, &promised));
  EQ(caps_of(p.client), promised);
  EQ(caps_of(p.server), promised);
  channel_between(p.client, p.server, &a, &b);
  if (!(promised & MUX_CAP_STOP)) EQ(mux_stop(a, 1), MUX_EUNSUPPORTED);
  if (!(promised & MUX_CAP_RESET_CODE)) EQ(mux_reset(a, 1), MUX_EUNSUPPORTED);
  OK(mux_cause(a.h, NULL));
  OK(mux_channel_set_priority(a, 3, 0)); /* a hint is never refused */
  close_both(a, b);
  disconnect(p);
}

/* The label is there at accept, before any data, byte for byte. */
static void labels_come_before_data(const char *url) {
  static const size_t lengths[] = {0, 1, 7, 255, 256, 1024};
  struct pair p = connect_pair(url);
  unsigned char label[1025], got[1100];
  mux_channel a, b;
  mux_open_opts opts = {0};
  int can = (caps_of(p.client) & MUX_CAP_LABEL) != 0;
  opts.struct_size = sizeof opts;
  opts.label = label;
  for (size_t i = 0; i < sizeof label; i++) label[i] = (unsigned char)(i * 37);
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
    opts.label_len = lengths[i];
    mux_session from = i % 2 ? p.server : p.client, to = i % 2 ? p.client : p.server;
    mux_status st = mux_channel_open(from, &opts, SOON, &a);
    if (!can && lengths[i] > 0) {
      EQ(st, MUX_EUNSUPPORTED);
      continue;
    }
    OK(st);
    OK(mux_channel_accept(to, SOON, &b));
    EQ(mux_info(b.h, MUX_INFO_LABEL, got, sizeof got), (int64_t)lengths[i]);
    CHECK(memcmp(got, label, lengths[i]) == 0);
    EQ(mux_info(a.h, MUX_INFO_LABEL, got, sizeof got), (int64_t)lengths[i]);
    close_both(a, b);
  }
  opts.label_len = 1025;
  EQ(mux_channel_open(p.client, &opts, SOON, &a), can ? MUX_ETOOBIG : MUX_EUNSUPPORTED);
  OK(mux_cause(p.client.h, NULL));
  disconnect(p);
}

const struct scenario opening[] = {
    {"1", "both-ends-open", both_sides_open},
    {"1", "both-ends-open-at-once", simultaneous_opens_are_two_channels},
    {"2", "acceptor-speaks-first", accepted_before_a_byte_is_written},
    {"2", "open-waits-for-the-connection", open_waits_for_the_connection},
    {"2", "opens-given-up", open_and_close_leaves_nothing},
    {"2", "open-beyond-the-credit", open_beyond_the_limit_waits_or_is_refused},
    {"2", "confirmation", confirmation_of_an_open},
    {"3", "backlog", backlog_refuses_safe_to_retry},
    {"15", "both-ends-agree", capabilities_are_told},
    {"16", "labels", labels_come_before_data},
    {NULL, NULL, NULL},
};
