/* Sessions over what the application brings: sockets, pipes, functions that wait or do not, and a wire channel whose bytes
 * it carries itself. The URL says which wire: qmux or h2c. */
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "t.h"

static const char *proto;

static uint32_t role_of(int server) { return server ? MUX_SERVER : MUX_CLIENT; }

/* Both sessions work: opened by either side, bytes there and back, and the end. */
static void works(mux_session client, mux_session server, size_t total) {
  for (int side = 0; side < 2; side++) {
    mux_session from = side ? server : client, to = side ? client : server;
    mux_channel a, b;
    OK(mux_channel_open(from, NULL, SOON, &a));
    char *out = malloc(total), *in = malloc(total);
    CHECK(out != NULL && in != NULL);
    for (size_t i = 0; i < total; i++) out[i] = (char)pattern(i, 3);
    size_t sent = 0, got = 0;
    OK(mux_channel_accept(to, SOON, &b));
    while (got < total) {
      if (sent < total) {
        int64_t n = mux_write(a, out + sent, total - sent, 0, 0);
        CHECK(n > 0 || n == MUX_AGAIN);
        if (n > 0) sent += (size_t)n;
      }
      int64_t n = mux_read(b, in + got, total - got, 0, sent < total ? 1 : SOON);
      CHECK(n > 0 || n == MUX_TIMEDOUT);
      if (n > 0) got += (size_t)n;
    }
    CHECK(memcmp(in, out, total) == 0);
    OK(mux_finish(a));
    EQ(mux_read(b, in, 1, 0, SOON), 0);
    OK(mux_finish(b));
    EQ(mux_read(a, in, 1, 0, SOON), 0);
    OK(mux_close(a.h));
    OK(mux_close(b.h));
    free(out);
    free(in);
  }
}

/* The polite end arrives over whatever carries it. */
static void ends(mux_session client, mux_session server) {
  mux_error e;
  OK(mux_shutdown(client.h, 77, "over"));
  OK(mux_wait(server.h, MUX_EV_CLOSED, SOON, NULL));
  no_error(&e);
  EQ(mux_cause(server.h, &e), MUX_ECLOSED);
  EQ(e.code, 77);
  OK(mux_wait(client.h, MUX_EV_CLOSED, SOON, NULL));
  OK(mux_close(client.h));
  OK(mux_close(server.h));
}

static mux_session over_fds(int rfd, int wfd, uint32_t flags, int server) {
  mux_session s;
  mux_error e;
  no_error(&e);
  if (mux_session_from_fds(rfd, wfd, flags, proto, role_of(server), defaults, &s, &e) != MUX_OK) {
    fprintf(stderr, "from_fds: %s\n", e.message);
    exit(1);
  }
  return s;
}

static int is_open(int fd) { return fcntl(fd, F_GETFD) >= 0; }

static void sockets(void) {
  int fd[2];
  char byte;
  EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
  mux_session client = over_fds(fd[0], fd[0], MUX_FD_OWN, 0);
  CHECK(!is_open(fd[0]));
  mux_session server = over_fds(fd[1], fd[1], 0, 1);
  CHECK(is_open(fd[1]));
  EQ(fcntl(fd[1], F_GETFL) & O_NONBLOCK, 0); /* flags are left as they were */
  works(client, server, scaled(4u << 20));
  ends(client, server);
  /* What was ours is ended with the session; what was lent is still the caller's. */
  EQ(recv(fd[1], &byte, 1, 0), 0);
  EQ(close(fd[1]), 0);

  /* A peer that goes is an error, and no SIGPIPE. */
  EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
  client = over_fds(fd[0], fd[0], MUX_FD_OWN, 0);
  EQ(close(fd[1]), 0);
  OK(mux_wait(client.h, MUX_EV_CLOSED | MUX_EV_CONNECTED, SOON, NULL));
  CHECK(mux_cause(client.h, NULL) < 0);
  OK(mux_close(client.h));
}

static void pipes(void) {
  int up[2], down[2];
  EQ(pipe(up), 0);
  EQ(pipe(down), 0);
  mux_session client = over_fds(down[0], up[1], MUX_FD_OWN, 0);
  CHECK(!is_open(down[0]) && !is_open(up[1]));
  mux_session server = over_fds(up[0], down[1], MUX_FD_OWN, 1);
  works(client, server, scaled(1u << 20));
  ends(client, server);
}

