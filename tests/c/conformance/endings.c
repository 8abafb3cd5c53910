/* Clauses 5, 6, 10: resets, stops, aborts, the end of a session, and what each end is told. */
#include "conform.h"

static const uint64_t codes[] = {0, 1, 255, 256, 65535, 4294967295u, (1ull << 62) - 257};
enum { CODES = sizeof codes / sizeof *codes };

static void reset_codes_reach_the_reader(const char *url) {
  struct pair p = connect_pair(url);
  int can = (caps_of(p.client) & MUX_CAP_RESET_CODE) != 0;
  for (int i = 0; i < 2 * CODES; i++) {
    mux_channel a, b;
    char buf[8];
    /* By either side, of a channel that either side opened. */
    channel_between(i % 2 ? p.server : p.client, i % 2 ? p.client : p.server, &a, &b);
    mux_channel from = i % 4 < 2 ? a : b, to = i % 4 < 2 ? b : a;
    uint64_t code = codes[i % CODES];
    OK(mux_write_all(from, "part", 4, 0, SOON, NULL));
    mux_status st = mux_reset(from, code);
    if (!can || st == MUX_EUNSUPPORTED) {
      EQ(st, MUX_EUNSUPPORTED);
      CHECK(!can || code > UINT32_MAX);
      OK(mux_cause(from.h, NULL));
      close_both(a, b);
      continue;
    }
    OK(st);
    EQ(read_out(to, NULL), MUX_ERESET);
    mux_error e = cause_of(to.h, MUX_ERESET);
    EQ(e.code, code);
    EQ(e.origin, MUX_BY_PEER);
    EQ(mux_read(to, buf, 1, 0, SOON), MUX_ERESET); /* for ever */
    EQ(mux_write(from, "x", 1, 0, SOON), MUX_EFINISHED);
    /* The other direction goes on. */
    OK(mux_write_all(to, "back", 4, MUX_IO_FIN, SOON, NULL));
    OK(mux_read_exact(from, buf, 4, SOON, NULL));
    EQ(mux_read(from, buf, 1, 0, SOON), 0);
    close_both(a, b);
  }
  OK(mux_cause(p.client.h, NULL));
  disconnect(p);
}

static void stop_codes_reach_the_writer(const char *url) {
  struct pair p = connect_pair(url);
  int can = (caps_of(p.client) & MUX_CAP_STOP) != 0;
  for (int i = 0; i < 2 * CODES; i++) {
    mux_channel a, b;
    char buf[8];
    uint32_t ready;
    channel_between(i % 2 ? p.server : p.client, i % 2 ? p.client : p.server, &a, &b);
    mux_channel reader = i % 4 < 2 ? a : b, writer = i % 4 < 2 ? b : a;
    uint64_t code = codes[i % CODES];
    mux_status st = mux_stop(reader, code);
    if (!can || st == MUX_EUNSUPPORTED) {
      EQ(st, MUX_EUNSUPPORTED);
      CHECK(!can || code > UINT32_MAX);
      round_trip(a, b, "as before");
      close_both(a, b);
      continue;
    }
    OK(st);
    EQ(mux_read(reader, buf, 1, 0, SOON), MUX_EFINISHED);
    EQ(write_out(writer), MUX_ESTOPPED);
    mux_error e = cause_of(writer.h, MUX_ESTOPPED);
    EQ(e.code, code);
    EQ(e.origin, MUX_BY_PEER);
    EQ(mux_write(writer, "x", 1, 0, SOON), MUX_ESTOPPED);
    OK(mux_wait(writer.h, MUX_EV_WRITE, SOON, &ready)); /* what has failed is ready */
    /* The other direction goes on. */
    OK(mux_write_all(reader, "back", 4, MUX_IO_FIN, SOON, NULL));
    OK(mux_read_exact(writer, buf, 4, SOON, NULL));
    EQ(mux_read(writer, buf, 1, 0, SOON), 0);
    close_both(a, b);
  }
  OK(mux_cause(p.client.h, NULL));
  disconnect(p);
}

/* The library's own codes are refused and change nothing. */
static void codes_out_of_range_are_refused(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b;
  channel_between(p.client, p.server, &a, &b);
  for (uint64_t code = (1ull << 62) - 256; code != 0; code = code < UINT64_MAX / 3 ? code * 3 : 0) {
    EQ(mux_reset(a, code), MUX_EINVAL);
    EQ(mux_stop(a, code), MUX_EINVAL);
    EQ(mux_abort(a, code), MUX_EINVAL);
    EQ(mux_shutdown(p.client.h, code, NULL), MUX_EINVAL);
  }
  round_trip(a, b, "nothing has changed");
  close_both(a, b);
  disconnect(p);
}

struct blocked {
  mux_channel ch;
  int64_t result;
};

static void *write_until_it_fails(void *arg) {
  struct blocked *w = arg;
  w->result = write_out(w->ch);
  return NULL;
}

