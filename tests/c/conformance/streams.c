/* Clauses 4, 7, 8, 12: bytes in order, half-close, windows of their own, bounded memory. */
#include "conform.h"

void *send_flow(void *arg) {
  const struct flow *f = arg;
  static const size_t sizes[] = {1, 100, 4096, 70000, 3};
  unsigned char *buf = malloc(70000);
  CHECK(buf != NULL);
  for (size_t at = 0, turn = 0; at < f->total; turn++) {
    size_t len = sizes[turn % 5];
    if (len > f->total - at) len = f->total - at;
    for (size_t i = 0; i < len; i++) buf[i] = pattern(at + i, f->seed);
    at += len;
    OK(mux_write_all(f->ch, buf, len, at == f->total ? MUX_IO_FIN : 0, SOON, NULL));
  }
  if (f->total == 0) OK(mux_finish(f->ch));
  free(buf);
  return NULL;
}

void *receive_flow(void *arg) {
  const struct flow *f = arg;
  unsigned char *buf = malloc(50000);
  size_t at = 0;
  int64_t n;
  CHECK(buf != NULL);
  while ((n = mux_read(f->ch, buf, 50000, 0, SOON)) > 0) {
    for (int64_t i = 0; i < n; i++) CHECK(buf[i] == pattern(at + (size_t)i, f->seed));
    at += (size_t)n;
  }
  EQ(n, 0);
  EQ(at, f->total);
  free(buf);
  return NULL;
}

void *echo_flow(void *arg) {
  const struct flow *f = arg;
  char *buf = malloc(50000);
  int64_t n;
  CHECK(buf != NULL);
  while ((n = mux_read(f->ch, buf, 50000, 0, SOON)) > 0) OK(mux_write_all(f->ch, buf, (size_t)n, 0, SOON, NULL));
  EQ(n, 0);
  OK(mux_finish(f->ch));
  free(buf);
  return NULL;
}

static void bytes_arrive_in_order(const char *url) {
  struct pair p = connect_pair(url);
  for (int side = 0; side < 2; side++) {
    mux_channel a, b;
    channel_between(side ? p.server : p.client, side ? p.client : p.server, &a, &b);
    struct flow out = {a, scaled(8u << 20), 7u + (unsigned)side}, back = {b, 0, 0};
    pthread_t t[3] = {start(send_flow, &out), start(echo_flow, &back), start(receive_flow, &out)};
    for (int i = 0; i < 3; i++) join(t[i]);
    close_both(a, b);
  }
  disconnect(p);
}

/* A proxy ends one direction; 10 MiB come back afterwards. */
static void half_close_leaves_the_other_direction(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b;
  for (int side = 0; side < 2; side++) {
    channel_between(p.client, p.server, &a, &b);
    mux_channel first = side ? b : a, last = side ? a : b;
    OK(mux_write_all(first, "request", 7, MUX_IO_FIN, SOON, NULL));
    size_t got = 0;
    EQ(read_out(last, &got), 0);
    EQ(got, 7);
    struct flow answer = {last, scaled(10u << 20), 3}, asked = {first, scaled(10u << 20), 3};
    pthread_t t = start(send_flow, &answer);
    receive_flow(&asked);
    join(t);
    close_both(a, b);
  }
  disconnect(p);
}

static void eof_is_seen_once_all_is_read_and_stays(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b;
  char buf[8];
  uint32_t ready;
  channel_between(p.client, p.server, &a, &b);
  OK(mux_write_all(a, "12345", 5, MUX_IO_FIN, SOON, NULL));
  for (int i = 0; i < 5; i++) EQ(mux_read(b, buf, 1, 0, SOON), 1);
  for (int i = 0; i < 5; i++) {
    EQ(mux_read(b, buf, sizeof buf, 0, i % 2 ? SOON : MUX_FOREVER), 0);
    OK(mux_wait(b.h, MUX_EV_READ, SOON, &ready));
    CHECK(ready & MUX_EV_READ);
  }
  size_t done = 9;
  EQ(mux_read_exact(b, buf, 1, SOON, &done), MUX_EFINISHED);
  EQ(done, 0);
  OK(mux_cause(b.h, NULL)); /* an end is no failure */
  EQ(mux_finish(a), MUX_EFINISHED);
  EQ(mux_write(a, "x", 1, 0, SOON), MUX_EFINISHED);
  OK(mux_cause(a.h, NULL)); /* nor is an argument mistake */
  /* A direction without a byte ends too. */
  OK(mux_finish(b));
  EQ(mux_read(a, buf, sizeof buf, 0, SOON), 0);
  OK(mux_wait(a.h, MUX_EV_CLOSED, SOON, &ready));
  OK(mux_wait(b.h, MUX_EV_CLOSED, SOON, &ready));
  close_both(a, b);
  disconnect(p);
}

