/* Threads that do anything to a shared pool of handles at any moment: never a crash, a hang or an internal error. The seed
 * is fixed; MUX_TEST_SEED chooses another one. */
#include <stdatomic.h>

#include "t.h"

enum { THREADS = 4, POOL = 64 };

static mux_session sides[2];
static mux_queue queue;
static _Atomic mux_handle pool[POOL];

static uint64_t next_random(uint64_t *state) {
  uint64_t x = *state;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return *state = x;
}

/* A handle goes into the pool; the one whose place it takes is closed. */
static void put(uint64_t r, mux_handle h) {
  mux_handle before = atomic_exchange(&pool[r % POOL], h);
  if (before != 0) {
    mux_status st = mux_close(before);
    CHECK(st == MUX_OK || st == MUX_EHANDLE);
  }
}

/* Whatever a call came to, it is a count in range or a status that a caller can expect. */
static void known(int64_t n, int64_t most) {
  CHECK(n <= most);
  CHECK(n >= MUX_EINTERNAL && n != MUX_EINTERNAL && n != MUX_EFORKED);
  if (n < 0) CHECK(strcmp(mux_status_text((mux_status)n), "unknown status") != 0);
}

static void one_call(uint64_t *rng, char *buf, size_t len) {
  uint64_t r = next_random(rng);
  mux_handle h = atomic_load(&pool[r >> 8 & (POOL - 1)]);
  mux_channel ch = {h}, got;
  mux_session s = sides[r >> 16 & 1];
  size_t part = r >> 20 & 4095, done;
  int32_t timeout = (int32_t)(r >> 40 & 3);
  mux_event ev[4];
  mux_error e;
  uint32_t ready;
  CHECK(part <= len);
  switch (r % 24) {
    case 0:
    case 1:
      if (mux_channel_open(s, NULL, 0, &got) == MUX_OK) put(r >> 30, got.h);
      break;
    case 2:
    case 3:
      if (mux_channel_accept(s, 0, &got) == MUX_OK) put(r >> 30, got.h);
      break;
    case 4: known(mux_close(h), 0); break;
    case 5: known(mux_abort(ch, r >> 32), 0); break;
    case 6: known(mux_reset(ch, 5), 0); break;
    case 7: known(mux_stop(ch, 6), 0); break;
    case 8: known(mux_finish(ch), 0); break;
    case 9: known(mux_interrupt(h), 0); break;
    case 10: known(mux_resume(h), 0); break;
    case 11: known(mux_watch(queue, h, MUX_EV_READ, (uint32_t)(r >> 50 & 1), r), 0); break;
    case 12: known(mux_watch(queue, h, MUX_EV_WRITE | MUX_EV_READ, MUX_WATCH_ONESHOT, r), 0); break;
    case 13: known(mux_unwatch(queue, h), 0); break;
    case 14: {
      int64_t n = mux_queue_next(queue, ev, 4, timeout);
      known(n, 4);
      for (int64_t i = 0; i < n; i++) CHECK(ev[i].h != 0 && ev[i].events != 0);
      break;
    }
    case 15: known(mux_wait(h, MUX_EV_READ, timeout, &ready), 0); break;
    case 16:
      no_error(&e);
      known(mux_cause(h, &e), 0);
      break;
    case 17: known(mux_info(h, MUX_INFO_CHANNEL_ID, buf, 8), 8); break;
    case 18: known(mux_queue_wake(queue), 0); break;
    case 19: known(mux_write_all(ch, buf, part, 0, timeout, &done), 0); break;
    case 20:
    case 21: known(mux_write(ch, buf, part, r >> 50 & 3, timeout), (int64_t)part); break;
    default: known(mux_read(ch, buf, part + 1, 0, timeout), (int64_t)part + 1); break;
  }
}

static void *torment(void *arg) {
  uint64_t rng = *(uint64_t *)arg;
  size_t calls = scaled(40000);
  static _Thread_local char buf[8192];
  for (size_t i = 0; i < calls; i++) one_call(&rng, buf, sizeof buf);
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  struct pair p = connect_pair(argv[1]);
  const char *given = getenv("MUX_TEST_SEED");
  uint64_t seeds[THREADS];
  pthread_t t[THREADS];
  sides[0] = p.client;
  sides[1] = p.server;
  OK(mux_queue_new((mux_runtime){0}, &queue));
  for (int i = 0; i < THREADS; i++) {
    seeds[i] = (given ? strtoull(given, NULL, 10) : 20260101) * 1000003 + (uint64_t)i + 1;
    t[i] = start(torment, &seeds[i]);
  }
  for (int i = 0; i < THREADS; i++) join(t[i]);

  /* The sessions lived through it: whoever was not accepted yet is drained, and a new channel works. */
  mux_channel a, b;
  char buf[8];
  OK(mux_cause(p.client.h, NULL));
  OK(mux_cause(p.server.h, NULL));
  for (int i = 0; i < POOL; i++) {
    mux_handle h = atomic_exchange(&pool[i], 0);
    if (h != 0) mux_close(h);
  }
  mux_open_opts opts = {0};
  opts.struct_size = sizeof opts;
  opts.label = "last";
  opts.label_len = 4;
  OK(mux_channel_open(p.client, &opts, SOON, &a));
  OK(mux_write_all(a, "fin", 3, MUX_IO_FIN, SOON, NULL));
  for (;;) {
    OK(mux_channel_accept(p.server, SOON, &b));
    if (mux_info(b.h, MUX_INFO_LABEL, NULL, 0) == 4) break;
    OK(mux_close(b.h));
  }
  OK(mux_read_exact(b, buf, 3, SOON, NULL));
  EQ(mux_read(b, buf, 1, 0, SOON), 0);
  OK(mux_close(a.h));
  OK(mux_close(b.h));
  OK(mux_close(queue.h));
  disconnect(p);
  finish_test();
  return 0;
}
