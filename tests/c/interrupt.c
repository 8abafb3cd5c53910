/* What ends a sleep: close from another thread, mux_interrupt, a signal. */
#include <stdatomic.h>

#include "t.h"

static struct pair p;
static mux_channel a, b;
static mux_queue q;

/* The blocking calls, each of which sleeps on one handle. */
static int64_t do_read(void) {
  char c;
  return mux_read(b, &c, 1, 0, MUX_FOREVER);
}
static int64_t do_read_timed(void) {
  char c;
  return mux_read(b, &c, 1, 0, SOON);
}
static int64_t do_read_exact(void) {
  char c[4];
  return mux_read_exact(b, c, 4, MUX_FOREVER, NULL);
}
static int64_t do_write(void) {
  static char big[1 << 16];
  int64_t n;
  while ((n = mux_write(b, big, sizeof big, 0, MUX_FOREVER)) > 0) {
  }
  return n;
}
static int64_t do_wait(void) { return mux_wait(b.h, MUX_EV_READ, MUX_FOREVER, NULL); }
static int64_t do_accept(void) {
  mux_session s;
  return mux_accept(p.listener, MUX_FOREVER, &s, NULL);
}
static int64_t do_accept_channel(void) {
  mux_channel c;
  return mux_channel_accept(p.client, MUX_FOREVER, &c);
}
static int64_t do_next(void) {
  mux_event ev;
  return mux_queue_next(q, &ev, 1, MUX_FOREVER);
}

static const struct {
  const char *name;
  int64_t (*call)(void);
  mux_handle *h;
} sleeps[] = {
    {"read", do_read, &b.h},           {"read_timed", do_read_timed, &b.h}, {"read_exact", do_read_exact, &b.h},
    {"write", do_write, &b.h},         {"wait", do_wait, &b.h},             {"accept", do_accept, &p.listener.h},
    {"accept_channel", do_accept_channel, &p.client.h}, {"next", do_next, &q.h},
};
enum { SLEEPS = sizeof sleeps / sizeof *sleeps };

struct sleeper {
  int64_t (*call)(void);
  int64_t result;
  atomic_int done;
};

static void *sleep_in(void *arg) {
  struct sleeper *s = arg;
  s->result = s->call();
  s->done = 1;
  return NULL;
}

static volatile sig_atomic_t signals;
static void on_signal(int sig) {
  (void)sig;
  signals++;
}

static void signal_with(int flags) {
  struct sigaction sa;
  memset(&sa, 0, sizeof sa);
  sa.sa_handler = on_signal;
  sa.sa_flags = flags;
  EQ(sigaction(SIGUSR1, &sa, NULL), 0);
  for (int i = 0; i < SLEEPS; i++) {
    struct sleeper s = {sleeps[i].call, 1, 0};
    pthread_t t = start(sleep_in, &s);
    /* One that comes before the sleep is missed; that is what mux_queue_wake and mux_interrupt are for. */
    do {
      sleep_ms(20);
      EQ(pthread_kill(t, SIGUSR1), 0);
    } while (!s.done);
    join(t);
    if (s.result != MUX_EINTR) fprintf(stderr, "%s, flags %d\n", sleeps[i].name, flags);
    EQ(s.result, MUX_EINTR);
  }
}

