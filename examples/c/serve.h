/* A server's frame: a thread for each session and for each channel, until SIGINT or SIGTERM. A program with thousands
 * of channels uses a readiness queue (mux_queue_new) instead of threads. */
#ifndef SERVE_H
#define SERVE_H

#include "example.h"
#include <pthread.h>
#include <signal.h>
#include <string.h>

/* Serves one channel and ends it, by mux_close or mux_abort. */
static void serve_channel(mux_channel channel);

static volatile sig_atomic_t stopping;

static void on_signal(int number) {
  (void)number;
  stopping = 1;
}

/* Whether a channel was opened with this label. */
static inline int labelled(mux_channel channel, const char *label) {
  char buf[64];
  int64_t len = mux_info(channel.h, MUX_INFO_LABEL, buf, sizeof buf);
  return len == (int64_t)strlen(label) && memcmp(buf, label, (size_t)len) == 0;
}

/* Runs `body` in a thread of its own with a handle, which is only a number, as its argument. */
static inline void spawn(void *(*body)(void *), mux_handle h) {
  mux_handle *arg = malloc(sizeof *arg);
  pthread_t thread;
  if (arg) *arg = h;
  if (!arg || pthread_create(&thread, NULL, body, arg) != 0) {
    fprintf(stderr, "no memory for another thread\n");
    free(arg);
    mux_close(h);
    return;
  }
  pthread_detach(thread);
}

static void *channel_thread(void *arg) {
  mux_channel channel = {*(mux_handle *)arg};
  free(arg);
  serve_channel(channel);
  return NULL;
}

static void *session_thread(void *arg) {
  mux_session session = {*(mux_handle *)arg};
  mux_channel channel;
  mux_status status;
  free(arg);
  while ((status = mux_channel_accept(session, MUX_FOREVER, &channel)) == MUX_OK) spawn(channel_thread, channel.h);
  if (status != MUX_ECLOSED) complain("session", session.h, status);
  mux_close(session.h);
  return NULL;
}

static inline int serve(const char *url) {
  mux_config defaults = {0};
  mux_listener listener;
  mux_error e = {.struct_size = sizeof e};
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  if (mux_listen(url, defaults, 10000, &listener, &e) != MUX_OK) {
    fprintf(stderr, "%s: %s\n", url, e.message);
    return EXIT_FAILURE;
  }
  char dial[1024];
  int64_t len = mux_info(listener.h, MUX_INFO_URL, dial, sizeof dial);
  printf("%.*s\n", (int)(len < (int64_t)sizeof dial ? len : (int64_t)sizeof dial), dial);
  fflush(stdout);
  while (!stopping) {
    mux_session session;
    /* A timeout, because a signal that arrives just before the call would not interrupt it. */
    mux_status status = mux_accept(listener, 500, &session, &e);
    if (status == MUX_OK) {
      spawn(session_thread, session.h);
    } else if (status != MUX_TIMEDOUT && status != MUX_EINTR) {
      fprintf(stderr, "accept: %s\n", e.message);
      break;
    }
  }
  mux_close(listener.h);
  return finish_process(stopping ? EXIT_SUCCESS : EXIT_FAILURE);
}

#endif
