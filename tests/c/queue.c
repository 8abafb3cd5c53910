/* The readiness queue: with poll and epoll, one-shot and level, waking, low water, moving a watch. */
#include <sys/epoll.h>

#include "t.h"

static int readable(int fd, int timeout_ms) {
  struct pollfd pfd = {fd, POLLIN, 0};
  int n = poll(&pfd, 1, timeout_ms);
  CHECK(n >= 0);
  return n == 1;
}

static mux_queue new_queue(void) {
  mux_queue q;
  OK(mux_queue_new((mux_runtime){0}, &q));
  return q;
}

static int fd_of(mux_queue q) {
  mux_fd fd;
  OK(mux_queue_fd(q, &fd));
  return (int)fd;
}

static void one_shot(struct pair p) {
  mux_queue q = new_queue();
  int fd = fd_of(q);
  EQ(fd_of(q), fd);
  mux_event ev[4];
  mux_channel a, b;
  char buf[16];
  channel_between(p.client, p.server, &a, &b);

  EQ(mux_queue_next(q, ev, 4, 0), MUX_AGAIN);
  EQ(mux_queue_next(q, ev, 4, 20), MUX_TIMEDOUT);
  CHECK(!readable(fd, 0));

  /* Try, AGAIN, watch: data that comes afterwards is reported once. */
  EQ(mux_read(b, buf, sizeof buf, 0, 0), MUX_AGAIN);
  OK(mux_watch(q, b.h, MUX_EV_READ, MUX_WATCH_ONESHOT, 11));
  EQ(mux_queue_next(q, ev, 4, 0), MUX_AGAIN);
  OK(mux_write_all(a, "x", 1, 0, SOON, NULL));
  CHECK(readable(fd, SOON));
  EQ(mux_queue_next(q, ev, 4, SOON), 1);
  EQ(ev[0].user, 11);
  EQ(ev[0].h, b.h);
  EQ(ev[0].events, MUX_EV_READ);
  EQ(mux_queue_next(q, ev, 4, 0), MUX_AGAIN); /* disarmed, although the byte still waits */
  CHECK(!readable(fd, 0));

  /* A condition that holds already is reported by the watch itself. */
  OK(mux_watch(q, b.h, MUX_EV_READ, MUX_WATCH_ONESHOT, 12));
  CHECK(readable(fd, 0));
  EQ(mux_queue_next(q, ev, 4, 0), 1);
  EQ(ev[0].user, 12);

  /* Readiness that is gone when it is asked for is not reported. */
  OK(mux_watch(q, b.h, MUX_EV_READ, MUX_WATCH_ONESHOT, 13));
  EQ(mux_read(b, buf, sizeof buf, 0, 0), 1);
  EQ(mux_queue_next(q, ev, 4, 0), MUX_AGAIN);
  CHECK(!readable(fd, 0));
  OK(mux_write_all(a, "y", 1, 0, SOON, NULL));
  EQ(mux_queue_next(q, ev, 4, SOON), 1); /* and the watch was still armed */
  EQ(ev[0].user, 13);
  EQ(mux_read(b, buf, sizeof buf, 0, 0), 1);

  /* Both sides of one channel, with user data of their own. */
  OK(mux_watch(q, a.h, MUX_EV_WRITE, MUX_WATCH_ONESHOT, 1));
  OK(mux_watch(q, a.h, MUX_EV_READ, MUX_WATCH_ONESHOT, 2));
  EQ(mux_queue_next(q, ev, 4, SOON), 1);
  EQ(ev[0].user, 1);
  CHECK(ev[0].events & MUX_EV_WRITE);
  OK(mux_write_all(b, "z", 1, 0, SOON, NULL));
  EQ(mux_queue_next(q, ev, 4, SOON), 1);
  EQ(ev[0].user, 2);

  /* After unwatch and after close nothing is reported, even of what is queued already. */
  OK(mux_watch(q, a.h, MUX_EV_READ, MUX_WATCH_ONESHOT, 3));
  OK(mux_unwatch(q, a.h));
  EQ(mux_queue_next(q, ev, 4, 0), MUX_AGAIN);
  OK(mux_watch(q, a.h, MUX_EV_READ, MUX_WATCH_ONESHOT, 4));
  OK(mux_close(a.h));
  EQ(mux_queue_next(q, ev, 4, 0), MUX_AGAIN);
  EQ(mux_watch(q, a.h, MUX_EV_READ, MUX_WATCH_ONESHOT, 5), MUX_EHANDLE);

  /* The end is always reported. */
  OK(mux_watch(q, b.h, MUX_EV_CLOSED, MUX_WATCH_ONESHOT, 6));
  while (mux_read(b, buf, sizeof buf, 0, SOON) > 0) {
  }
  EQ(mux_queue_next(q, ev, 4, SOON), 1); /* the close of its peer stopped the other direction */
  EQ(ev[0].user, 6);
  CHECK(ev[0].events & MUX_EV_CLOSED);
  OK(mux_close(b.h));
  OK(mux_close(q.h));
  EQ(mux_queue_next(q, ev, 4, 0), MUX_EHANDLE);
}

