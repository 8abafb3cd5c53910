/* over_pipes: a session without any network. A parent and its child are connected by a pair of pipes, as two programs in a
 * shell's pipeline could be; the child serves an echo on them. */
#include "example.h"
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static mux_session session_over(int reads, int writes, uint32_t role) {
  mux_config defaults = {0};
  mux_session session;
  mux_error e = {.struct_size = sizeof e};
  if (mux_session_from_fds(reads, writes, MUX_FD_OWN, "qmux", role, defaults, &session, &e) != MUX_OK) {
    fprintf(stderr, "session: %s\n", e.message);
    exit(EXIT_FAILURE);
  }
  return session;
}

static int child(int reads, int writes) {
  mux_session session = session_over(reads, writes, MUX_SERVER);
  mux_channel channel;
  char buf[256];
  int64_t n = mux_channel_accept(session, 10000, &channel);
  if (n == MUX_OK) {
    while ((n = mux_read(channel, buf, sizeof buf, 0, 10000)) > 0)
      if (mux_write_all(channel, buf, (size_t)n, 0, 10000, NULL) != MUX_OK) break;
    mux_finish(channel);
    /* The parent ends the session once it has read everything. */
    if (n == 0) n = mux_wait(session.h, MUX_EV_CLOSED, 10000, NULL);
    mux_close(channel.h);
  }
  mux_close(session.h);
  return finish_process(n == MUX_OK ? EXIT_SUCCESS : EXIT_FAILURE);
}

int main(void) {
  int down[2], up[2], status = 0;
  if (pipe(down) != 0 || pipe(up) != 0) return EXIT_FAILURE;
  pid_t pid = fork(); /* before the library is used: its threads do not follow */
  if (pid < 0) return EXIT_FAILURE;
  if (pid == 0) {
    close(down[1]);
    close(up[0]);
    return child(down[0], up[1]);
  }
  close(down[0]);
  close(up[1]);
  mux_session session = session_over(up[0], down[1], MUX_CLIENT);
  mux_channel channel;
  char buf[256];
  size_t got = 0;
  int64_t n = mux_channel_open(session, NULL, 10000, &channel);
  if (n == MUX_OK && (n = mux_write_all(channel, "hello through two pipes", 23, MUX_IO_FIN, 10000, NULL)) == MUX_OK) {
    while (got < sizeof buf && (n = mux_read(channel, buf + got, sizeof buf - got, 0, 10000)) > 0) got += (size_t)n;
    if (n == 0) printf("%.*s\n", (int)got, buf);
    mux_close(channel.h);
  }
  if (n != 0) complain("parent", session.h, n);
  mux_close(session.h);
  int exit_status = finish_process(n == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
  waitpid(pid, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? exit_status : EXIT_FAILURE;
}
