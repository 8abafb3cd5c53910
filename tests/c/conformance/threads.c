/* Clauses 13, 14: calls that are given up or interrupted lose nothing; halves in different threads; several threads. */
#include <stdatomic.h>

#include "conform.h"

/* Reads with timeouts that are mostly too short: every byte still arrives once and in order. */
static void timed_out_reads_and_writes_lose_nothing(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b;
  channel_between(p.client, p.server, &a, &b);
  size_t total = scaled(2u << 20), sent = 0, got = 0;
  unsigned char out[3000], in[2900];
  uint64_t random = 1;
  while (got < total) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    if (sent < total && random >> 60 < 9) {
      size_t len = 1 + (random >> 40) % sizeof out;
      if (len > total - sent) len = total - sent;
      for (size_t i = 0; i < len; i++) out[i] = pattern(sent + i, 5);
      int64_t n = mux_write(a, out, len, 0, (int32_t)(random >> 50 & 1));
      if (n < 0) CHECK(n == MUX_AGAIN || n == MUX_TIMEDOUT);
      if (n > 0) sent += (size_t)n;
    } else {
      int64_t n = mux_read(b, in, 1 + (random >> 40) % sizeof in, 0, (int32_t)(random >> 50 & 1));
      if (n < 0) CHECK(n == MUX_AGAIN || n == MUX_TIMEDOUT);
      for (int64_t i = 0; i < n; i++) CHECK(in[i] == pattern(got + (size_t)i, 5));
      if (n > 0) got += (size_t)n;
    }
  }
  OK(mux_cause(a.h, NULL));
  close_both(a, b);
  disconnect(p);
}

static void timed_out_opens_and_accepts_lose_nothing(const char *url) {
  mux_config c = with_u64(MUX_CFG_MAX_CHANNELS_IN, 4);
  struct pair p = connect_with(url, c);
  mux_channel a[4], b[4], extra;
  EQ(mux_channel_accept(p.server, 1, &extra), MUX_TIMEDOUT);
  for (int i = 0; i < 4; i++) channel_between(p.client, p.server, &a[i], &b[i]);
  /* Opens that were given up leave nothing that the peer could see, or were refused. */
  for (int i = 0; i < 20; i++) {
    mux_status st = mux_channel_open(p.client, NULL, i % 2, &extra);
    if (st == MUX_OK) {
      EQ(read_out(extra, NULL), MUX_EREFUSED);
      OK(mux_close(extra.h));
    } else {
      CHECK(st == MUX_AGAIN || st == MUX_TIMEDOUT);
    }
  }
  EQ(mux_channel_accept(p.server, 20, &extra), MUX_TIMEDOUT);
  for (int i = 0; i < 4; i++) {
    round_trip(a[i], b[i], "there");
    close_both(a[i], b[i]);
  }
  /* Accepts that were given up took nothing. */
  OK(mux_channel_open(p.server, NULL, SOON, &a[0]));
  while (mux_channel_accept(p.client, 1, &b[0]) != MUX_OK) {
  }
  round_trip(a[0], b[0], "taken once");
  EQ(mux_channel_accept(p.client, 20, &extra), MUX_TIMEDOUT);
  close_both(a[0], b[0]);
  OK(mux_close(c.h));
  disconnect(p);
}

/* A reader that sleeps for ever does not hold up the writer of the same channel, and the other way round. */
static void halves_in_two_threads(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b;
  channel_between(p.client, p.server, &a, &b);
  struct flow nothing = {a, 0, 0}, out = {a, scaled(4u << 20), 8}, in = {b, scaled(4u << 20), 8};
  pthread_t reader = start(receive_flow, &nothing); /* sleeps until the end */
  pthread_t writer = start(send_flow, &out);
  receive_flow(&in);
  join(writer);
  OK(mux_finish(b));
  join(reader);
  close_both(a, b);

  channel_between(p.client, p.server, &a, &b);
  fill(a);
  struct flow stuck = {a, 100000, 1};
  pthread_t sleeping = start(send_flow, &stuck); /* no window */
  struct flow back_out = {b, scaled(1u << 20), 9}, back_in = {a, scaled(1u << 20), 9};
  pthread_t t = start(send_flow, &back_out);
  receive_flow(&back_in);
  join(t);
  EQ(read_out(b, NULL), 0);
  join(sleeping);
  close_both(a, b);
  disconnect(p);
}