static void level(struct pair p) {
  mux_queue q = new_queue(), q2 = new_queue();
  int fd = fd_of(q);
  mux_event ev[8];
  mux_channel a[3], b[3];
  char buf[16];
  for (int i = 0; i < 3; i++) {
    channel_between(p.client, p.server, &a[i], &b[i]);
    OK(mux_watch(q, b[i].h, MUX_EV_READ, MUX_WATCH_LEVEL, (uint64_t)i));
    OK(mux_write_all(a[i], "x", 1, 0, SOON, NULL));
    OK(mux_wait(b[i].h, MUX_EV_READ, SOON, NULL));
  }
  while (mux_queue_next(q, ev, 8, SOON) < 3) { /* until the last one has arrived */
  }
  /* One at a time, each gets its turn, again and again. */
  int turns[3] = {0};
  for (int i = 0; i < 9; i++) {
    EQ(mux_queue_next(q, ev, 1, SOON), 1);
    turns[ev[0].user]++;
  }
  for (int i = 0; i < 3; i++) EQ(turns[i], 3);
  CHECK(readable(fd, 0));
  EQ(mux_queue_next(q, ev, 8, SOON), 3);
  /* Until the condition is gone. */
  for (int i = 0; i < 3; i++) EQ(mux_read(b[i], buf, 16, 0, 0), 1);
  EQ(mux_queue_next(q, ev, 8, 0), MUX_AGAIN);
  CHECK(!readable(fd, 0));
  OK(mux_write_all(a[1], "x", 1, 0, SOON, NULL));
  EQ(mux_queue_next(q, ev, 8, SOON), 1);
  EQ(ev[0].user, 1);
  /* Another queue takes the watch over, with what is ready. */
  OK(mux_watch(q2, b[1].h, MUX_EV_READ, MUX_WATCH_ONESHOT, 9));
  EQ(mux_queue_next(q, ev, 8, 0), MUX_AGAIN);
  CHECK(!readable(fd, 0));
  EQ(mux_queue_next(q2, ev, 8, SOON), 1);
  EQ(ev[0].user, 9);
  OK(mux_watch(q, b[1].h, MUX_EV_READ, MUX_WATCH_LEVEL, 4));
  OK(mux_unwatch(q2, b[1].h)); /* not its own any more */
  EQ(mux_queue_next(q, ev, 8, SOON), 1);
  EQ(ev[0].user, 4);
  /* A queue may go before what it watches. */
  OK(mux_close(q.h));
  OK(mux_write_all(a[1], "x", 1, 0, SOON, NULL));
  OK(mux_watch(q2, b[1].h, MUX_EV_READ, MUX_WATCH_ONESHOT, 5));
  EQ(mux_queue_next(q2, ev, 8, SOON), 1);
  for (int i = 0; i < 3; i++) {
    OK(mux_close(a[i].h));
    OK(mux_close(b[i].h));
  }
  OK(mux_close(q2.h));
}

