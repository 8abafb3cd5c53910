/* toy_demo: an echo over the wire of toy_backend.c, both ends in this process. Everything after the registration is as with
 * any other scheme. */
#include "example.h"
#include "toy_backend.h"
#include <pthread.h>
#include <string.h>

static void *serve(void *arg) {
  mux_listener listener = *(mux_listener *)arg;
  mux_session session;
  mux_channel channel;
  char buf[256];
  int64_t n;
  if (mux_accept(listener, 10000, &session, NULL) != MUX_OK) return NULL;
  if (mux_channel_accept(session, 10000, &channel) == MUX_OK) {
    while ((n = mux_read(channel, buf, sizeof buf, 0, 10000)) > 0)
      if (mux_write_all(channel, buf, (size_t)n, 0, 10000, NULL) != MUX_OK) break;
    if (n == 0) mux_close(channel.h);
    else mux_abort(channel, 1);
  }
  mux_close(session.h);
  return NULL;
}

int main(void) {
  mux_config defaults = {0};
  mux_listener listener;
  mux_session session;
  mux_channel channel;
  mux_error e = {.struct_size = sizeof e};
  pthread_t server;
  char url[256] = "", buf[256];
  size_t got = 0;
  int64_t n;
  if (toy_register(&e) != MUX_OK || mux_listen("toy://127.0.0.1:0", defaults, 0, &listener, &e) != MUX_OK) {
    fprintf(stderr, "toy: %s\n", e.message);
    return EXIT_FAILURE;
  }
  if (pthread_create(&server, NULL, serve, &listener) != 0) return EXIT_FAILURE;
  mux_info(listener.h, MUX_INFO_URL, url, sizeof url);
  if (mux_dial(url, defaults, 10000, &session, &e) != MUX_OK) {
    fprintf(stderr, "%s: %s\n", url, e.message);
    return EXIT_FAILURE;
  }
  n = mux_channel_open(session, NULL, 10000, &channel);
  if (n == MUX_OK && (n = mux_write_all(channel, "hello over a toy", 16, MUX_IO_FIN, 10000, NULL)) == MUX_OK) {
    while (got < sizeof buf && (n = mux_read(channel, buf + got, sizeof buf - got, 0, 10000)) > 0) got += (size_t)n;
    if (n == 0) printf("%.*s\n", (int)got, buf);
    else complain("read", channel.h, n);
    mux_close(channel.h);
  }
  mux_close(session.h);
  pthread_join(server, NULL);
  mux_close(listener.h);
  return finish_process(n == 0 && got == 16 ? EXIT_SUCCESS : EXIT_FAILURE);
}
