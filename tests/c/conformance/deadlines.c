/* What Go's nettest expects of any connection, for channels: basic and racing I/O are among the other clauses; here are
 * deadlines that are past, present, future or set for good, calls on what is closed, and interrupts. */
#include "conform.h"

static void *echo_pings(void *arg) {
  mux_channel ch = *(mux_channel *)arg;
  uint64_t word;
  while (mux_read_exact(ch, &word, sizeof word, SOON, NULL) == MUX_OK) {
    word++;
    OK(mux_write_all(ch, &word, sizeof word, 0, SOON, NULL));
  }
  OK(mux_finish(ch));
  return NULL;
}

static void ping_pong(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b;
  channel_between(p.client, p.server, &a, &b);
  pthread_t t = start(echo_pings, &b);
  for (uint64_t i = 0; i < scaled(500); i++) {
    uint64_t word = i * 3;
    OK(mux_write_all(a, &word, sizeof word, 0, SOON, NULL));
    OK(mux_read_exact(a, &word, sizeof word, SOON, NULL));
    EQ(word, i * 3 + 1);
  }
  OK(mux_finish(a));
  EQ(read_out(a, NULL), 0);
  join(t);
  close_both(a, b);
  disconnect(p);
}

/* A deadline in the past: nothing waits, nothing is lost, and what is there is given all the same. */
static void a_past_deadline_does_not_wait(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b;
  char buf[64];
  size_t done;
  channel_between(p.client, p.server, &a, &b);
  EQ(mux_read(b, buf, sizeof buf, 0, MUX_NOWAIT), MUX_AGAIN);
  EQ(mux_read_exact(b, buf, 4, MUX_NOWAIT, &done), MUX_AGAIN);
  EQ(done, 0);
  EQ(mux_wait(b.h, MUX_EV_READ, MUX_NOWAIT, NULL), MUX_AGAIN);
  OK(mux_write_all(a, "abc", 3, 0, SOON, NULL));
  OK(mux_wait(b.h, MUX_EV_READ, SOON, NULL));
  EQ(mux_read_exact(b, buf, 4, MUX_NOWAIT, &done), MUX_AGAIN);
  EQ(done, 3);
  CHECK(memcmp(buf, "abc", 3) == 0); /* what was taken is told */
  fill(a);
  EQ(mux_write(a, buf, 1, 0, MUX_NOWAIT), MUX_AGAIN);
  EQ(mux_write_all(a, buf, 1, 0, MUX_NOWAIT, &done), MUX_AGAIN);
  EQ(done, 0);
  OK(mux_cause(a.h, NULL));
  close_both(a, b);
  disconnect(p);
}

/* A deadline in the future ends the sleep then and not before; afterwards the channel is as it was. */
static void a_future_deadline_ends_the_sleep(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b;
  char buf[8];
  channel_between(p.client, p.server, &a, &b);
  int64_t begin = now_ms();
  EQ(mux_read(b, buf, 1, 0, 60), MUX_TIMEDOUT);
  CHECK(now_ms() - begin >= 60);
  EQ(mux_read_exact(b, buf, 4, 30, NULL), MUX_TIMEDOUT);
  EQ(mux_wait(b.h, MUX_EV_READ, 30, NULL), MUX_TIMEDOUT);
  round_trip(a, b, "after a timeout");
  fill(a);
  begin = now_ms();
  EQ(mux_write(a, buf, 1, 0, 60), MUX_TIMEDOUT);
  CHECK(now_ms() - begin >= 60);
  close_both(a, b);
  mux_session s;
  EQ(mux_accept(p.listener, 30, &s, NULL), MUX_TIMEDOUT);
  EQ(mux_channel_accept(p.server, 30, &a), MUX_TIMEDOUT);
  disconnect(p);
}

struct sleeper {
  mux_channel ch;
  int64_t result;
};

static void *sleep_in_read(void *arg) {
  struct sleeper *s = arg;
  char byte;
  s->result = mux_read(s->ch, &byte, 1, 0, MUX_FOREVER);
  return NULL;
}

static void *sleep_in_write(void *arg) {
  struct sleeper *s = arg;
  s->result = mux_write(s->ch, "x", 1, 0, MUX_FOREVER);
  return NULL;
}

/* Closing our own handle wakes whoever sleeps on it; later calls are told that it is no handle. */
static void close_wakes_who_sleeps(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b;
  char byte;
  channel_between(p.client, p.server, &a, &b);
  fill(a);
  struct sleeper r = {a, 1}, w = {a, 1};
  pthread_t t[2] = {start(sleep_in_read, &r), start(sleep_in_write, &w)};
  sleep_ms(30);
  OK(mux_close(a.h));
  join(t[0]);
  join(t[1]);
  CHECK(r.result == MUX_ECLOSED || r.result == MUX_EHANDLE);
  CHECK(w.result == MUX_ECLOSED || w.result == MUX_EHANDLE);
  EQ(mux_read(a, &byte, 1, 0, SOON), MUX_EHANDLE);
  EQ(mux_write(a, &byte, 1, 0, SOON), MUX_EHANDLE);
  EQ(mux_close(a.h), MUX_EHANDLE);
  OK(mux_close(b.h));
  disconnect(p);
}

