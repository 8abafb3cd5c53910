/* Every way a direction, a channel or a session can end, and what the other end is told. */
#include "t.h"

static void reset_and_stop(struct pair p) {
  mux_channel a, b;
  mux_error e;
  char buf[8];
  int64_t n;

  /* A reset carries its code and is never taken for the end. */
  channel_between(p.client, p.server, &a, &b);
  OK(mux_write_all(a, "part", 4, 0, SOON, NULL));
  OK(mux_reset(a, 4000000000u));
  while ((n = mux_read(b, buf, sizeof buf, 0, SOON)) > 0) {
  }
  EQ(n, MUX_ERESET);
  no_error(&e);
  EQ(mux_cause(b.h, &e), MUX_ERESET);
  EQ(e.code, 4000000000u);
  EQ(e.origin, MUX_BY_PEER);
  EQ(mux_read(b, buf, sizeof buf, 0, SOON), MUX_ERESET); /* sticky */
  OK(mux_write_all(b, "back", 4, MUX_IO_FIN, SOON, NULL)); /* the other direction goes on */
  OK(mux_read_exact(a, buf, 4, SOON, NULL));
  EQ(mux_read(a, buf, 1, 0, SOON), 0);
  OK(mux_close(a.h));
  OK(mux_close(b.h));

  /* Stop reaches the writer with its code. */
  channel_between(p.server, p.client, &a, &b);
  OK(mux_stop(b, 77));
  EQ(mux_read(b, buf, 1, 0, SOON), MUX_EFINISHED);
  uint32_t ready = 0;
  do {
    n = mux_write(a, "xxxxxxxx", 8, 0, SOON);
  } while (n > 0);
  EQ(n, MUX_ESTOPPED);
  no_error(&e);
  EQ(mux_cause(a.h, &e), MUX_ESTOPPED);
  EQ(e.code, 77);
  EQ(e.origin, MUX_BY_PEER);
  OK(mux_wait(a.h, MUX_EV_WRITE, SOON, &ready)); /* what has failed is ready */
  CHECK(ready & MUX_EV_WRITE);
  OK(mux_close(a.h));
  OK(mux_close(b.h));

  /* Abort: no clean end on either side, handle gone at once. */
  channel_between(p.client, p.server, &a, &b);
  OK(mux_write_all(a, "half of it", 10, 0, SOON, NULL));
  OK(mux_abort(a, 9));
  EQ(mux_close(a.h), MUX_EHANDLE);
  while ((n = mux_read(b, buf, sizeof buf, 0, SOON)) > 0) {
  }
  EQ(n, MUX_ERESET);
  do {
    n = mux_write(b, "x", 1, 0, SOON);
  } while (n > 0);
  EQ(n, MUX_ESTOPPED);
  no_error(&e);
  EQ(mux_cause(b.h, &e), MUX_ERESET); /* the first failure is kept */
  EQ(e.code, 9);
  OK(mux_close(b.h));

  /* Closing without reading to the end stops the peer with code 0. */
  channel_between(p.client, p.server, &a, &b);
  OK(mux_close(a.h));
  do {
    n = mux_write(b, "x", 1, 0, SOON);
  } while (n > 0);
  EQ(n, MUX_ESTOPPED);
  no_error(&e);
  EQ(mux_cause(b.h, &e), MUX_ESTOPPED);
  EQ(e.code, 0);
  EQ(mux_read(b, buf, 1, 0, SOON), 0); /* its own direction ended cleanly */
  OK(mux_wait(b.h, MUX_EV_CLOSED, SOON, &ready));
  EQ(ready, MUX_EV_CLOSED);
  OK(mux_close(b.h));
}