static void wrong_descriptors(void) {
  mux_session s = {5};
  mux_error e;
  int fd[2];
  no_error(&e);
  EQ(mux_session_from_fds(-1, 0, 0, proto, MUX_CLIENT, defaults, &s, &e), MUX_EINVAL);
  EQ(mux_session_from_fds(9999, 9999, 0, proto, MUX_CLIENT, defaults, &s, &e), MUX_EOS);
  EQ(e.os_errno, EBADF);
  EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, fd), 0);
  EQ(mux_session_from_fds(fd[0], fd[0], MUX_FD_OWN, proto, MUX_CLIENT, defaults, &s, &e), MUX_EOS);
  CHECK(is_open(fd[0])); /* a failure takes nothing over */
  EQ(mux_session_from_fds(fd[0], fd[0], 2, proto, MUX_CLIENT, defaults, &s, &e), MUX_EINVAL);
  EQ(mux_session_from_fds(fd[0], fd[0], 0, proto, 2, defaults, &s, &e), MUX_EINVAL);
  close(fd[0]);
  close(fd[1]);
  EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
  EQ(mux_session_from_fds(fd[0], fd[0], 0, "quic", MUX_CLIENT, defaults, &s, &e), MUX_EUNSUPPORTED);
  EQ(mux_session_from_fds(fd[0], fd[0], 0, "nothing", MUX_CLIENT, defaults, &s, &e), MUX_EURL);
  CHECK(strstr(e.message, "qmux") != NULL);
  EQ(s.h, 5);
  close(fd[0]);
  close(fd[1]);
}

/* Carries the bytes of one wire to another until it has ended. */
struct cable {
  mux_channel from, to;
};

static void *carry(void *arg) {
  struct cable *c = arg;
  char buf[4096];
  int64_t n;
  while ((n = mux_read(c->from, buf, sizeof buf, 0, SOON)) > 0)
    if (mux_write_all(c->to, buf, (size_t)n, 0, SOON, NULL) != MUX_OK) return NULL;
  if (n == 0) mux_finish(c->to);
  return NULL;
}

static void wires(void) {
  mux_session client, server, s;
  mux_channel a, b;
  mux_error e;
  no_error(&e);
  OK(mux_session_from_wire(proto, MUX_CLIENT, defaults, &client, &a, &e));
  OK(mux_session_from_wire(proto, MUX_SERVER, defaults, &server, &b, &e));
  struct cable up = {a, b}, down = {b, a};
  pthread_t t[2] = {start(carry, &up), start(carry, &down)};
  works(client, server, scaled(1u << 20));
  ends(client, server);
  join(t[0]);
  join(t[1]);
  OK(mux_close(a.h));
  OK(mux_close(b.h));

  /* The wire's failure is the session's. */
  OK(mux_session_from_wire(proto, MUX_CLIENT, defaults, &client, &a, &e));
  OK(mux_reset(a, 1));
  OK(mux_wait(client.h, MUX_EV_CLOSED | MUX_EV_CONNECTED, SOON, NULL));
  CHECK(mux_cause(client.h, NULL) < 0);
  OK(mux_close(client.h));
  OK(mux_close(a.h));
  EQ(mux_session_from_wire("quic", MUX_CLIENT, defaults, &s, &a, &e), MUX_EUNSUPPORTED);
}

/* One direction in memory, for functions that do not wait. */
struct ring {
  pthread_mutex_t lock;
  char bytes[5000];
  size_t len;
  int closed;
};

struct end {
  struct ring *in, *out;
  _Atomic uint64_t self, other; /* sessions to tell */
  int fds[2];                   /* of the form that waits */
  atomic_int frees, shutdowns, wrong;
};

static void tell(uint64_t session, uint32_t events) {
  mux_session s = {session};
  if (session != 0) (void)mux_io_ready(s, events);
}

static int64_t ring_read(void *ctx, void *buf, size_t len) {
  struct end *end = ctx;
  char byte;
  mux_channel ch;
  /* What could wait is refused in here, what cannot is not. */
  mux_session self = {end->self};
  if (self.h != 0 && mux_channel_accept(self, 1000, &ch) != MUX_EREENTRANT) end->wrong++;
  if (mux_read((mux_channel){0}, &byte, 1, 0, 0) != MUX_EHANDLE) end->wrong++;
  pthread_mutex_lock(&end->in->lock);
  size_t n = end->in->len < len ? end->in->len : len;
  memcpy(buf, end->in->bytes, n);
  memmove(end->in->bytes, end->in->bytes + n, end->in->len - n);
  end->in->len -= n;
  int closed = end->in->closed;
  pthread_mutex_unlock(&end->in->lock);
  if (n > 0) tell(end->other, MUX_EV_WRITE);
  return n > 0 ? (int64_t)n : closed ? 0 : MUX_AGAIN;
}

static int64_t ring_write(void *ctx, const mux_iovec *iov, int32_t n) {
  struct end *end = ctx;
  CHECK(n >= 1 && iov[0].len > 0);
  pthread_mutex_lock(&end->out->lock);
  size_t room = sizeof end->out->bytes - end->out->len, len = iov[0].len < room ? iov[0].len : room;
  memcpy(end->out->bytes + end->out->len, iov[0].base, len);
  end->out->len += len;
  pthread_mutex_unlock(&end->out->lock);
  if (len > 0) tell(end->other, MUX_EV_READ);
  return len > 0 ? (int64_t)len : MUX_AGAIN;
}

static void ring_shutdown(void *ctx) {
  struct end *end = ctx;
  pthread_mutex_lock(&end->out->lock);
  end->out->closed = 1;
  pthread_mutex_unlock(&end->out->lock);
  tell(end->other, MUX_EV_READ);
  end->shutdowns++;
}

static void end_free(void *ctx) { ((struct end *)ctx)->frees++; }