/* The peer's end, and the session's, wake them too. */
static void the_end_of_the_session_wakes_who_sleeps(const char *url) {
  for (int side = 0; side < 2; side++) {
    struct pair p = connect_pair(url);
    mux_channel a, b;
    channel_between(p.client, p.server, &a, &b);
    fill(a);
    struct sleeper r = {a, 1}, w = {a, 1};
    pthread_t t[2] = {start(sleep_in_read, &r), start(sleep_in_write, &w)};
    sleep_ms(30);
    OK(mux_close(side ? p.server.h : p.client.h));
    join(t[0]);
    join(t[1]);
    CHECK(r.result < 0 && r.result != MUX_TIMEDOUT);
    CHECK(w.result < 0 && w.result != MUX_TIMEDOUT);
    close_both(a, b);
    OK(mux_close(side ? p.client.h : p.server.h));
    OK(mux_close(p.listener.h));
  }
}

/* mux_interrupt is a deadline that stays in the past: those that sleep, those to come, until mux_resume. */
static void an_interrupt_holds_until_resume(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b;
  char buf[8];
  channel_between(p.client, p.server, &a, &b);
  struct sleeper r = {b, 1};
  pthread_t t = start(sleep_in_read, &r);
  sleep_ms(20);
  OK(mux_interrupt(b.h));
  join(t);
  EQ(r.result, MUX_CANCELED);
  EQ(mux_read(b, buf, 1, 0, MUX_FOREVER), MUX_CANCELED);
  EQ(mux_read(b, buf, 1, 0, MUX_NOWAIT), MUX_AGAIN); /* what does not wait is not interrupted */
  OK(mux_resume(b.h));
  round_trip(a, b, "resumed");
  OK(mux_interrupt(p.server.h));
  EQ(mux_channel_accept(p.server, MUX_FOREVER, &a), MUX_CANCELED);
  OK(mux_resume(p.server.h));
  OK(mux_cause(b.h, NULL));
  OK(mux_close(b.h));
  disconnect(p);
}

static void *ask(void *arg) {
  mux_channel ch = *(mux_channel *)arg;
  char buf[64];
  mux_event ev;
  mux_queue q;
  OK(mux_queue_new((mux_runtime){0}, &q));
  for (int i = 0; i < 100; i++) {
    mux_info(ch.h, MUX_INFO_LOCAL_ADDR, buf, sizeof buf);
    mux_info(ch.h, MUX_INFO_CHANNEL_ID, buf, sizeof buf);
    OK(mux_cause(ch.h, NULL));
    stats_of(ch.h);
    OK(mux_watch(q, ch.h, MUX_EV_READ, MUX_WATCH_ONESHOT, 1));
    OK(mux_interrupt(ch.h));
    OK(mux_resume(ch.h));
    mux_queue_next(q, &ev, 1, MUX_NOWAIT);
    EQ(mux_read(ch, buf, 1, 0, MUX_NOWAIT), MUX_AGAIN);
    EQ(mux_write(ch, buf, 0, 0, MUX_NOWAIT), 0);
  }
  OK(mux_close(q.h));
  return NULL;
}

/* Every call, from many threads at once. */
static void concurrent_methods(const char *url) {
  enum { N = 8 };
  struct pair p = connect_pair(url);
  mux_channel a, b;
  pthread_t t[N];
  channel_between(p.client, p.server, &a, &b);
  for (int i = 0; i < N; i++) t[i] = start(ask, i % 2 ? &a : &b);
  for (int i = 0; i < N; i++) join(t[i]);
  round_trip(a, b, "in peace");
  close_both(a, b);
  disconnect(p);
}

const struct scenario deadlines[] = {
    {"4", "ping-pong", ping_pong},
    {"net", "a-past-deadline-does-not-wait", a_past_deadline_does_not_wait},
    {"net", "a-future-deadline-ends-the-sleep", a_future_deadline_ends_the_sleep},
    {"10", "close-wakes-the-blocked", close_wakes_who_sleeps},
    {"net", "the-end-of-the-session-wakes-who-sleeps", the_end_of_the_session_wakes_who_sleeps},
    {"net", "an-interrupt-holds-until-resume", an_interrupt_holds_until_resume},
    {"14", "methods-at-once", concurrent_methods},
    {NULL, NULL, NULL},
};
