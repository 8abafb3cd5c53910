/* A peer that is killed in the middle of a transfer never looks complete, and SIGPIPE never kills. */
#include "t.h"

/* A datagram transport has nobody who says that a process is gone: it is noticed by its silence. */
static mux_config probing(void) {
  mux_config c;
  OK(mux_config_new(&c));
  OK(mux_config_set_u64(c, MUX_CFG_KEEPALIVE_MS, getenv("MUX_TEST_SMALL") ? 2000 : 500));
  return c;
}

/* In the child: dials, opens a channel, writes (or reads) for ever. */
static void peer(const char *url, int writes) {
  mux_session s = dial_to(url, probing());
  mux_channel ch;
  static char buf[30000];
  OK(mux_channel_open(s, NULL, SOON, &ch));
  OK(mux_write_all(ch, "begin", 5, 0, SOON, NULL));
  for (;;) {
    if (writes ? mux_write(ch, buf, sizeof buf, 0, SOON) <= 0 : mux_read(ch, buf, sizeof buf, 0, SOON) <= 0) _exit(3);
  }
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  struct sigaction pipe_action;
  CHECK(sigaction(SIGPIPE, NULL, &pipe_action) == 0 && pipe_action.sa_handler == SIG_DFL);
  /* The URL's port is chosen by the first listener; the children need one that they can be told before fork. */
  for (int writes = 0; writes < 2; writes++) {
    int to_child[2];
    CHECK(pipe(to_child) == 0);
    pid_t pid = fork(); /* before the library starts threads here */
    CHECK(pid >= 0);
    if (pid == 0) {
      char url[512] = {0};
      CHECK(read(to_child[0], url, sizeof url - 1) > 0);
      peer(url, writes);
    }
    char url[512], buf[8192] = {0};
    mux_config c = probing();
    mux_listener l = listen_with(argv[1], c);
    url_of(l, url, sizeof url);
    EQ(write(to_child[1], url, strlen(url)), (int64_t)strlen(url));
    close(to_child[0]);
    close(to_child[1]);
    mux_session s;
    mux_channel ch;
    mux_error e;
    uint32_t ready;
    OK(mux_accept(l, SOON, &s, NULL));
    OK(mux_channel_accept(s, SOON, &ch));
    OK(mux_read_exact(ch, buf, 5, SOON, NULL));
    int64_t n, total = 0;
    while (total < 100000) {
      n = writes ? mux_read(ch, buf, sizeof buf, 0, SOON) : mux_write(ch, buf, sizeof buf, 0, SOON);
      CHECK(n > 0);
      total += n;
    }
    EQ(kill(pid, SIGKILL), 0);
    do {
      n = writes ? mux_read(ch, buf, sizeof buf, 0, SOON) : mux_write(ch, buf, sizeof buf, 0, SOON);
    } while (n > 0);
    CHECK(n < 0); /* not 0: the stream did not end */
    CHECK(n != MUX_TIMEDOUT && n != MUX_ERESET && n != MUX_EFINISHED);
    no_error(&e);
    EQ(mux_cause(ch.h, &e), n);
    CHECK(e.origin == MUX_BY_TRANSPORT || e.origin == MUX_BY_OS);
    CHECK(e.message[0] != 0);
    /* The other calls say so too, at once, and writing into the void raises no SIGPIPE. */
    OK(mux_wait(s.h, MUX_EV_CLOSED, SOON, &ready));
    for (int i = 0; i < 10; i++) CHECK(mux_write(ch, buf, sizeof buf, 0, SOON) < 0);
    mux_channel none;
    CHECK(mux_channel_open(s, NULL, SOON, &none) < 0);
    CHECK(mux_channel_accept(s, SOON, &none) < 0);
    CHECK(mux_cause(s.h, NULL) < 0);
    OK(mux_close(ch.h));
    OK(mux_close(s.h));
    OK(mux_close(l.h));
    OK(mux_close(c.h));
    int status;
    EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status));
    finish_test();
  }
  return 0;
}
