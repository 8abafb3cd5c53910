/* What the parts of the benchmark in C share. */
#ifndef BENCH_H
#define BENCH_H

#include <mux.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PING = 64, BULK = 65536, SMALL = 128, ECHO_READ = 1024 };

/* What is asked for. */
struct plan {
  const char *scheme, *scenario, *at;
  double seconds, warm_up;
  char options[1024]; /* as they are appended to a URL */
};

static inline double clock_s(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline void sleep_s(double seconds) {
  struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
  nanosleep(&t, NULL);
}

/* Says why to the process that started this one, and ends. Any thread. */
_Noreturn void fail(const char *doing, mux_handle h, int64_t status);
_Noreturn void skip(const char *why);

/* A channel of the benchmark moved `count`; any thread. */
extern atomic_uint_fast64_t moved;

mux_listener listen_at(const char *url, mux_config c);
mux_session dial_at(const char *url, mux_config c);

/* One call of the library, many times: what it costs this thread. */
struct cost {
  uint64_t count;
  double seconds;
};

/* NULL if there is no such figure. */
struct cost (*figure(const char *name))(const char *url, double seconds);

#endif
