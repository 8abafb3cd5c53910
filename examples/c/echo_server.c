/* echo_server URL: listens, prints the URL to dial, and sends back what arrives on channels labelled "echo". */
#include "serve.h"

static void serve_channel(mux_channel channel) {
  if (!labelled(channel, "echo")) {
    mux_abort(channel, 1);
    return;
  }
  char buf[65536];
  int64_t n;
  while ((n = mux_read(channel, buf, sizeof buf, 0, MUX_FOREVER)) > 0) {
    size_t done;
    mux_status status = mux_write_all(channel, buf, (size_t)n, 0, MUX_FOREVER, &done);
    if (status != MUX_OK) {
      n = status;
      break;
    }
  }
  if (n == 0) {
    mux_close(channel.h); /* polite: what was written arrives, then the end */
  } else {
    complain("echo", channel.h, n);
    mux_abort(channel, 1);
  }
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s URL\n", argv[0]);
    return 2;
  }
  return serve(argv[1]);
}