static void labels(struct pair p) {
  mux_open_opts opts = {0};
  mux_channel a, b;
  char buf[64];
  uint64_t id_a = 0, id_b = 0;
  mux_handle parent;
  opts.struct_size = sizeof opts;
  opts.label = "rpc\0v2";
  opts.label_len = 6;
  opts.urgency = 1;
  OK(mux_channel_open(p.client, &opts, SOON, &a));
  OK(mux_channel_accept(p.server, SOON, &b));
  EQ(mux_info(b.h, MUX_INFO_LABEL, buf, sizeof buf), 6);
  CHECK(memcmp(buf, "rpc\0v2", 6) == 0);
  EQ(mux_info(a.h, MUX_INFO_LABEL, buf, 3), 6); /* cut, the full length is told */
  EQ(mux_info(a.h, MUX_INFO_CHANNEL_ID, &id_a, sizeof id_a), 8);
  EQ(mux_info(b.h, MUX_INFO_CHANNEL_ID, &id_b, sizeof id_b), 8);
  EQ(mux_info(b.h, MUX_INFO_PARENT, &parent, sizeof parent), 8);
  EQ(parent, p.server.h);
  OK(mux_channel_set_priority(a, 8, 1));
  OK(mux_close(a.h));
  OK(mux_close(b.h));
  opts.label_len = 1u << 20;
  void *big = calloc(1, opts.label_len);
  CHECK(big != NULL);
  opts.label = big;
  EQ(mux_channel_open(p.client, &opts, SOON, &a), MUX_ETOOBIG);
  free(big);
  OK(mux_cause(p.client.h, NULL)); /* an argument mistake hurts nobody */
}

static void sessions(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b, c;
  mux_error e;
  char buf[8];
  uint32_t ready;
  channel_between(p.client, p.server, &a, &b);
  OK(mux_write_all(a, "done", 4, MUX_IO_FIN, SOON, NULL));
  OK(mux_shutdown(p.client.h, 42, "enough"));
  OK(mux_wait(p.client.h, MUX_EV_CLOSED, SOON, &ready));
  no_error(&e);
  EQ(mux_cause(p.client.h, &e), MUX_ECLOSED);
  EQ(e.origin, MUX_BY_LOCAL);
  EQ(mux_channel_open(p.client, NULL, SOON, &c), MUX_ECLOSED);

  OK(mux_read_exact(b, buf, 4, SOON, NULL)); /* finished channels were flushed first */
  EQ(mux_read(b, buf, 1, 0, SOON), 0);
  EQ(mux_channel_accept(p.server, SOON, &c), MUX_ECLOSED);
  OK(mux_wait(p.server.h, MUX_EV_CLOSED, SOON, &ready));
  no_error(&e);
  EQ(mux_cause(p.server.h, &e), MUX_ECLOSED);
  EQ(e.origin, MUX_BY_PEER);
  EQ(e.code, 42);
  CHECK(strstr(e.message, "enough") != NULL);
  CHECK(mux_write(b, "x", 1, 0, SOON) < 0);

  /* Parent before child, child before parent: the order does not matter. */
  OK(mux_close(p.client.h));
  OK(mux_close(a.h));
  OK(mux_close(b.h));
  OK(mux_close(p.server.h));

  /* A listener that was shut down accepts nothing more. */
  OK(mux_shutdown(p.listener.h, 0, NULL));
  EQ(mux_accept(p.listener, SOON, &p.server, NULL), MUX_ECLOSED);
  OK(mux_close(p.listener.h));
}

/* Channels that nobody finished are no clean end when their session is closed. */
static void unfinished(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b;
  char buf[8];
  channel_between(p.client, p.server, &a, &b);
  OK(mux_write_all(a, "part", 4, 0, SOON, NULL));
  OK(mux_close(p.client.h));
  int64_t n;
  while ((n = mux_read(b, buf, sizeof buf, 0, SOON)) > 0) {
  }
  CHECK(n < 0);
  EQ(mux_read(a, buf, sizeof buf, 0, SOON), MUX_ECLOSED);
  OK(mux_close(a.h));
  OK(mux_close(b.h));
  OK(mux_close(p.server.h));
  OK(mux_close(p.listener.h));
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  struct pair p = connect_pair(argv[1]);
  reset_and_stop(p);
  labels(p);
  disconnect(p);
  sessions(argv[1]);
  unfinished(argv[1]);
  finish_test();
  return 0;
}
