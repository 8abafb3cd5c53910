/* Bytes there and back, opened by either side, through every form of read and write. */
#include "t.h"

struct job {
  mux_channel ch;
  size_t total;
  unsigned seed;
};

/* Sends the pattern: single writes, vectors and whole buffers in turn, FIN with the last. */
static void *sender(void *arg) {
  struct job *job = arg;
  static const size_t sizes[] = {1, 100, 4096, 70000, 262144, 3};
  size_t at = 0;
  unsigned char *buf = malloc(262144);
  CHECK(buf != NULL);
  for (int turn = 0; at < job->total; turn++) {
    size_t len = sizes[turn % 6], done = 0;
    if (len > job->total - at) len = job->total - at;
    for (size_t i = 0; i < len; i++) buf[i] = pattern(at + i, job->seed);
    uint32_t flags = at + len == job->total ? MUX_IO_FIN : turn % 4 == 0 ? MUX_IO_MORE : 0;
    while (done < len) {
      int64_t n;
      if (turn % 3 == 0) {
        size_t third = (len - done) / 3;
        mux_iovec iov[3] = {{buf + done, third}, {buf + done + third, 0}, {buf + done + third, len - done - third}};
        n = mux_writev(job->ch, iov, 3, flags, SOON);
      } else if (turn % 3 == 1) {
        n = mux_write(job->ch, buf + done, len - done, flags, SOON);
      } else {
        size_t all = 0;
        OK(mux_write_all(job->ch, buf + done, len - done, flags, SOON, &all));
        n = (int64_t)all;
      }
      CHECK(n > 0);
      done += (size_t)n;
    }
    at += len;
  }
  free(buf);
  EQ(mux_finish(job->ch), MUX_EFINISHED); /* FIN went with the data */
  EQ(mux_write(job->ch, "x", 1, 0, SOON), MUX_EFINISHED);
  return NULL;
}

/* Receives the pattern to the end of the stream. */
static void *receiver(void *arg) {
  struct job *job = arg;
  size_t at = 0, room = 200000;
  unsigned char *buf = malloc(room);
  CHECK(buf != NULL);
  for (int turn = 0;; turn++) {
    int64_t n;
    if (turn % 3 == 0) {
      mux_iovec iov[3] = {{buf, 10}, {buf + 10, 0}, {buf + 10, room - 10}};
      n = mux_readv(job->ch, iov, 3, 0, SOON);
    } else if (turn % 3 == 1 && job->total - at >= 17) {
      size_t done;
      OK(mux_read_exact(job->ch, buf, 17, SOON, &done));
      n = (int64_t)done;
    } else {
      n = mux_read(job->ch, buf, room, 0, SOON);
    }
    CHECK(n >= 0);
    if (n == 0) break;
    for (int64_t i = 0; i < n; i++) CHECK(buf[i] == pattern(at + (size_t)i, job->seed));
    at += (size_t)n;
  }
  EQ(at, job->total);
  EQ(mux_read(job->ch, buf, 1, 0, SOON), 0); /* the end stays the end */
  size_t done = 9;
  EQ(mux_read_exact(job->ch, buf, 1, SOON, &done), MUX_EFINISHED);
  EQ(done, 0);
  OK(mux_cause(job->ch.h, NULL)); /* a clean end is no failure */
  free(buf);
  return NULL;
}

/* Sends back what comes, and the end. */
static void *echo(void *arg) {
  struct job *job = arg;
  char *buf = malloc(65536);
  CHECK(buf != NULL);
  int64_t n;
  while ((n = mux_read(job->ch, buf, 65536, 0, SOON)) > 0) OK(mux_write_all(job->ch, buf, (size_t)n, 0, SOON, NULL));
  EQ(n, 0);
  OK(mux_finish(job->ch));
  free(buf);
  return NULL;
}

static void round_trip(mux_session from, mux_session to, size_t total, unsigned seed) {
  mux_channel a, b;
  channel_between(from, to, &a, &b);
  struct job ours = {a, total, seed}, theirs = {b, 0, 0};
  pthread_t t1 = start(echo, &theirs), t2 = start(sender, &ours), t3 = start(receiver, &ours);
  join(t2);
  join(t3);
  join(t1);
  OK(mux_close(a.h));
  OK(mux_close(b.h));
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  struct pair p = connect_pair(argv[1]);
  round_trip(p.client, p.server, scaled(16u << 20), 1);
  round_trip(p.server, p.client, scaled(16u << 20), 2); /* opened by the listening side */
  round_trip(p.client, p.server, 1, 3);

  /* Half-close: one direction ends, the other goes on. */
  mux_channel a, b;
  char buf[8];
  channel_between(p.client, p.server, &a, &b);
  OK(mux_finish(a));
  EQ(mux_read(b, buf, 8, 0, SOON), 0);
  OK(mux_write_all(b, "later", 5, MUX_IO_FIN, SOON, NULL));
  OK(mux_read_exact(a, buf, 5, SOON, NULL));
  EQ(mux_read(a, buf, 8, 0, SOON), 0);
  OK(mux_close(b.h));
  OK(mux_close(a.h));

  /* A write of nothing with FIN ends a direction. */
  channel_between(p.client, p.server, &a, &b);
  EQ(mux_write(a, NULL, 0, MUX_IO_FIN, SOON), 0);
  EQ(mux_read(b, buf, 8, 0, SOON), 0);
  OK(mux_close(a.h));
  OK(mux_close(b.h));

  /* Closing is polite: what was written arrives, with its end, although both handles are gone. */
  channel_between(p.client, p.server, &a, &b);
  OK(mux_write_all(a, "polite", 6, 0, SOON, NULL));
  OK(mux_close(a.h));
  OK(mux_close(p.client.h));
  OK(mux_read_exact(b, buf, 6, SOON, NULL));
  EQ(mux_read(b, buf, 8, 0, SOON), 0);
  OK(mux_close(b.h));
  OK(mux_close(p.server.h));
  OK(mux_close(p.listener.h));
  finish_test();
  return 0;
}
