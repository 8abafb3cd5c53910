/* echo_client URL [TEXT]: sends TEXT on a channel labelled "echo" and prints what comes back. */
#include "example.h"
#include <string.h>

static int echo(mux_session session, const char *text) {
  mux_open_opts opts = {.struct_size = sizeof opts, .label = "echo", .label_len = 4};
  mux_channel channel;
  mux_status status = mux_channel_open(session, &opts, 10000, &channel);
  if (status != MUX_OK) {
    complain("open", session.h, status);
    return EXIT_FAILURE;
  }
  /* MUX_IO_FIN ends our direction together with the data: the server sees the end and answers with its own. A text
   * larger than both ends' buffers would have to be read back while it is being written. */
  size_t done;
  status = mux_write_all(channel, text, strlen(text), MUX_IO_FIN, 10000, &done);
  char buf[65536];
  int64_t n = status;
  while (n >= 0 && (n = mux_read(channel, buf, sizeof buf, 0, 10000)) > 0) fwrite(buf, 1, (size_t)n, stdout);
  if (n < 0) {
    complain("echo", channel.h, n);
    mux_abort(channel, 1);
    return EXIT_FAILURE;
  }
  putchar('\n');
  mux_close(channel.h);
  return EXIT_SUCCESS;
}

int main(int argc, char **argv) {
  if (argc != 2 && argc != 3) {
    fprintf(stderr, "usage: %s URL [TEXT]\n", argv[0]);
    return 2;
  }
  mux_config defaults = {0};
  mux_session session;
  mux_error e = {.struct_size = sizeof e};
  if (mux_dial(argv[1], defaults, MUX_FOREVER, &session, &e) != MUX_OK) {
    fprintf(stderr, "%s: %s\n", argv[1], e.message);
    return EXIT_FAILURE;
  }
  int exit_status = echo(session, argc == 3 ? argv[2] : "hello");
  mux_close(session.h);
  return finish_process(exit_status);
}
