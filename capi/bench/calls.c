/* What single calls cost the thread that makes them: its processor time, so that other threads and programs do not count.
 * Both ends of the session are in this process. */
#include "bench.h"

struct both {
  mux_listener l;
  mux_session client, server;
};

static struct both connect_both(const char *url) {
  struct both p;
  char real[512];
  mux_config c;
  if (mux_config_new(&c) != MUX_OK) abort();
  mux_config_set_u64(c, MUX_CFG_MAX_CHANNELS_IN, 100000);
  mux_config_set_u64(c, MUX_CFG_CHANNEL_BACKLOG, 100000);
  p.l = listen_at(url, c);
  mux_info(p.l.h, MUX_INFO_URL, real, sizeof real);
  p.client = dial_at(real, c);
  mux_status st = mux_accept(p.l, MUX_FOREVER, &p.server, NULL);
  if (st != MUX_OK) fail("accept", p.l.h, st);
  mux_close(c.h);
  return p;
}

static void channel(struct both p, mux_channel *a, mux_channel *b) {
  mux_status st = mux_channel_open(p.client, NULL, MUX_FOREVER, a);
  if (st == MUX_OK) st = mux_channel_accept(p.server, MUX_FOREVER, b);
  if (st != MUX_OK) fail("open", p.client.h, st);
}

static double thread_time(void) { return clock_s(CLOCK_THREAD_CPUTIME_ID); }

/* Functions of their own, so that a profiler can count within them alone. */
__attribute__((noinline)) void bench_reads(mux_channel ch, int count) {
  char buf[PING];
  for (int i = 0; i < count; i++) {
    int64_t n = mux_read(ch, buf, sizeof buf, 0, MUX_NOWAIT);
    if (n != PING) fail("read", ch.h, n);
  }
}

__attribute__((noinline)) void bench_writes(mux_channel ch, int count, uint32_t flags) {
  static const char data[PING];
  for (int i = 0; i < count; i++) {
    int64_t n = mux_write(ch, data, sizeof data, i + 1 < count ? flags : 0, MUX_NOWAIT);
    if (n != PING) fail("write", ch.h, n);
  }
}

__attribute__((noinline)) void bench_events(mux_queue q, int batches) {
  mux_event ev[64];
  for (int i = 0; i < batches; i++) {
    int64_t n = mux_queue_next(q, ev, 64, MUX_NOWAIT);
    if (n != 64) fail("queue_next", q.h, n);
  }
}

__attribute__((noinline)) void bench_opens(mux_session s, int count) {
  for (int i = 0; i < count; i++) {
    mux_channel ch;
    mux_status st = mux_channel_open(s, NULL, MUX_NOWAIT, &ch);
    if (st != MUX_OK) fail("open", s.h, st);
    mux_close(ch.h);
  }
}

static void write_all(mux_channel ch, size_t len) {
  static char zeros[BULK];
  for (size_t n; len > 0; len -= n) {
    n = len < sizeof zeros ? len : sizeof zeros;
    mux_status st = mux_write_all(ch, zeros, n, 0, MUX_FOREVER, NULL);
    if (st != MUX_OK) fail("write", ch.h, st);
  }
}

/* Reads of what has arrived already. */
static struct cost read64(const char *url, double seconds) {
  enum { ROUND = 512 }; /* what arrives in one piece on all wires */
  struct both p = connect_both(url);
  struct cost cost = {0, 0};
  mux_channel a, b;
  channel(p, &a, &b);
  for (double end = clock_s(CLOCK_MONOTONIC) + seconds; clock_s(CLOCK_MONOTONIC) < end;) {
    write_all(a, ROUND * PING);
    mux_watch_low_water(b, ROUND * PING, 0);
    if (mux_wait(b.h, MUX_EV_READ, 10000, NULL) != MUX_OK) fail("wait", b.h, MUX_TIMEDOUT);
    double begin = thread_time();
    bench_reads(b, ROUND);
    cost.seconds += thread_time() - begin;
    cost.count += ROUND;
  }
  return cost;
}

