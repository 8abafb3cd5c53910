/* What a process does around the library: it runs out of descriptors, starts others under load, exits with sessions alive. */
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/resource.h>

#include "t.h"

static struct pair p;

static void moves(void) {
  mux_channel a, b;
  char buf[4];
  channel_between(p.client, p.server, &a, &b);
  OK(mux_write_all(a, "ping", 4, 0, SOON, NULL));
  OK(mux_read_exact(b, buf, 4, SOON, NULL));
  OK(mux_close(a.h));
  OK(mux_close(b.h));
}

static int lowest_free(void) {
  int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  close(fd);
  return fd;
}

/* Without descriptors what needs one says so, and everything else goes on. */
static void out_of_descriptors(const char *url) {
  struct rlimit before, none;
  char target[512];
  mux_session s;
  mux_listener l;
  mux_channel a, b;
  mux_queue q;
  mux_fd fd;
  mux_error e;
  no_error(&e);
  url_of(p.listener, target, sizeof target);
  channel_between(p.client, p.server, &a, &b);
  OK(mux_queue_new((mux_runtime){0}, &q));
  EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  none = before;
  none.rlim_cur = (rlim_t)lowest_free();
  EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  EQ(mux_dial(target, defaults, SOON, &s, &e), MUX_ENOFILE);
  CHECK(e.message[0] != 0);
  EQ(mux_listen(strncmp(url, "qmux+unix", 9) == 0 ? "qmux+unix:///tmp/mux-never" : "qmux://127.0.0.1:0", defaults, SOON, &l, &e),
     MUX_ENOFILE);
  EQ(mux_channel_to_fd(b, &fd), MUX_ENOFILE);
  EQ(mux_queue_fd(q, &fd), MUX_ENOFILE);
  moves();
  EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  OK(mux_queue_fd(q, &fd));
  OK(mux_channel_to_fd(b, &fd));
  EQ(close((int)fd), 0);
  s = dial_to(target, defaults);
  mux_session accepted;
  OK(mux_accept(p.listener, SOON, &accepted, NULL)); /* before its end, which may come first */
  OK(mux_close(accepted.h));
  OK(mux_close(s.h));
  OK(mux_close(q.h));
  OK(mux_close(a.h));
  OK(mux_close(b.h));
}

static atomic_int stop;

static void *traffic(void *arg) {
  (void)arg;
  while (!stop) moves();
  return NULL;
}

/* Under load: children that are replaced at once inherit no descriptor and disturb nobody. */
static void fork_and_exec(void) {
  stop = 0;
  pthread_t t = start(traffic, NULL);
  for (int i = 0; i < 20; i++) {
    pid_t pid = fork();
    int status;
    CHECK(pid >= 0);
    if (pid == 0) {
      /* What is open beyond the first three: the descriptor of the listing itself. */
      execl("/bin/sh", "sh", "-c", "test $(ls /proc/self/fd | wc -l) -le 5", (char *)NULL);
      _exit(4);
    }
    EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status));
    EQ(WEXITSTATUS(status), 0);
  }
  stop = 1;
  join(t);
}

static void *sleep_in_accept(void *arg) {
  mux_channel ch;
  (void)arg;
  (void)!mux_channel_accept(p.server, MUX_FOREVER, &ch);
  return NULL;
}

/* A process that exits while threads sleep in calls and write does not hang or crash. */
static void exits_alive(const char *url) {
  pid_t pid = fork();
  int status;
  CHECK(pid >= 0);
  if (pid == 0) {
    alarm(50);
    p = connect_pair(url);
    start(sleep_in_accept, NULL);
    mux_channel a;
    OK(mux_channel_open(p.client, NULL, SOON, &a));
    for (int i = 0; i < 50; i++) mux_write(a, url, strlen(url), 0, MUX_NOWAIT);
    exit(7);
  }
  EQ(waitpid(pid, &status, 0), pid);
  CHECK(WIFEXITED(status));
  EQ(WEXITSTATUS(status), 7);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  exits_alive(argv[1]); /* before the library starts threads here */
  p = connect_pair(argv[1]);
  out_of_descriptors(argv[1]);
  fork_and_exec();
  moves();
  disconnect(p);
  finish_test();
  return 0;
}