/* A writer that sleeps because its window is used up wakes when the reader stops, aborts or closes. */
static void a_blocked_writer_wakes_when_the_reader_goes(const char *url) {
  struct pair p = connect_pair(url);
  int can_stop = (caps_of(p.client) & MUX_CAP_STOP) != 0;
  for (int how = 0; can_stop && how < 3; how++) {
    mux_channel a, b;
    channel_between(p.client, p.server, &a, &b);
    struct blocked w = {a, 0};
    fill(a);
    pthread_t t = start(write_until_it_fails, &w);
    sleep_ms(20);
    if (how == 0) OK(mux_stop(b, 12));
    if (how == 1) OK(mux_abort(b, 12));
    if (how == 2) OK(mux_close(b.h));
    join(t);
    EQ(w.result, MUX_ESTOPPED);
    mux_error e = cause_of(a.h, MUX_ESTOPPED);
    EQ(e.code, how == 2 ? 0 : 12);
    if (how == 0) OK(mux_close(b.h));
    OK(mux_close(a.h));
  }
  disconnect(p);
}

static void abort_is_seen_as_reset(const char *url) {
  struct pair p = connect_pair(url);
  int visible = (caps_of(p.client) & MUX_CAP_RESET_VISIBLE) != 0;
  for (int side = 0; side < 2; side++) {
    mux_channel a, b;
    channel_between(p.client, p.server, &a, &b);
    mux_channel from = side ? b : a, to = side ? a : b;
    OK(mux_write_all(from, "half of it", 10, 0, SOON, NULL));
    OK(mux_abort(from, 9));
    EQ(mux_close(from.h), MUX_EHANDLE);
    int64_t end = read_out(to, NULL);
    if (visible) {
      EQ(end, MUX_ERESET);
      EQ(cause_of(to.h, MUX_ERESET).code, 9);
      EQ(write_out(to), MUX_ESTOPPED);
      EQ(cause_of(to.h, MUX_ERESET).code, 9); /* the first failure is kept */
    }
    OK(mux_close(to.h));
  }
  disconnect(p);
}

static void *write_all_for_ever(void *arg) {
  struct blocked *w = arg;
  static char block[65536];
  do {
    w->result = mux_write_all(w->ch, block, sizeof block, 0, SOON, NULL);
  } while (w->result == MUX_OK);
  return NULL;
}

/* A writer that is aborted in the middle of a write is not seen as complete. */
static void abort_in_the_middle_of_a_write(const char *url) {
  struct pair p = connect_pair(url);
  int visible = (caps_of(p.client) & MUX_CAP_RESET_VISIBLE) != 0;
  for (int i = 0; i < 5; i++) {
    mux_channel a, b;
    char buf[4096];
    channel_between(p.client, p.server, &a, &b);
    struct blocked w = {a, 0};
    pthread_t t = start(write_all_for_ever, &w);
    OK(mux_read_exact(b, buf, sizeof buf, SOON, NULL));
    OK(mux_abort(a, 3));
    join(t);
    CHECK(w.result == MUX_ECLOSED || w.result == MUX_EHANDLE);
    int64_t end = read_out(b, NULL);
    if (visible) EQ(end, MUX_ERESET);
    OK(mux_close(b.h));
  }
  disconnect(p);
}

static void drain_refuses_new_and_keeps_old(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b, c;
  mux_error e;
  channel_between(p.client, p.server, &a, &b);
  OK(mux_session_drain(p.server));
  round_trip(a, b, "old goes on");
  mux_status st = mux_channel_open(p.client, NULL, SOON, &c);
  if (st == MUX_OK) {
    int64_t n = read_out(c, NULL);
    CHECK(n == MUX_EREFUSED || n == MUX_EGOAWAY);
    e = cause_of(c.h, n);
    EQ(e.retry_safe, 1);
    OK(mux_close(c.h));
  } else {
    EQ(st, MUX_EGOAWAY);
  }
  EQ(mux_channel_accept(p.server, 30, &c), MUX_TIMEDOUT);
  EQ(mux_channel_open(p.server, NULL, SOON, &c), MUX_EGOAWAY);
  round_trip(b, a, "and on");
  close_both(a, b);
  disconnect(p);
}