struct crowd {
  mux_channel ch;
  atomic_size_t moved, sum;
};

static void *read_some(void *arg) {
  struct crowd *c = arg;
  unsigned char buf[977];
  int64_t n;
  while ((n = mux_read(c->ch, buf, sizeof buf, 0, SOON)) > 0) {
    c->moved += (size_t)n;
    for (int64_t i = 0; i < n; i++) c->sum += buf[i];
  }
  EQ(n, 0);
  return NULL;
}

/* Each byte goes to exactly one of several readers. */
static void racing_readers_share_the_bytes(const char *url) {
  struct pair p = connect_pair(url);
  struct crowd crowd = {{0}, 0, 0};
  mux_channel a;
  channel_between(p.client, p.server, &a, &crowd.ch);
  size_t total = scaled(1u << 20), sum = 0;
  for (size_t i = 0; i < total; i++) sum += pattern(i, 6);
  pthread_t t[4];
  for (int i = 0; i < 4; i++) t[i] = start(read_some, &crowd);
  struct flow out = {a, total, 6};
  send_flow(&out);
  for (int i = 0; i < 4; i++) join(t[i]);
  EQ(crowd.moved, total);
  EQ(crowd.sum, sum);
  close_both(a, crowd.ch);
  disconnect(p);
}

static void *write_records(void *arg) {
  mux_channel ch = *(mux_channel *)arg;
  unsigned char record[32];
  memset(record, (int)(pthread_self() >> 12 & 255), sizeof record);
  for (size_t i = 0; i < scaled(4000); i++) OK(mux_write_all(ch, record, sizeof record, 0, SOON, NULL));
  return NULL;
}

/* What several writers write arrives complete; small writes are not torn. */
static void racing_writers_lose_nothing(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b;
  channel_between(p.client, p.server, &a, &b);
  struct crowd crowd = {b, 0, 0};
  pthread_t t[4], reader = start(read_some, &crowd);
  for (int i = 0; i < 4; i++) t[i] = start(write_records, &a);
  for (int i = 0; i < 4; i++) join(t[i]);
  OK(mux_finish(a));
  join(reader);
  EQ(crowd.moved, 4 * 32 * scaled(4000));
  close_both(a, b);
  disconnect(p);
}

static void *accept_one(void *arg) {
  mux_channel ch;
  OK(mux_channel_accept(*(mux_session *)arg, SOON, &ch));
  return (void *)(uintptr_t)ch.h;
}

/* Each channel goes to exactly one of several that accept. */
static void racing_accepts_share_the_channels(const char *url) {
  enum { N = 8 };
  struct pair p = connect_pair(url);
  pthread_t t[N];
  mux_channel a[N];
  mux_handle b[N];
  for (int i = 0; i < N; i++) t[i] = start(accept_one, &p.server);
  for (int i = 0; i < N; i++) OK(mux_channel_open(p.client, NULL, SOON, &a[i]));
  for (int i = 0; i < N; i++) {
    void *h;
    EQ(pthread_join(t[i], &h), 0);
    b[i] = (mux_handle)(uintptr_t)h;
    for (int k = 0; k < i; k++) CHECK(b[k] != b[i]);
  }
  for (int i = 0; i < N; i++) {
    OK(mux_close(a[i].h));
    OK(mux_close(b[i]));
  }
  disconnect(p);
}

const struct scenario threads[] = {
    {"13", "reads-and-writes-cancelled", timed_out_reads_and_writes_lose_nothing},
    {"2", "opens-cancelled", timed_out_opens_and_accepts_lose_nothing},
    {"14", "halves-in-threads", halves_in_two_threads},
    {"14", "racing-readers-share-the-bytes", racing_readers_share_the_bytes},
    {"14", "racing-writers-lose-nothing", racing_writers_lose_nothing},
    {"14", "racing-accepts-share-the-channels", racing_accepts_share_the_channels},
    {NULL, NULL, NULL},
};