static void *read_all(void *arg) {
  mux_channel ch = *(mux_channel *)arg;
  static char sink[BULK];
  while (mux_read(ch, sink, sizeof sink, 0, MUX_FOREVER) > 0) {
  }
  return NULL;
}

/* A burst of writes, which the transport takes afterwards; flags go with all but the last one. */
static struct cost writes(const char *url, double seconds, uint32_t flags) {
  enum { BURST = 1024 };
  struct both p = connect_both(url);
  struct cost cost = {0, 0};
  mux_channel a, b;
  pthread_t reader;
  channel(p, &a, &b);
  pthread_create(&reader, NULL, read_all, &b);
  for (double end = clock_s(CLOCK_MONOTONIC) + seconds; clock_s(CLOCK_MONOTONIC) < end;) {
    double begin = thread_time();
    bench_writes(a, BURST, flags);
    cost.seconds += thread_time() - begin;
    cost.count += BURST;
    if (mux_wait(a.h, MUX_EV_DRAINED, 10000, NULL) != MUX_OK) fail("wait", a.h, MUX_TIMEDOUT);
    mux_watch_low_water(a, 0, BURST * PING);
    if (mux_wait(a.h, MUX_EV_WRITE, 10000, NULL) != MUX_OK) fail("wait", a.h, MUX_TIMEDOUT);
  }
  return cost;
}

static struct cost write64(const char *url, double seconds) { return writes(url, seconds, 0); }

static struct cost write_more(const char *url, double seconds) { return writes(url, seconds, MUX_IO_MORE); }

/* Events of channels that stay readable, 64 at a time. */
static struct cost event64(const char *url, double seconds) {
  enum { CHANNELS = 1024, BATCHES = 64 };
  struct both p = connect_both(url);
  struct cost cost = {0, 0};
  mux_queue q;
  mux_runtime defaults = {0};
  if (mux_queue_new(defaults, &q) != MUX_OK) fail("queue_new", 0, MUX_EINTERNAL);
  for (int i = 0; i < CHANNELS; i++) {
    mux_channel a, b;
    channel(p, &a, &b);
    write_all(a, 1);
    if (mux_wait(b.h, MUX_EV_READ, 10000, NULL) != MUX_OK) fail("wait", b.h, MUX_TIMEDOUT);
    mux_watch(q, b.h, MUX_EV_READ, MUX_WATCH_LEVEL, (uint64_t)i);
  }
  for (double end = clock_s(CLOCK_MONOTONIC) + seconds; clock_s(CLOCK_MONOTONIC) < end;) {
    double begin = thread_time();
    bench_events(q, BATCHES);
    cost.seconds += thread_time() - begin;
    cost.count += BATCHES * 64;
  }
  return cost;
}

static void *accept_all(void *arg) {
  mux_session s = *(mux_session *)arg;
  for (mux_channel ch; mux_channel_accept(s, MUX_FOREVER, &ch) == MUX_OK;) mux_close(ch.h);
  return NULL;
}

/* Opens and closes; the peer accepts and closes. */
static struct cost open_close(const char *url, double seconds) {
  enum { BURST = 64 };
  struct both p = connect_both(url);
  struct cost cost = {0, 0};
  pthread_t peer;
  pthread_create(&peer, NULL, accept_all, &p.server);
  for (double end = clock_s(CLOCK_MONOTONIC) + seconds; clock_s(CLOCK_MONOTONIC) < end;) {
    double begin = thread_time();
    bench_opens(p.client, BURST);
    cost.seconds += thread_time() - begin;
    cost.count += BURST;
    mux_stats st = {.struct_size = sizeof st};
    do sleep_s(0.0002);
    while (mux_stats_get(p.client.h, &st) == MUX_OK && st.channels_open > 0);
  }
  return cost;
}

struct cost (*figure(const char *name))(const char *url, double seconds) {
  if (strcmp(name, "c-read") == 0) return read64;
  if (strcmp(name, "c-write") == 0) return write64;
  if (strcmp(name, "c-write-more") == 0) return write_more;
  if (strcmp(name, "c-event") == 0) return event64;
  if (strcmp(name, "c-open") == 0) return open_close;
  return NULL;
}