static void close_tells_code_and_reason(const char *url) {
  for (int side = 0; side < 2; side++) {
    struct pair p = connect_pair(url);
    mux_session ours = side ? p.server : p.client, theirs = side ? p.client : p.server;
    mux_channel a, b, c;
    uint32_t ready;
    size_t got = 0;
    int goaway = (caps_of(p.client) & MUX_CAP_GOAWAY) != 0;
    channel_between(ours, theirs, &a, &b);
    OK(mux_write_all(a, "done", 4, MUX_IO_FIN, SOON, NULL));
    OK(mux_shutdown(ours.h, 4000000000u, "enough for today"));
    OK(mux_wait(ours.h, MUX_EV_CLOSED, SOON, &ready));
    EQ(cause_of(ours.h, MUX_ECLOSED).origin, MUX_BY_LOCAL);
    EQ(mux_channel_open(ours, NULL, SOON, &c), MUX_ECLOSED);
    EQ(read_out(b, &got), 0); /* what was finished was flushed first */
    EQ(got, 4);
    EQ(mux_channel_accept(theirs, SOON, &c), MUX_ECLOSED);
    OK(mux_wait(theirs.h, MUX_EV_CLOSED, SOON, &ready));
    mux_error e = cause_of(theirs.h, MUX_ECLOSED);
    EQ(e.origin, MUX_BY_PEER);
    if (goaway) {
      EQ(e.code, 4000000000u);
      CHECK(strstr(e.message, "enough for today") != NULL);
    }
    CHECK(mux_write(b, "x", 1, 0, SOON) < 0);
    EQ(mux_channel_open(theirs, NULL, SOON, &c), MUX_ECLOSED);
    close_both(a, b);
    disconnect(p);
  }
}

/* Finished, unsent, unread: whatever the moment, the reader has every byte and the end, or an error. Never a short end. */
static void close_never_makes_a_short_stream_look_whole(const char *url) {
  size_t rounds = scaled(96), whole = 0, cut = 0;
  uint64_t random = 20260101;
  for (size_t round = 0; round < rounds; round++) {
    enum { N = 3 };
    struct pair p = connect_pair(url);
    mux_channel a[N], b[N];
    size_t sent[N];
    int finished[N];
    static char block[100000];
    for (int i = 0; i < N; i++) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      channel_between(p.client, p.server, &a[i], &b[i]);
      int64_t n = mux_write(a[i], block, 1 + (random >> 40) % sizeof block, 0, SOON);
      CHECK(n > 0);
      sent[i] = (size_t)n;
      finished[i] = random >> 33 & 1;
      if (finished[i]) OK(mux_finish(a[i]));
    }
    sleep_ms((int)(random >> 36 & 1));
    if (round % 3 == 0) OK(mux_close(p.client.h)); /* each of the polite ends */
    if (round % 3 == 1) OK(mux_shutdown(p.client.h, 1, NULL));
    if (round % 3 == 2) {
      for (int i = 0; i < N; i++) CHECK(mux_close(a[i].h) == MUX_OK || !finished[i]);
      OK(mux_close(p.client.h));
    }
    for (int i = 0; i < N; i++) {
      size_t got = 0;
      int64_t end = read_out(b[i], &got);
      CHECK(got <= sent[i]);
      if (end == 0) {
        EQ(got, sent[i]);
        CHECK(finished[i] || round % 3 == 2);
        whole++;
      } else {
        CHECK(!finished[i]); /* within the linger time, what was finished arrives */
        cut++;
      }
      mux_close(a[i].h);
      OK(mux_close(b[i].h));
    }
    mux_close(p.client.h);
    OK(mux_close(p.server.h));
    OK(mux_close(p.listener.h));
  }
  CHECK(whole > 0 && cut > 0);
}

/* Data that arrived stays readable after its session has ended; channels that arrived can still be accepted. */
static void what_arrived_outlives_the_session(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b, c, d;
  size_t got = 0;
  channel_between(p.client, p.server, &a, &b);
  OK(mux_write_all(a, "first", 5, MUX_IO_FIN, SOON, NULL));
  OK(mux_channel_open(p.client, NULL, SOON, &c));
  OK(mux_write_all(c, "second", 6, MUX_IO_FIN, SOON, NULL));
  OK(mux_close(p.client.h));
  OK(mux_wait(p.server.h, MUX_EV_CLOSED, SOON, NULL));
  EQ(read_out(b, &got), 0);
  EQ(got, 5);
  OK(mux_channel_accept(p.server, SOON, &d));
  EQ(read_out(d, &got), 0);
  EQ(got, 11);
  EQ(mux_channel_accept(p.server, SOON, &d), MUX_ECLOSED);
  close_both(a, b);
  OK(mux_close(c.h));
  OK(mux_close(d.h));
  OK(mux_close(p.server.h));
  OK(mux_close(p.listener.h));
}

const struct scenario endings[] = {
    {"5", "reset-codes", reset_codes_reach_the_reader},
    {"5", "stop-codes", stop_codes_reach_the_writer},
    {"5", "codes-out-of-range", codes_out_of_range_are_refused},
    {"6", "writer-learns-that-the-reader-left", a_blocked_writer_wakes_when_the_reader_goes},
    {"6", "drop-is-reset", abort_is_seen_as_reset},
    {"6", "abort-mid-write", abort_in_the_middle_of_a_write},
    {"10", "drain-finishes-the-old", drain_refuses_new_and_keeps_old},
    {"10", "close-says-who-and-why", close_tells_code_and_reason},
    {"10", "close-loses-nothing", close_never_makes_a_short_stream_look_whole},
    {"10", "accepted-after-the-end", what_arrived_outlives_the_session},
    {NULL, NULL, NULL},
};
