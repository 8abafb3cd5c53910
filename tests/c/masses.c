/* Very many channels on one queue, whose bytes come in random order, under three pollers: poll with level watches, epoll with
 * level watches, epoll in edge-triggered mode with one-shot watches. Each byte is announced once at least and read once.
 * MUX_TEST_CHANNELS says how many. */
#include <sys/epoll.h>

#include "t.h"

enum { BATCH = 64 };
enum poller { POLL, EPOLL_LEVEL, EPOLL_EDGE };

static size_t count;
static mux_channel *out, *in;
static unsigned char *seen;
static mux_queue q;
static int fd, ep;

static uint64_t state = 88172645463325252u;
static uint64_t next_random(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

/* One byte on every channel, in an order of its own. */
static void *write_everywhere(void *arg) {
  size_t *order = malloc(count * sizeof *order);
  CHECK(order != NULL);
  for (size_t i = 0; i < count; i++) order[i] = i;
  for (size_t i = count; i-- > 1;) {
    size_t k = next_random() % (i + 1), other = order[k];
    order[k] = order[i];
    order[i] = other;
  }
  for (size_t i = 0; i < count; i++) OK(mux_write_all(out[order[i]], arg, 1, 0, SOON, NULL));
  free(order);
  return NULL;
}

static void sleep_until_ready(enum poller poller) {
  struct pollfd on = {fd, POLLIN, 0};
  struct epoll_event event;
  int n = poller == POLL ? poll(&on, 1, SOON) : epoll_wait(ep, &event, 1, SOON);
  CHECK(n == 1); /* 0: nobody said that there is something */
}

static void run(enum poller poller) {
  char byte = 'x';
  uint32_t mode = poller == EPOLL_EDGE ? MUX_WATCH_ONESHOT : MUX_WATCH_LEVEL;
  struct epoll_event on = {.events = EPOLLIN | (poller == EPOLL_EDGE ? EPOLLET : 0), .data = {.u64 = 0}};
  memset(seen, 0, count);
  for (size_t i = 0; i < count; i++) OK(mux_watch(q, in[i].h, MUX_EV_READ, mode, i));
  EQ(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &on), 0);
  pthread_t writer = start(write_everywhere, &byte);
  for (size_t got = 0; got < count;) {
    mux_event ev[BATCH];
    int64_t n;
    sleep_until_ready(poller);
    do {
      n = mux_queue_next(q, ev, BATCH, MUX_NOWAIT);
      CHECK(n > 0 || n == MUX_AGAIN);
      for (int64_t k = 0; k < n; k++) {
        size_t i = ev[k].user;
        CHECK(i < count && ev[k].h == in[i].h && ev[k].events == MUX_EV_READ);
        int64_t moved = mux_read(in[i], &byte, 1, 0, MUX_NOWAIT);
        if (moved == 1) {
          CHECK(byte == 'x' && !seen[i]);
          seen[i] = 1;
          got++;
        } else {
          EQ(moved, MUX_AGAIN); /* spurious */
        }
        if (poller == EPOLL_EDGE && !seen[i]) OK(mux_watch(q, in[i].h, MUX_EV_READ, mode, i));
      }
    } while (poller == EPOLL_EDGE && n == BATCH);
  }
  join(writer);
  EQ(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL), 0);
  for (size_t i = 0; i < count; i++) OK(mux_unwatch(q, in[i].h));
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  const char *wanted = getenv("MUX_TEST_CHANNELS");
  count = wanted ? strtoul(wanted, NULL, 10) : scaled(10000);
  mux_config c;
  OK(mux_config_new(&c));
  OK(mux_config_set_u64(c, MUX_CFG_MAX_CHANNELS_IN, count));
  OK(mux_config_set_u64(c, MUX_CFG_CHANNEL_BACKLOG, count));
  /* Both ends together promise less than what a process may. */
  OK(mux_config_set_u64(c, MUX_CFG_CHANNEL_WINDOW, 4096));
  OK(mux_config_set_u64(c, MUX_CFG_SESSION_WINDOW, 500u << 20));
  struct pair p = connect_with(argv[1], c);
  OK(mux_close(c.h));
  out = calloc(count, sizeof *out);
  in = calloc(count, sizeof *in);
  seen = calloc(count, 1);
  CHECK(out && in && seen);
  for (size_t i = 0, taken = 0; taken < count;) {
    for (size_t stop = i + 1000; i < count && i < stop; i++) OK(mux_channel_open(p.client, NULL, SOON, &out[i]));
    OK(mux_wait(p.server.h, MUX_EV_ACCEPT, SOON, NULL));
    int64_t n = mux_channel_accept_many(p.server, in + taken, (int32_t)(count - taken));
    CHECK(n >= 0);
    taken += (size_t)n;
  }
  mux_fd ready;
  OK(mux_queue_new((mux_runtime){0}, &q));
  OK(mux_queue_fd(q, &ready));
  fd = (int)ready;
  ep = epoll_create1(EPOLL_CLOEXEC);
  CHECK(ep >= 0);
  for (enum poller poller = POLL; poller <= EPOLL_EDGE; poller++) run(poller);
  OK(mux_close(q.h));
  for (size_t i = 0; i < count; i++) {
    OK(mux_close(out[i].h));
    OK(mux_close(in[i].h));
  }
  disconnect(p);
  finish_test();
  return 0;
}
