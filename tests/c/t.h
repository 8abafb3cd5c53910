/* What the test programs share: checks that say where, a pair of connected sessions, threads.
 * A program is called with one argument, a URL to listen on. Over TLS, MUX_TEST_CERTS names a directory with ca.pem and,
 * signed by it for localhost and 127.0.0.1, server.pem and server.key. */
#ifndef T_H
#define T_H

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mux.h"

#define CHECK(cond)                                                             \
  do {                                                                          \
    if (!(cond)) {                                                              \
      fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #cond);        \
      exit(1);                                                                  \
    }                                                                           \
  } while (0)

/* Compares, and shows both values. */
#define EQ(a, b)                                                                              \
  do {                                                                                        \
    int64_t a_ = (int64_t)(a), b_ = (int64_t)(b);                                             \
    if (a_ != b_) {                                                                           \
      fprintf(stderr, "%s:%d: %s is %lld, expected %s (%lld)\n", __FILE__, __LINE__, #a,      \
              (long long)a_, #b, (long long)b_);                                              \
      exit(1);                                                                                \
    }                                                                                         \
  } while (0)

#define OK(call) EQ(call, MUX_OK)

/* Longer than anything takes, in milliseconds, also under valgrind on a machine that has much else to do: a test that waits
 * for it has failed. */
#define SOON (getenv("MUX_TEST_SMALL") ? 300000 : 60000)

static const mux_config defaults = {0};

/* Smaller amounts where every instruction is slow. */
static inline size_t scaled(size_t full) { return getenv("MUX_TEST_SMALL") ? full / 16 : full; }

static inline void no_error(mux_error *e) {
  memset(e, 0, sizeof *e);
  e->struct_size = sizeof *e;
}

static inline int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static inline void sleep_ms(int ms) {
  struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
  while (nanosleep(&t, &t) != 0 && errno == EINTR) {
  }
}

static inline int is_tls(const char *url) {
  return strncmp(url, "quic:", 5) == 0 || strncmp(url, "h2:", 3) == 0 || strncmp(url, "qmux+tls:", 9) == 0;
}

static inline const char *certs(void) {
  const char *dir = getenv("MUX_TEST_CERTS");
  CHECK(dir != NULL);
  return dir;
}

/* Under valgrind, and on a machine that has more to do, a connection may take longer than a dial waits by itself. */
static inline const char *patience(void) { return getenv("MUX_TEST_SMALL") ? "connect_timeout=300s" : ""; }

/* The URL to dial. */
static inline void url_of(mux_listener l, char *url, size_t cap) {
  int64_t n = mux_info(l.h, MUX_INFO_URL, url, cap);
  CHECK(n > 0 && (size_t)n < cap);
  if (is_tls(url))
    snprintf(url + n, cap - (size_t)n, "?ca=%s/ca.pem&%s", certs(), patience());
  else
    snprintf(url + n, cap - (size_t)n, "?%s", patience());
}

/* Each Unix listener gets a path of its own: the one before may still be closing in the background. */
static inline mux_listener listen_with(const char *base, mux_config c) {
  static int count;
  mux_listener l;
  mux_error e;
  char url[1024];
  no_error(&e);
  if (strstr(base, "+unix:"))
    snprintf(url, sizeof url, "%s.%d.%d?%s", base, (int)getpid(), count++, patience());
  else if (is_tls(base))
    snprintf(url, sizeof url, "%s?cert=%s/server.pem&key=%s/server.key&%s", base, certs(), certs(), patience());
  else
    snprintf(url, sizeof url, "%s?%s", base, patience());
  if (mux_listen(url, c, SOON, &l, &e) != MUX_OK) {
    fprintf(stderr, "listen %s: %s\n", url, e.message);
    exit(1);
  }
  return l;
}

static inline mux_listener listen_on(const char *base) { return listen_with(base, defaults); }

static inline mux_session dial_to(const char *url, mux_config c) {
  mux_session s;
  mux_error e;
  no_error(&e);
  if (mux_dial(url, c, SOON, &s, &e) != MUX_OK) {
    fprintf(stderr, "dial %s: %s\n", url, e.message);
    exit(1);
  }
  return s;
}

/* Two connected sessions: the side that dialed, the side that accepted. */
struct pair {
  mux_listener listener;
  mux_session client, server;
};

static inline struct pair connect_with(const char *listen_url, mux_config c) {
  struct pair p;
  char url[512];
  p.listener = listen_with(listen_url, c);
  url_of(p.listener, url, sizeof url);
  p.client = dial_to(url, c);
  OK(mux_accept(p.listener, SOON, &p.server, NULL));
  return p;
}

static inline struct pair connect_pair(const char *listen_url) { return connect_with(listen_url, defaults); }

static inline void disconnect(struct pair p) {
  OK(mux_close(p.client.h));
  OK(mux_close(p.server.h));
  OK(mux_close(p.listener.h));
}

/* A channel from one session to the other, both ends. */
static inline void channel_between(mux_session from, mux_session to, mux_channel *a, mux_channel *b) {
  OK(mux_channel_open(from, NULL, SOON, a));
  OK(mux_channel_accept(to, SOON, b));
}

/* Ends the program's use of the library and checks that no handle was forgotten. */
static inline void finish_test(void) {
  mux_runtime rt = {0};
  mux_stats st;
  OK(mux_runtime_shutdown(rt, SOON));
  memset(&st, 0, sizeof st);
  st.struct_size = sizeof st;
  OK(mux_stats_get(0, &st));
  EQ(st.handles_live, 0);
}

/* Bytes that differ at every place and from every other seed. */
static inline unsigned char pattern(uint64_t at, unsigned seed) {
  uint64_t x = (at + 1) * 0x9E3779B97F4A7C15u + seed;
  return (unsigned char)(x >> 56);
}

static inline pthread_t start(void *(*fn)(void *), void *arg) {
  pthread_t t;
  EQ(pthread_create(&t, NULL, fn, arg), 0);
  return t;
}

static inline void join(pthread_t t) { EQ(pthread_join(t, NULL), 0); }

#endif
