/* file_server URL DIRECTORY: serves the files below DIRECTORY on channels labelled "file" (see examples/README.md). */
#define _XOPEN_SOURCE 700
#include "serve.h"
#include <limits.h>
#include <sys/stat.h>

enum { NOT_UNDERSTOOD = 1, NO_SUCH_FILE = 2, READ_FAILED = 3 };
enum { LONGEST_PATH = 4096 };

static char root[PATH_MAX]; /* the served directory, absolute and without links */

/* Reads the request, a path up to the peer's half-close; false when it is none. */
static int read_request(mux_channel channel, char path[LONGEST_PATH + 1]) {
  size_t len = 0;
  int64_t n;
  while ((n = mux_read(channel, path + len, LONGEST_PATH + 1 - len, 0, 30000)) > 0) {
    len += (size_t)n;
    if (len > LONGEST_PATH) return 0;
  }
  if (n < 0 || len == 0 || memchr(path, 0, len)) return 0;
  path[len] = 0;
  return 1;
}

/* Opens a regular file below the root: where the path leads to, links resolved, decides. */
static FILE *open_confined(const char *path) {
  char joined[PATH_MAX + LONGEST_PATH + 2], real[PATH_MAX];
  size_t len = strlen(root);
  struct stat st;
  if (path[0] == '/') return NULL;
  snprintf(joined, sizeof joined, "%s/%s", root, path);
  if (!realpath(joined, real) || strncmp(real, root, len) != 0 || (len > 1 && real[len] != '/')) return NULL;
  if (stat(real, &st) != 0 || !S_ISREG(st.st_mode)) return NULL;
  return fopen(real, "rb");
}

static void serve_channel(mux_channel channel) {
  char path[LONGEST_PATH + 1], buf[65536];
  if (!labelled(channel, "file") || !read_request(channel, path)) {
    mux_abort(channel, NOT_UNDERSTOOD);
    return;
  }
  FILE *file = open_confined(path);
  if (!file) {
    mux_abort(channel, NO_SUCH_FILE);
    return;
  }
  size_t n, done;
  mux_status status = MUX_OK;
  while (status == MUX_OK && (n = fread(buf, 1, sizeof buf, file)) > 0)
    status = mux_write_all(channel, buf, n, 0, MUX_FOREVER, &done);
  if (status != MUX_OK) complain(path, channel.h, status);
  if (status != MUX_OK || ferror(file))
    mux_abort(channel, READ_FAILED); /* the client must not take the part for the whole */
  else
    mux_close(channel.h);
  fclose(file);
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: %s URL DIRECTORY\n", argv[0]);
    return 2;
  }
  if (!realpath(argv[2], root)) {
    perror(argv[2]);
    return EXIT_FAILURE;
  }
  return serve(argv[1]);
}
