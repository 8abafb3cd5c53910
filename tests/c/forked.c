/* After fork: inherited handles are refused, never a hang; the child can use the library anew; the parent goes on. */
#include "t.h"

static struct pair p;
static mux_channel a, b;
static mux_queue q;
static mux_config c;
static char url[512];

static void *echo_one(void *arg) {
  mux_session s;
  mux_channel ch;
  char buf[64];
  int64_t n;
  (void)arg;
  OK(mux_accept(p.listener, SOON, &s, NULL));
  OK(mux_channel_accept(s, SOON, &ch));
  while ((n = mux_read(ch, buf, sizeof buf, 0, SOON)) > 0) OK(mux_write_all(ch, buf, (size_t)n, 0, SOON, NULL));
  EQ(n, 0);
  OK(mux_close(ch.h));
  OK(mux_close(s.h));
  return NULL;
}

/* Ends a child that went well. Not by exit: what it inherited is left alone on purpose, which a leak checker that looks at
 * exit cannot know. */
static void child_is_done(void) {
  execl("/bin/true", "true", (char *)NULL);
  _exit(4);
}

static void child(void) {
  char buf[8];
  mux_event ev;
  mux_channel ch;
  mux_session s;
  EQ(mux_read(b, buf, 1, 0, MUX_FOREVER), MUX_EFORKED);
  EQ(mux_write(a, "x", 1, 0, MUX_FOREVER), MUX_EFORKED);
  EQ(mux_channel_open(p.client, NULL, MUX_FOREVER, &ch), MUX_EFORKED);
  EQ(mux_accept(p.listener, MUX_FOREVER, &s, NULL), MUX_EFORKED);
  EQ(mux_queue_next(q, &ev, 1, MUX_FOREVER), MUX_EFORKED);
  EQ(mux_queue_wake(q), MUX_EFORKED);
  EQ(mux_dial(url, c, SOON, &s, NULL), MUX_EFORKED);
  EQ(mux_close(a.h), MUX_EFORKED);
  EQ(mux_abort(a, 1), MUX_EFORKED);
  EQ(mux_close(0), MUX_EHANDLE);

  /* Of its own: a runtime, a session, a grandchild that inherits in turn. */
  s = dial_to(url, defaults);
  OK(mux_channel_open(s, NULL, SOON, &ch));
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    EQ(mux_read(ch, buf, 1, 0, MUX_FOREVER), MUX_EFORKED);
    EQ(mux_read(b, buf, 1, 0, MUX_FOREVER), MUX_EFORKED);
    child_is_done();
  }
  int status;
  EQ(waitpid(pid, &status, 0), pid);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  OK(mux_write_all(ch, "child", 5, MUX_IO_FIN, SOON, NULL));
  OK(mux_read_exact(ch, buf, 5, SOON, NULL));
  CHECK(memcmp(buf, "child", 5) == 0);
  EQ(mux_read(ch, buf, 1, 0, SOON), 0);
  OK(mux_close(ch.h));
  OK(mux_close(s.h));
  finish_test();
  child_is_done();
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  char buf[8];
  p = connect_pair(argv[1]);
  url_of(p.listener, url, sizeof url);
  channel_between(p.client, p.server, &a, &b);
  OK(mux_queue_new((mux_runtime){0}, &q));
  OK(mux_config_new(&c));
  OK(mux_watch(q, b.h, MUX_EV_READ, MUX_WATCH_ONESHOT, 1));

  pthread_t t = start(echo_one, NULL);
  sleep_ms(30); /* let it sleep in accept: its locks must not matter to the child */
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) child();
  int status;
  EQ(waitpid(pid, &status, 0), pid);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  join(t);

  /* The child took nothing away. */
  OK(mux_write_all(a, "still", 5, MUX_IO_FIN, SOON, NULL));
  OK(mux_read_exact(b, buf, 5, SOON, NULL));
  EQ(mux_read(b, buf, 1, 0, SOON), 0);
  OK(mux_close(a.h));
  OK(mux_close(b.h));
  OK(mux_close(q.h));
  OK(mux_close(c.h));
  disconnect(p);
  finish_test();
  return 0;
}