static int64_t fd_read(void *ctx, void *buf, size_t len) { return read(((struct end *)ctx)->fds[0], buf, len); }
static int64_t fd_write(void *ctx, const mux_iovec *iov, int32_t n) {
  (void)n;
  return send(((struct end *)ctx)->fds[0], iov[0].base, iov[0].len, MSG_NOSIGNAL);
}
static void fd_shutdown(void *ctx) {
  struct end *end = ctx;
  shutdown(end->fds[0], SHUT_RDWR);
  end->shutdowns++;
}

static void until_freed(struct end *end) {
  for (int64_t limit = now_ms() + SOON; end->frees == 0; sleep_ms(2)) CHECK(now_ms() < limit);
  EQ(end->frees, 1);
  EQ(end->shutdowns, 1);
  EQ(end->wrong, 0);
}

static void functions(int waiting) {
  static struct ring rings[2];
  static struct end ends_of[2][2];
  struct end *end = ends_of[waiting];
  mux_session s[2];
  mux_error e;
  int fd[2];
  EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
  no_error(&e);
  for (int i = 0; i < 2; i++) {
    pthread_mutex_init(&rings[i].lock, NULL);
    end[i].in = &rings[i];
    end[i].out = &rings[1 - i];
    end[i].fds[0] = fd[i];
  }
  for (int i = 0; i < 2; i++) {
    mux_io io;
    memset(&io, 0, sizeof io);
    io.struct_size = sizeof io;
    io.flags = waiting ? MUX_WIRE_BLOCKING : 0;
    io.ctx = &end[i];
    io.read = waiting ? fd_read : ring_read;
    io.write = waiting ? fd_write : ring_write;
    io.shutdown = waiting ? fd_shutdown : ring_shutdown;
    io.free = end_free;
    OK(mux_session_from_io(&io, proto, role_of(i), defaults, &s[i], &e));
    if (!waiting) end[i].self = end[1 - i].other = s[i].h;
  }
  if (!waiting) {
    /* What was moved before the other end was known to us. */
    for (int i = 0; i < 2; i++) OK(mux_io_ready(s[i], MUX_EV_READ | MUX_EV_WRITE));
  }
  works(s[0], s[1], scaled(1u << 20));
  EQ(mux_io_ready(s[0], 0), MUX_EINVAL);
  EQ(mux_io_ready(s[0], MUX_EV_ACCEPT), MUX_EINVAL);
  ends(s[0], s[1]);
  if (!waiting) EQ(mux_io_ready(s[0], MUX_EV_READ), MUX_EHANDLE); /* late ones are harmless */
  until_freed(&end[0]);
  until_freed(&end[1]);
  close(fd[0]);
  close(fd[1]);
}

static int64_t too_much(void *ctx, void *buf, size_t len) {
  (void)ctx, (void)buf;
  return (int64_t)len + 1;
}

static void wrong_functions(void) {
  struct end end = {0};
  mux_session s;
  mux_error e;
  mux_io io;
  memset(&io, 0, sizeof io);
  no_error(&e);
  io.ctx = &end;
  io.free = end_free;
  EQ(mux_session_from_io(NULL, proto, MUX_CLIENT, defaults, &s, &e), MUX_EINVAL);
  EQ(mux_session_from_io(&io, proto, MUX_CLIENT, defaults, &s, &e), MUX_EINVAL);
  EQ(end.frees, 0);
  io.struct_size = sizeof io;
  EQ(mux_session_from_io(&io, proto, MUX_CLIENT, defaults, &s, &e), MUX_EINVAL);
  CHECK(strstr(e.message, "read") != NULL);
  EQ(end.frees, 1); /* taken over, and given up */
  io.read = too_much;
  io.write = fd_write;
  io.shutdown = fd_shutdown;
  io.flags = 8;
  EQ(mux_session_from_io(&io, proto, MUX_CLIENT, defaults, &s, &e), MUX_EINVAL);
  EQ(end.frees, 2);
  io.flags = 0;
  end.frees = 0;
  end.fds[0] = -1;
  /* One that says it has read more than there was room for is not believed. Its write says MUX_AGAIN for ever, which nobody
   * waits for longer than the linger time once the session is over. */
  mux_config c;
  OK(mux_config_new(&c));
  OK(mux_config_set_u64(c, MUX_CFG_LINGER_MS, 50));
  mux_status st = mux_session_from_io(&io, proto, MUX_SERVER, c, &s, &e);
  OK(mux_close(c.h));
  if (st == MUX_OK) {
    OK(mux_wait(s.h, MUX_EV_CONNECTED | MUX_EV_CLOSED, SOON, NULL));
    CHECK(mux_cause(s.h, NULL) < 0);
    OK(mux_close(s.h));
  }
  until_freed(&end);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  proto = strncmp(argv[1], "h2c", 3) == 0 ? "h2c" : "qmux";
  wrong_descriptors();
  sockets();
  pipes();
  wires();
  functions(0);
  functions(1);
  wrong_functions();
  struct pair p = connect_pair(argv[1]);
  EQ(mux_io_ready(p.client, MUX_EV_READ), MUX_ESTATE);
  disconnect(p);
  finish_test();
  return 0;
}