/* The race-free variant: wake in the handler. */
static void wake_in_handler(int sig) {
  (void)sig;
  mux_queue_wake(q);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  p = connect_pair(argv[1]);
  channel_between(p.client, p.server, &a, &b);
  OK(mux_queue_new((mux_runtime){0}, &q));

  signal_with(0);
  signal_with(SA_RESTART);
  CHECK(signals >= 2 * SLEEPS);
  struct sigaction sa;
  memset(&sa, 0, sizeof sa);
  sa.sa_handler = wake_in_handler;
  EQ(sigaction(SIGUSR1, &sa, NULL), 0);
  EQ(raise(SIGUSR1), 0); /* before the wait */
  mux_event ev;
  EQ(mux_queue_next(q, &ev, 1, SOON), 0);

  /* A signal sent to the process reaches the host's threads only: here, the one that does not block it. */
  sigset_t usr2, none;
  sigemptyset(&usr2);
  sigaddset(&usr2, SIGUSR2);
  sa.sa_handler = on_signal;
  EQ(sigaction(SIGUSR2, &sa, NULL), 0);
  EQ(pthread_sigmask(SIG_BLOCK, &usr2, &none), 0);
  signals = 0;
  EQ(kill(getpid(), SIGUSR2), 0);
  sleep_ms(50);
  EQ(signals, 0); /* no thread of the library took it */
  EQ(pthread_sigmask(SIG_SETMASK, &none, NULL), 0);
  EQ(signals, 1);

  /* Interrupt: a sleeping call, calls to come, not calls that do not wait; until resume. */
  for (int i = 0; i < SLEEPS; i++) {
    struct sleeper s = {sleeps[i].call, 1, 0};
    pthread_t t = start(sleep_in, &s);
    sleep_ms(30);
    OK(mux_interrupt(*sleeps[i].h));
    join(t);
    if (s.result != MUX_CANCELED) fprintf(stderr, "%s\n", sleeps[i].name);
    EQ(s.result, MUX_CANCELED);
    EQ(sleeps[i].call(), MUX_CANCELED);
    OK(mux_resume(*sleeps[i].h));
  }
  char buf[4];
  OK(mux_interrupt(b.h));
  EQ(mux_read(b, buf, 1, 0, MUX_NOWAIT), MUX_AGAIN);
  OK(mux_write_all(a, "x", 1, 0, SOON, NULL));
  OK(mux_resume(b.h));
  OK(mux_wait(b.h, MUX_EV_READ, SOON, NULL));
  OK(mux_interrupt(b.h));
  EQ(mux_read(b, buf, 1, 0, MUX_NOWAIT), 1);
  OK(mux_resume(b.h));

  /* Timeouts. */
  int64_t before = now_ms();
  EQ(mux_read(b, buf, 1, 0, 60), MUX_TIMEDOUT);
  CHECK(now_ms() - before >= 60);
  mux_channel c;
  EQ(mux_channel_accept(p.client, 0, &c), MUX_AGAIN);
  EQ(mux_channel_accept(p.client, 10, &c), MUX_TIMEDOUT);

  /* Close from another thread, several sleepers on one handle. */
  struct sleeper many[4] = {{do_read, 1, 0}, {do_wait, 1, 0}, {do_read_exact, 1, 0}, {do_write, 1, 0}};
  pthread_t t[4];
  for (int i = 0; i < 4; i++) t[i] = start(sleep_in, &many[i]);
  sleep_ms(50);
  OK(mux_close(b.h));
  for (int i = 0; i < 4; i++) {
    join(t[i]);
    EQ(many[i].result, MUX_ECLOSED);
  }
  EQ(do_read(), MUX_EHANDLE);
  struct sleeper accepts[3] = {{do_accept, 1, 0}, {do_accept_channel, 1, 0}, {do_next, 1, 0}};
  for (int i = 0; i < 3; i++) t[i] = start(sleep_in, &accepts[i]);
  sleep_ms(50);
  OK(mux_close(p.listener.h));
  OK(mux_close(p.client.h));
  OK(mux_close(q.h));
  for (int i = 0; i < 3; i++) {
    join(t[i]);
    EQ(accepts[i].result, MUX_ECLOSED);
  }
  EQ(mux_close(p.client.h), MUX_EHANDLE);
  CHECK(mux_read(a, buf, 1, 0, SOON) < 0); /* its session was closed by us */
  OK(mux_close(a.h));
  OK(mux_close(p.server.h));

  finish_test();
  return 0;
}
