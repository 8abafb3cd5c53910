/* uv_server URL: as epoll_server, in libuv's loop: the queue's descriptor is polled like any other, signals are libuv's. */
#include "example.h"
#include <signal.h>
#include <string.h>
#include <uv.h>

/* What is not a channel has a number below every address. */
enum { LISTENER = 1, SESSION = 2 };

/* Of one session, open or waiting to be accepted; a peer opens them faster than we come to look. */
enum { MOST_CHANNELS = 10000 };

struct echo {
  mux_channel channel;
  size_t at, len; /* what was read and not yet written */
  char buf[16384];
};

static mux_queue queue;

static void watch(mux_handle h, uint32_t events, uint64_t user) {
  mux_status status = mux_watch(queue, h, events, MUX_WATCH_ONESHOT, user);
  if (status != MUX_OK) complain("watch", h, status);
}

static void accept_sessions(mux_listener listener) {
  mux_session session;
  while (mux_accept(listener, MUX_NOWAIT, &session, NULL) == MUX_OK) watch(session.h, MUX_EV_ACCEPT, SESSION);
  watch(listener.h, MUX_EV_ACCEPT, LISTENER);
}

static void accept_channels(mux_session session) {
  mux_channel channels[64];
  int64_t n;
  while ((n = mux_channel_accept_many(session, channels, 64)) > 0) {
    for (int64_t i = 0; i < n; i++) {
      char label[8];
      struct echo *echo = NULL;
      if (mux_info(channels[i].h, MUX_INFO_LABEL, label, sizeof label) == 4 && memcmp(label, "echo", 4) == 0)
        echo = malloc(sizeof *echo);
      if (!echo) {
        mux_abort(channels[i], 1);
        continue;
      }
      echo->channel = channels[i];
      echo->at = echo->len = 0;
      watch(channels[i].h, MUX_EV_READ, (uint64_t)(uintptr_t)echo);
    }
  }
  if (n == 0)
    watch(session.h, MUX_EV_ACCEPT, SESSION);
  else
    mux_close(session.h); /* it has ended, and its channels were served */
}

/* Moves what can be moved; then waits for what is missing: room while there are bytes, else bytes. */
static void serve_channel(struct echo *echo) {
  int64_t n;
  for (;;) {
    if (echo->at == echo->len) {
      n = mux_read(echo->channel, echo->buf, sizeof echo->buf, 0, MUX_NOWAIT);
      if (n <= 0) break;
      echo->at = 0;
      echo->len = (size_t)n;
    }
    n = mux_write(echo->channel, echo->buf + echo->at, echo->len - echo->at, 0, MUX_NOWAIT);
    if (n < 0) break;
    echo->at += (size_t)n;
  }
  if (n == MUX_AGAIN) {
    watch(echo->channel.h, echo->at < echo->len ? MUX_EV_WRITE : MUX_EV_READ, (uint64_t)(uintptr_t)echo);
    return;
  }
  if (n == 0)
    mux_close(echo->channel.h); /* the end, and everything before it */
  else
    mux_abort(echo->channel, 1);
  free(echo);
}

static void on_ready(mux_event event) {
  if (event.user == LISTENER)
    accept_sessions((mux_listener){event.h});
  else if (event.user == SESSION)
    accept_channels((mux_session){event.h});
  else
    serve_channel((struct echo *)(uintptr_t)event.user);
}

/* A batch a turn: what is left keeps the descriptor readable, so the loop's other events get their turn. */
static void on_queue(uv_poll_t *poll, int status, int events) {
  mux_event ready[64];
  (void)poll, (void)status, (void)events;
  int64_t n = mux_queue_next(queue, ready, 64, MUX_NOWAIT);
  for (int64_t i = 0; i < n; i++) on_ready(ready[i]);
}

static void on_signal(uv_signal_t *signal, int number) {
  (void)number;
  uv_stop(signal->loop);
}

static void close_it(uv_handle_t *handle, void *arg) {
  (void)arg;
  if (!uv_is_closing(handle)) uv_close(handle, NULL);
}

int main(int argc, char **argv) {
  mux_config config;
  mux_runtime default_runtime = {0};
  mux_listener listener;
  mux_error e = {.struct_size = sizeof e};
  mux_fd ready;
  uv_loop_t *loop = uv_default_loop();
  uv_signal_t interrupt, terminate;
  uv_poll_t poll;
  if (argc != 2) {
    fprintf(stderr, "usage: %s URL\n", argv[0]);
    return 2;
  }
  if (mux_config_new(&config) != MUX_OK) return EXIT_FAILURE;
  mux_config_set_u64(config, MUX_CFG_MAX_CHANNELS_IN, MOST_CHANNELS);
  mux_config_set_u64(config, MUX_CFG_CHANNEL_BACKLOG, MOST_CHANNELS);
  if (mux_listen(argv[1], config, 10000, &listener, &e) != MUX_OK) {
    fprintf(stderr, "%s: %s\n", argv[1], e.message);
    return EXIT_FAILURE;
  }
  if (mux_queue_new(default_runtime, &queue) != MUX_OK || mux_queue_fd(queue, &ready) != MUX_OK) return EXIT_FAILURE;
  uv_poll_init(loop, &poll, (int)ready);
  uv_poll_start(&poll, UV_READABLE, on_queue);
  uv_signal_init(loop, &interrupt);
  uv_signal_start(&interrupt, on_signal, SIGINT);
  uv_signal_init(loop, &terminate);
  uv_signal_start(&terminate, on_signal, SIGTERM);
  watch(listener.h, MUX_EV_ACCEPT, LISTENER);
  char url[1024] = "";
  mux_info(listener.h, MUX_INFO_URL, url, sizeof url - 1);
  printf("%s\n", url);
  fflush(stdout);
  uv_run(loop, UV_RUN_DEFAULT);
  uv_walk(loop, close_it, NULL); /* the poll ends before the descriptor does */
  uv_run(loop, UV_RUN_DEFAULT);
  uv_loop_close(loop);
  mux_close(config.h);
  mux_close(listener.h);
  mux_close(queue.h);
  return finish_process(EXIT_SUCCESS);
}
