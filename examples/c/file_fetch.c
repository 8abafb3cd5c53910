/* file_fetch URL PATH OUTPUT: fetches a file from a file_server (see examples/README.md). */
#include "example.h"
#include <limits.h>
#include <string.h>

/* Receives up to the clean end; MUX_OK means that `file` holds the whole. */
static mux_status receive(mux_channel channel, FILE *file) {
  char buf[65536];
  int64_t n;
  while ((n = mux_read(channel, buf, sizeof buf, 0, 30000)) > 0)
    if (fwrite(buf, 1, (size_t)n, file) != (size_t)n) return MUX_EOS;
  return (mux_status)n;
}

static int fetch(mux_session session, const char *path, const char *output) {
  uint64_t caps;
  mux_status status = mux_session_caps(session, &caps);
  if (status != MUX_OK || !(caps & MUX_CAP_RESET_VISIBLE)) {
    fprintf(stderr, "this session cannot tell an aborted transfer from a complete one\n");
    return EXIT_FAILURE;
  }
  mux_open_opts opts = {.struct_size = sizeof opts, .label = "file", .label_len = 4};
  mux_channel channel;
  status = mux_channel_open(session, &opts, 10000, &channel);
  if (status != MUX_OK) {
    complain("open", session.h, status);
    return EXIT_FAILURE;
  }
  size_t done;
  status = mux_write_all(channel, path, strlen(path), MUX_IO_FIN, 10000, &done);
  if (status != MUX_OK) {
    complain(path, channel.h, status);
    mux_abort(channel, 1);
    return EXIT_FAILURE;
  }

  /* Written under another name: only what is complete gets the name of the whole. */
  char part[PATH_MAX];
  snprintf(part, sizeof part, "%s.part", output);
  FILE *file = fopen(part, "wb");
  if (!file) {
    perror(part);
    mux_abort(channel, 1);
    return EXIT_FAILURE;
  }
  status = receive(channel, file);
  if (status == MUX_ERESET) {
    mux_error e = {.struct_size = sizeof e};
    mux_cause(channel.h, &e);
    fprintf(stderr, "%s: %s\n", path, e.code == 2 ? "no such file" : e.message);
  } else if (status == MUX_EOS) {
    perror(part);
  } else if (status != MUX_OK) {
    complain(path, channel.h, status);
  }
  int complete = status == MUX_OK;
  if (fclose(file) != 0) complete = 0;
  if (complete && rename(part, output) != 0) {
    perror(output);
    complete = 0;
  }
  if (complete) {
    mux_close(channel.h);
    return EXIT_SUCCESS;
  }
  remove(part);
  mux_abort(channel, 1);
  return EXIT_FAILURE;
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: %s URL PATH OUTPUT\n", argv[0]);
    return 2;
  }
  mux_config defaults = {0};
  mux_session session;
  mux_error e = {.struct_size = sizeof e};
  if (mux_dial(argv[1], defaults, MUX_FOREVER, &session, &e) != MUX_OK) {
    fprintf(stderr, "%s: %s\n", argv[1], e.message);
    return EXIT_FAILURE;
  }
  int exit_status = fetch(session, argv[2], argv[3]);
  mux_close(session.h);
  return finish_process(exit_status);
}