/* Any number of channels that nobody reads stall only themselves. */
static void unread_channels_beside_an_active_one(const char *url) {
  size_t counts[] = {1, 64, scaled(1000)};
  for (int round = 0; round < 3; round++) {
    size_t n = counts[round];
    mux_config c = with_u64(MUX_CFG_MAX_CHANNELS_IN, n + 1);
    OK(mux_config_set_u64(c, MUX_CFG_CHANNEL_BACKLOG, n + 1));
    struct pair p = connect_with(url, c);
    mux_channel *a = calloc(n, sizeof *a), *b = calloc(n, sizeof *b), x, y;
    static char block[65536];
    CHECK(a != NULL && b != NULL);
    for (size_t i = 0; i < n; i++) {
      OK(mux_channel_open(p.client, NULL, SOON, &a[i]));
      /* As much as it takes without waiting; a few of them until they are full. */
      while (mux_write(a[i], block, sizeof block, 0, i < 4 ? 100 : MUX_NOWAIT) > 0) {
      }
    }
    for (size_t i = 0; i < n; i++) OK(mux_channel_accept(p.server, SOON, &b[i]));
    channel_between(p.client, p.server, &x, &y);
    struct flow out = {x, scaled(4u << 20), 1}, in = {y, scaled(4u << 20), 1};
    pthread_t t = start(send_flow, &out);
    receive_flow(&in);
    join(t);
    out.ch = y, in.ch = x;
    t = start(send_flow, &out); /* and the other way */
    receive_flow(&in);
    join(t);
    for (size_t i = 0; i < n; i++) {
      OK(mux_cause(a[i].h, NULL));
      OK(mux_abort(a[i], 1));
      OK(mux_close(b[i].h));
    }
    close_both(x, y);
    free(a);
    free(b);
    OK(mux_close(c.h));
    disconnect(p);
  }
}

/* Both ends write until nothing goes any more before either reads: no deadlock, and not a byte is lost. */
static void both_sides_write_before_reading(const char *url) {
  enum { N = 4 };
  struct pair p = connect_pair(url);
  mux_channel a[N], b[N];
  size_t sent_a[N], sent_b[N];
  for (int i = 0; i < N; i++) {
    channel_between(p.client, p.server, &a[i], &b[i]);
    sent_a[i] = fill(a[i]);
    sent_b[i] = fill(b[i]);
    CHECK(sent_a[i] > 0 && sent_b[i] > 0);
    OK(mux_finish(a[i]));
    OK(mux_finish(b[i]));
  }
  for (int i = N - 1; i >= 0; i--) {
    size_t got_a = 0, got_b = 0;
    EQ(read_out(b[i], &got_b), 0);
    EQ(read_out(a[i], &got_a), 0);
    EQ(got_b, sent_a[i]);
    EQ(got_a, sent_b[i]);
    close_both(a[i], b[i]);
  }
  disconnect(p);
}

/* What a reader that does not read makes both ends hold is bounded by the window and the send buffer; nothing stays. */
static void an_unread_channel_holds_what_was_configured(const char *url) {
  enum { WINDOW = 65536, BUFFER = 65536 };
  mux_config c = with_u64(MUX_CFG_CHANNEL_WINDOW, WINDOW);
  OK(mux_config_set_u64(c, MUX_CFG_SEND_BUFFER, BUFFER));
  struct pair p = connect_with(url, c);
  mux_channel a, b;
  channel_between(p.client, p.server, &a, &b);
  size_t sent = fill(a);
  CHECK(sent >= WINDOW);
  /* One block of 64 KiB may go beyond each bound, because a writer is asked before it and not within it. */
  CHECK(sent <= WINDOW + BUFFER + 2 * 65536);
  CHECK(stats_of(p.server.h).recv_buffered <= WINDOW);
  CHECK(stats_of(b.h).recv_buffered <= WINDOW);
  CHECK(stats_of(a.h).send_buffered <= BUFFER + 65536);
  OK(mux_finish(a));
  size_t got = 0;
  EQ(read_out(b, &got), 0);
  EQ(got, sent);
  OK(mux_wait(p.client.h, MUX_EV_DRAINED, SOON, NULL));
  EQ(stats_of(p.server.h).recv_buffered, 0);
  EQ(stats_of(p.client.h).send_buffered, 0);
  close_both(a, b);
  OK(mux_close(c.h));
  disconnect(p);
}

/* Nobody accepts and nobody reads: what was there before does not notice. */
static void nobody_accepts_and_the_session_goes_on(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b, waiting[16];
  static char block[65536];
  channel_between(p.client, p.server, &a, &b);
  for (int i = 0; i < 16; i++) {
    OK(mux_channel_open(p.client, NULL, SOON, &waiting[i]));
    while (mux_write(waiting[i], block, sizeof block, 0, MUX_NOWAIT) > 0) {
    }
    round_trip(a, b, "still moving");
  }
  struct flow out = {a, scaled(1u << 20), 2}, in = {b, scaled(1u << 20), 2};
  pthread_t t = start(send_flow, &out);
  receive_flow(&in);
  join(t);
  for (int i = 0; i < 16; i++) OK(mux_abort(waiting[i], 0));
  close_both(a, b);
  disconnect(p);
}

const struct scenario streams[] = {
    {"4", "basic-transfer", bytes_arrive_in_order},
    {"4", "half-close", half_close_leaves_the_other_direction},
    {"4", "end-once-and-for-ever", eof_is_seen_once_all_is_read_and_stays},
    {"7", "unread-channels-1000", unread_channels_beside_an_active_one},
    {"12", "both-write-before-reading", both_sides_write_before_reading},
    {"8", "unread-holds-what-was-set", an_unread_channel_holds_what_was_configured},
    {"3", "nobody-accepts", nobody_accepts_and_the_session_goes_on},
    {NULL, NULL, NULL},
};