static void low_water(struct pair p) {
  mux_queue q = new_queue();
  mux_event ev[4];
  mux_channel a, b;
  char buf[64] = {0};
  channel_between(p.client, p.server, &a, &b);
  OK(mux_watch_low_water(b, 10, 0));
  OK(mux_watch(q, b.h, MUX_EV_READ, MUX_WATCH_ONESHOT, 1));
  OK(mux_write_all(a, buf, 9, 0, SOON, NULL));
  EQ(mux_queue_next(q, ev, 4, 50), MUX_TIMEDOUT);
  OK(mux_write_all(a, buf, 1, 0, SOON, NULL));
  EQ(mux_queue_next(q, ev, 4, SOON), 1);
  EQ(mux_read(b, buf, sizeof buf, 0, 0), 10);
  OK(mux_watch(q, b.h, MUX_EV_READ, MUX_WATCH_ONESHOT, 2));
  OK(mux_write_all(a, buf, 1, MUX_IO_FIN, SOON, NULL)); /* the end is reported below the mark */
  EQ(mux_queue_next(q, ev, 4, SOON), 1);
  EQ(mux_read(b, buf, sizeof buf, 0, 0), 1);
  EQ(mux_read(b, buf, sizeof buf, 0, SOON), 0);
  OK(mux_close(a.h));
  OK(mux_close(b.h));
  OK(mux_close(q.h));
}

static void *wake_later(void *arg) {
  sleep_ms(50);
  OK(mux_queue_wake(*(mux_queue *)arg));
  return NULL;
}

static void waking(void) {
  mux_queue q = new_queue();
  mux_event ev[4];
  pthread_t t = start(wake_later, &q);
  EQ(mux_queue_next(q, ev, 4, SOON), 0); /* a sleeping one */
  join(t);
  EQ(mux_queue_next(q, ev, 4, 0), MUX_AGAIN); /* one only */
  OK(mux_queue_wake(q));
  int fd = fd_of(q); /* made after the wake */
  CHECK(readable(fd, 0));
  EQ(mux_queue_next(q, ev, 4, SOON), 0); /* the next to come */
  CHECK(!readable(fd, 0));
  OK(mux_queue_wake(q));
  OK(mux_queue_wake(q));
  EQ(mux_queue_next(q, ev, 4, SOON), 0);
  CHECK(readable(fd, 0));
  EQ(mux_queue_next(q, ev, 4, SOON), 0);
  CHECK(!readable(fd, 0));
  OK(mux_close(q.h));
}

/* An echo server that never blocks: sessions, channels and both directions by one queue and epoll. */
struct server {
  mux_listener listener;
  size_t channels; /* to serve */
  int edge;
};

static void *serve(void *arg) {
  struct server *server = arg;
  mux_queue q = new_queue();
  int epfd = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event ee = {EPOLLIN | (server->edge ? (uint32_t)EPOLLET : 0u), {0}};
  CHECK(epfd >= 0 && epoll_ctl(epfd, EPOLL_CTL_ADD, fd_of(q), &ee) == 0);
  uint32_t mode = server->edge ? MUX_WATCH_ONESHOT : MUX_WATCH_LEVEL;
  mux_session session = {0};
  size_t done = 0;
  OK(mux_watch(q, server->listener.h, MUX_EV_ACCEPT, mode, 1));
  while (done < server->channels) {
    EQ(epoll_wait(epfd, &ee, 1, SOON), 1);
    mux_event ev[16];
    int64_t n;
    do {
      n = mux_queue_next(q, ev, 16, 0);
      for (int64_t i = 0; i < n; i++) {
        if (ev[i].user == 1) {
          OK(mux_accept(server->listener, 0, &session, NULL));
          OK(mux_watch(q, session.h, MUX_EV_ACCEPT, mode, 2));
        } else if (ev[i].user == 2) {
          mux_channel ch[8];
          int64_t got = mux_channel_accept_many(session, ch, 8);
          for (int64_t k = 0; k < got; k++) OK(mux_watch(q, ch[k].h, MUX_EV_READ, mode, 3));
          if (server->edge && got >= 0) OK(mux_watch(q, session.h, MUX_EV_ACCEPT, mode, 2));
          if (got < 0) CHECK(mux_unwatch(q, session.h) == MUX_OK);
        } else {
          mux_channel ch = {ev[i].h};
          char buf[4096];
          int64_t got;
          while ((got = mux_read(ch, buf, sizeof buf, 0, 0)) > 0)
            OK(mux_write_all(ch, buf, (size_t)got, 0, SOON, NULL));
          if (got == MUX_AGAIN) {
            if (server->edge) OK(mux_watch(q, ch.h, MUX_EV_READ, mode, 3));
            continue;
          }
          EQ(got, 0);
          OK(mux_close(ch.h));
          done++;
        }
      }
    } while (n == 16);
    CHECK(n >= 0 || n == MUX_AGAIN);
  }
  close(epfd);
  OK(mux_close(q.h));
  OK(mux_close(session.h));
  return NULL;
}

