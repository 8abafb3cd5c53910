/* Scenarios of the contract that an application can see through mux.h. Each is a function of a URL to listen on, runs in a
 * process of its own, and fails by CHECK. One that needs what the session cannot do asserts the documented behaviour
 * without it. */
#ifndef CONFORM_H
#define CONFORM_H

#include "../t.h"

struct scenario {
  const char *clause; /* of the contract, or "net" for what is expected of every connection */
  const char *name;
  void (*run)(const char *url);
};

/* Ends with a row whose name is NULL. */
extern const struct scenario opening[], streams[], endings[], limits[], living[], threads[], deadlines[];

/* A configuration with one number changed. */
static inline mux_config with_u64(uint32_t key, uint64_t value) {
  mux_config c;
  OK(mux_config_new(&c));
  OK(mux_config_set_u64(c, key, value));
  return c;
}

static inline uint64_t caps_of(mux_session s) {
  uint64_t caps;
  OK(mux_session_caps(s, &caps));
  return caps;
}

/* What ended it; its status must be this one. */
static inline mux_error cause_of(mux_handle h, int64_t status) {
  mux_error e;
  no_error(&e);
  EQ(mux_cause(h, &e), status);
  EQ(e.status, status);
  CHECK(e.message[0] != 0 || status == MUX_OK);
  return e;
}

static inline mux_stats stats_of(mux_handle h) {
  mux_stats st;
  memset(&st, 0, sizeof st);
  st.struct_size = sizeof st;
  OK(mux_stats_get(h, &st));
  return st;
}

/* Reads to whatever ends the stream: 0 or a status. */
static inline int64_t read_out(mux_channel ch, size_t *total) {
  static _Thread_local char sink[65536];
  int64_t n;
  while ((n = mux_read(ch, sink, sizeof sink, 0, SOON)) > 0)
    if (total) *total += (size_t)n;
  return n;
}

/* Writes until that fails: the status. */
static inline int64_t write_out(mux_channel ch) {
  static char zeros[65536];
  int64_t n;
  while ((n = mux_write(ch, zeros, sizeof zeros, 0, SOON)) > 0) {
  }
  CHECK(n < 0);
  return n;
}

/* Writes until there is no room: the bytes. */
static inline size_t fill(mux_channel ch) {
  static char zeros[65536];
  size_t total = 0;
  int64_t n;
  /* What is under way may make room once more; ciphers under valgrind take their time. */
  int32_t quiet = getenv("MUX_TEST_SMALL") ? 3000 : 150;
  while ((n = mux_write(ch, zeros, sizeof zeros, 0, quiet)) > 0) total += (size_t)n;
  EQ(n, MUX_TIMEDOUT);
  return total;
}

/* A small message there and back on an open channel: it moves. */
static inline void round_trip(mux_channel a, mux_channel b, const char *text) {
  char buf[64];
  size_t len = strlen(text);
  CHECK(len < sizeof buf);
  OK(mux_write_all(a, text, len, 0, SOON, NULL));
  OK(mux_read_exact(b, buf, len, SOON, NULL));
  CHECK(memcmp(buf, text, len) == 0);
  OK(mux_write_all(b, text, len, 0, SOON, NULL));
  OK(mux_read_exact(a, buf, len, SOON, NULL));
  CHECK(memcmp(buf, text, len) == 0);
}

/* A stream of pattern bytes, for a thread. */
struct flow {
  mux_channel ch;
  size_t total;
  unsigned seed;
};

void *send_flow(void *flow);    /* all of it, then the end */
void *receive_flow(void *flow); /* all of it, checked, and the end */
void *echo_flow(void *flow);    /* sends back what comes, and the end; total and seed are not looked at */

static inline void close_both(mux_channel a, mux_channel b) {
  OK(mux_close(a.h));
  OK(mux_close(b.h));
}

#endif