static void loop(const char *listen_url, int edge) {
  enum { N = 20 };
  char url[512];
  struct server server = {listen_on(listen_url), N, edge};
  url_of(server.listener, url, sizeof url);
  pthread_t t = start(serve, &server);
  mux_session s;
  uint32_t ready;
  OK(mux_dial(url, defaults, MUX_NOWAIT, &s, NULL)); /* a session that still connects */
  OK(mux_wait(s.h, MUX_EV_CONNECTED, SOON, &ready));
  CHECK(ready & MUX_EV_CONNECTED && !(ready & MUX_EV_CLOSED));
  mux_channel ch[N];
  for (int i = 0; i < N; i++) {
    OK(mux_channel_open(s, NULL, SOON, &ch[i]));
    OK(mux_write_all(ch[i], "hello", 5, MUX_IO_FIN, SOON, NULL));
  }
  for (int i = 0; i < N; i++) {
    char buf[8];
    OK(mux_read_exact(ch[i], buf, 5, SOON, NULL));
    EQ(mux_read(ch[i], buf, 1, 0, SOON), 0);
    OK(mux_close(ch[i].h));
  }
  join(t);
  OK(mux_close(s.h));
  OK(mux_close(server.listener.h));
}

/* Writers and watchers at full speed: no readiness is missed. */
struct stream {
  mux_channel from, to;
  size_t total;
};

static void *pump(void *arg) {
  struct stream *st = arg;
  mux_queue q = new_queue();
  char buf[20000] = {0};
  size_t left = st->total;
  while (left > 0) {
    size_t len = left < sizeof buf ? left : sizeof buf;
    int64_t n = mux_write(st->from, buf, len, len == left ? MUX_IO_FIN : 0, 0);
    if (n == MUX_AGAIN) {
      mux_event ev;
      OK(mux_watch(q, st->from.h, MUX_EV_WRITE, MUX_WATCH_ONESHOT, 0));
      EQ(mux_queue_next(q, &ev, 1, SOON), 1);
      continue;
    }
    CHECK(n > 0);
    left -= (size_t)n;
  }
  OK(mux_close(q.h));
  return NULL;
}

static void no_missed_wakeup(struct pair p) {
  enum { N = 4 };
  struct stream st[N];
  pthread_t t[N];
  mux_queue q = new_queue();
  int fd = fd_of(q), open = N;
  size_t got[N] = {0};
  static char buf[65536];
  for (int i = 0; i < N; i++) {
    channel_between(p.client, p.server, &st[i].from, &st[i].to);
    st[i].total = scaled(4u << 20);
    t[i] = start(pump, &st[i]);
    OK(mux_watch(q, st[i].to.h, MUX_EV_READ, MUX_WATCH_ONESHOT, (uint64_t)i));
  }
  while (open > 0) {
    mux_event ev[N];
    CHECK(readable(fd, SOON));
    int64_t n = mux_queue_next(q, ev, N, 0);
    CHECK(n > 0 || n == MUX_AGAIN);
    for (int64_t i = 0; i < n; i++) {
      int64_t r = mux_read(st[ev[i].user].to, buf, sizeof buf, 0, 0);
      CHECK(r >= 0);
      got[ev[i].user] += (size_t)r;
      if (r == 0) {
        open--;
      } else {
        OK(mux_watch(q, ev[i].h, MUX_EV_READ, MUX_WATCH_ONESHOT, ev[i].user));
      }
    }
  }
  for (int i = 0; i < N; i++) {
    join(t[i]);
    EQ(got[i], st[i].total);
    OK(mux_close(st[i].from.h));
    OK(mux_close(st[i].to.h));
  }
  OK(mux_close(q.h));
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  struct pair p = connect_pair(argv[1]);
  one_shot(p);
  level(p);
  low_water(p);
  waking();
  no_missed_wakeup(p);
  disconnect(p);
  loop(argv[1], 0);
  loop(argv[1], 1);
  finish_test();
  return 0;
}
