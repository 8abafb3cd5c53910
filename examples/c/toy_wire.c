/* toy_wire: the toy backend's frames and the threads that carry them, one for each session and listener. */
#define _GNU_SOURCE
#include "toy_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

pthread_mutex_t toy_lock = PTHREAD_MUTEX_INITIALIZER;

int64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int64_t now_ms(void) { return now_us() / 1000; }

size_t waiting(const struct bytes *b) { return b->len - b->head; }

void put(struct bytes *b, const void *data, size_t len) {
  if (len == 0) return;
  if (b->head > 0 && b->len + len > b->room) {
    memmove(b->at, b->at + b->head, waiting(b));
    b->len -= b->head;
    b->head = 0;
  }
  if (b->len + len > b->room) {
    b->room = (b->len + len) * 2;
    b->at = realloc(b->at, b->room);
    if (b->at == NULL) abort();
  }
  memcpy(b->at + b->len, data, len);
  b->len += len;
}

void drop(struct bytes *b) {
  free(b->at);
  memset(b, 0, sizeof *b);
}

static void put_number(unsigned char *at, uint64_t value, int size) {
  for (int i = 0; i < size; i++) at[i] = (unsigned char)(value >> 8 * (size - 1 - i));
}

static uint64_t number(const unsigned char *at, int size) {
  uint64_t value = 0;
  for (int i = 0; i < size; i++) value = value << 8 | at[i];
  return value;
}

void frame(struct session *s, char type, uint32_t id, const void *body, size_t len) {
  unsigned char head[9] = {(unsigned char)type};
  put_number(head + 1, id, 4);
  put_number(head + 5, len, 4);
  put(&s->out, head, sizeof head);
  put(&s->out, body, len);
  s->written += sizeof head + len;
}

void frame_u64(struct session *s, char type, uint32_t id, uint64_t value) {
  unsigned char body[8];
  put_number(body, value, 8);
  frame(s, type, id, body, sizeof body);
}

/* May be called with the lock: the library calls nothing of ours in return. */
void notify(uint64_t cookie, uint32_t events) {
  if (cookie != 0) mux_backend_ready(cookie, events);
}

void wake(struct session *s) {
  /* A full pipe wakes as well. */
  if (write(s->wake[1], "", 1) < 0) return;
}

int has_room(const struct session *s) { return (s->held + 1) * s->set.window <= s->set.budget; }

struct channel *new_channel(struct session *s, uint32_t id) {
  struct channel *c = calloc(1, sizeof *c);
  if (c == NULL) abort();
  c->s = s;
  c->id = id;
  c->credit = s->peer_window;
  c->next = s->channels;
  s->channels = c;
  s->held++;
  return c;
}

int send_over(const struct channel *c) {
  return c->fin_sent || c->reset_sent || c->stop_got || c->refused || c->s->end.status != MUX_OK;
}

int recv_over(const struct channel *c) {
  return c->fin_got || c->reset_got || c->refused || c->s->end.status != MUX_OK;
}

int drained(const struct channel *c) { return waiting(&c->out) == 0 && c->s->sent >= c->mark; }

static void free_channel(struct channel *c) {
  drop(&c->label);
  drop(&c->in);
  drop(&c->out);
  free(c);
}

static int opened_by_peer(const struct channel *c) { return (c->id % 2 == 1) != c->s->client; }

/* Forgets channels that are over and that the library let go. */
static void reap(struct session *s) {
  for (struct channel **at = &s->channels; *at != NULL;) {
    struct channel *c = *at;
    if (c->owner == LET_GO && send_over(c) && recv_over(c)) {
      *at = c->next;
      s->held--;
      if (opened_by_peer(c)) s->theirs--;
      free_channel(c);
    } else {
      at = &c->next;
    }
  }
}

void end_session(struct session *s, mux_status status, uint32_t origin, uint64_t code, const char *text) {
  if (s->end.status != MUX_OK) return;
  s->end.status = status;
  s->end.origin = origin;
  s->end.code = code;
  snprintf(s->end.message, sizeof s->end.message, "%s", text);
  for (struct channel *c = s->channels; c != NULL; c = c->next) drop(&c->out);
  notify(s->cookie, MUX_EV_CLOSED);
}

static void broken(struct session *s, const char *text) {
  end_session(s, MUX_EPROTO, MUX_BY_PEER, 0, text);
}

static void on_open(struct session *s, uint32_t id, const unsigned char *label, size_t len) {
  if ((id % 2 == 1) == s->client) {
    broken(s, "an id of ours in OPEN");
    return;
  }
  if (s->drain || s->closing || (uint64_t)s->theirs >= s->set.max_channels ||
      (uint64_t)s->waiting >= s->set.backlog || len > s->set.max_label || !has_room(s)) {
    frame_u64(s, REFUSE, id, 0);
    return;
  }
  struct channel *c = new_channel(s, id);
  put(&c->label, label, len);
  c->opened = 1;
  s->theirs++;
  s->waiting++;
  s->stats.channels_accepted++;
  c->next_incoming = NULL;
  *s->last_incoming = c;
  s->last_incoming = &c->next_incoming;
  frame(s, CONFIRM, id, NULL, 0);
  notify(s->cookie, MUX_EV_ACCEPT);
}

static void on_data(struct session *s, struct channel *c, const unsigned char *data, size_t len) {
  if (waiting(&c->in) + len > s->set.window) {
    broken(s, "more data than the window allows");
    return;
  }
  if (c->stop_sent) return; /* it does not know yet */
  put(&c->in, data, len);
  notify(c->cookie, MUX_EV_READ);
}

static void on_bye(struct session *s, uint64_t code, const unsigned char *reason, size_t len) {
  char text[224];
  snprintf(text, sizeof text, "closed by the peer: %.*s", (int)len, (const char *)reason);
  if (!s->closing) end_session(s, MUX_ECLOSED, MUX_BY_PEER, code, text);
  s->hung_up = 1;
}

static void on_channel(struct session *s, struct channel *c, char type, const unsigned char *body, size_t len) {
  uint64_t value = len == 8 ? number(body, 8) : 0;
  switch (type) {
    case CONFIRM: c->opened = 1; break;
    case REFUSE: c->refused = 1, c->refuse_code = value; break;
    case DATA: on_data(s, c, body, len); return;
    case FIN: c->fin_got = 1; break;
    case RESET: c->reset_got = 1, c->reset_code = value, drop(&c->in), s->stats.resets_in++; break;
    case WINDOW: c->credit += value; return;
    case STOP:
      if (!send_over(c) || !drained(c)) {
        c->stop_got = 1, c->stop_code = value;
        drop(&c->out);
        if (!c->fin_sent && !c->reset_sent) frame_u64(s, RESET, c->id, value);
      }
      break;
    default: broken(s, "an unknown frame"); return;
  }
  notify(c->cookie, MUX_EV_CLOSED);
}

static void on_frame(struct session *s, char type, uint32_t id, const unsigned char *body, size_t len) {
  s->moved = type == PING || type == PONG ? s->moved : now_ms();
  if (!s->connected && type != HELLO) {
    broken(s, "no HELLO at first");
    return;
  }
  switch (type) {
    case HELLO:
      s->connected = 1;
      s->peer_window = len == 8 ? number(body, 8) : 0;
      if (s->listener != NULL) {
        struct listener *l = s->listener;
        s->abort = l->freed;
        if (l->freed) return;
        s->owned = 1;
        *l->last_ready = s;
        l->last_ready = &s->next_ready;
        notify(l->cookie, MUX_EV_ACCEPT);
      }
      notify(s->cookie, MUX_EV_CONNECTED);
      return;
    case OPEN: on_open(s, id, body, len); return;
    case GOAWAY: s->peer_drains = 1; notify(s->cookie, MUX_EV_OPEN); return;
    case BYE:
      if (len < 8) broken(s, "a short BYE");
      else on_bye(s, number(body, 8), body + 8, len - 8);
      return;
    case PING: frame(s, PONG, 0, body, len); return;
    case PONG:
      if (s->ping == 1) s->ping = 2, s->ping_took = now_us() - s->ping_sent;
      notify(s->cookie, MUX_EV_DRAINED);
      return;
  }
  for (struct channel *c = s->channels; c != NULL; c = c->next)
    if (c->id == id) {
      on_channel(s, c, type, body, len);
      return;
    }
}

/* Takes whole frames from what was received. */
static void take_frames(struct session *s) {
  while (waiting(&s->in) >= 9 && s->end.status == MUX_OK && !s->hung_up) {
    const unsigned char *at = s->in.at + s->in.head;
    size_t len = number(at + 5, 4);
    if (len > MOST) {
      broken(s, "a frame that is too long");
      return;
    }
    if (waiting(&s->in) < 9 + len) return;
    on_frame(s, (char)*at, (uint32_t)number(at + 1, 4), at + 9, len);
    s->in.head += 9 + len;
  }
}

/* Moves what channels have to the output, in turns, as long as little is gathered there. */
static void gather(struct session *s) {
  for (int more = s->connected; more && waiting(&s->out) < GATHERED;) {
    more = 0;
    for (struct channel *c = s->channels; c != NULL; c = c->next) {
      size_t len = waiting(&c->out);
      if (send_over(c)) continue;
      if (len > c->credit) len = c->credit;
      if (len > PART) len = PART;
      if (len > 0) {
        frame(s, DATA, c->id, c->out.at + c->out.head, len);
        c->out.head += len;
        c->credit -= len;
        more = 1;
        c->mark = s->written;
        notify(c->cookie, MUX_EV_WRITE);
      }
      if (c->fin_wanted && waiting(&c->out) == 0) {
        frame(s, FIN, c->id, NULL, 0);
        c->mark = s->written;
        c->fin_sent = 1;
      }
    }
  }
  if (!s->closing || s->bye_sent || s->end.status != MUX_OK) return;
  for (struct channel *c = s->channels; c != NULL; c = c->next)
    if (!send_over(c)) return;
  unsigned char body[8 + sizeof s->close_reason];
  size_t len = strlen(s->close_reason);
  put_number(body, s->close_code, 8);
  memcpy(body + 8, s->close_reason, len);
  frame(s, BYE, 0, body, 8 + len);
  s->bye_sent = 1;
}

/* Sends what there is, as far as the socket takes it; tells those whose bytes are gone. */
static void send_some(struct session *s) {
  gather(s);
  while (waiting(&s->out) > 0) {
    ssize_t n = send(s->fd, s->out.at + s->out.head, waiting(&s->out), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break; /* full, or broken: then a read says so */
    s->out.head += (size_t)n;
    s->sent += (uint64_t)n;
    s->stats.bytes_out += (uint64_t)n;
    gather(s);
  }
  for (struct channel *c = s->channels; c != NULL; c = c->next)
    if (drained(c)) notify(c->cookie, MUX_EV_DRAINED);
  if (waiting(&s->out) == 0) notify(s->cookie, MUX_EV_DRAINED);
}

static void receive_some(struct session *s) {
  unsigned char room[65536];
  for (int turn = 0; turn < 8; turn++) {
    ssize_t n = recv(s->fd, room, sizeof room, MSG_DONTWAIT);
    if (n > 0) {
      s->heard = now_ms();
      s->probed = 0;
      s->stats.bytes_in += (uint64_t)n;
      put(&s->in, room, (size_t)n);
      take_frames(s);
    } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      return;
    } else {
      s->hung_up = 1;
      if (!s->bye_sent) end_session(s, MUX_ECLOSED, MUX_BY_TRANSPORT, 0, "the connection broke");
      return;
    }
  }
}

/* Time: what has to happen now, and in how many milliseconds to look again. */
static int look_at_clock(struct session *s) {
  int64_t now = now_ms(), next = 60000;
  if (s->set.keepalive > 0) {
    int64_t quiet = now - s->heard, every = (int64_t)s->set.keepalive;
    if (quiet >= 4 * every) end_session(s, MUX_EIDLE, MUX_BY_TRANSPORT, 0, "the peer was silent for too long");
    if (quiet >= every && s->probed < s->heard + every && s->connected) {
      s->probed = now;
      frame_u64(s, PING, 0, 0);
    }
    next = every / 2 + 1;
  }
  if (s->set.idle > 0) {
    int64_t left = s->moved + (int64_t)s->set.idle - now;
    if (left <= 0) end_session(s, MUX_EIDLE, MUX_BY_LOCAL, 0, "there was no traffic for the time that was set");
    else if (left < next) next = left;
  }
  return s->end.status == MUX_OK ? (int)next : 0;
}

static void finish_connect(struct session *s) {
  int error = 0;
  socklen_t len = sizeof error;
  getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len);
  if (error != 0) {
    s->end.os_errno = error;
    end_session(s, error == ECONNREFUSED ? MUX_EREFUSED : MUX_EUNREACH, MUX_BY_OS, 0, "connect");
  } else {
    s->connecting = 0;
  }
}

/* Carries a session's bytes to its end, and frees it once the library has let go. */
static void *carry(void *arg) {
  struct session *s = arg;
  char sink[64];
  pthread_mutex_lock(&toy_lock);
  while (s->end.status == MUX_OK && !s->abort && !s->hung_up) {
    int limit = look_at_clock(s);
    if (!s->connecting) send_some(s);
    reap(s);
    struct pollfd on[2] = {{s->fd, POLLIN, 0}, {s->wake[0], POLLIN, 0}};
    if (s->connecting) on[0].events = POLLOUT;
    else if (waiting(&s->out) > 0) on[0].events |= POLLOUT;
    pthread_mutex_unlock(&toy_lock);
    poll(on, 2, limit);
    if (on[1].revents && read(s->wake[0], sink, sizeof sink) < 0) sink[0] = 0;
    pthread_mutex_lock(&toy_lock);
    if (s->connecting && on[0].revents) finish_connect(s);
    else if (on[0].revents & (POLLIN | POLLHUP | POLLERR)) receive_some(s);
  }
  if (s->end.status == MUX_OK)
    end_session(s, MUX_ECLOSED, MUX_BY_LOCAL, s->close_code, "closed by this side");
  shutdown(s->fd, SHUT_RDWR);
  close(s->fd);
  s->released = 1;
  notify(s->cookie, MUX_EV_CLOSED);
  while (s->owned) {
    struct pollfd on = {s->wake[0], POLLIN, 0};
    pthread_mutex_unlock(&toy_lock);
    poll(&on, 1, -1);
    if (read(s->wake[0], sink, sizeof sink) < 0) sink[0] = 0;
    pthread_mutex_lock(&toy_lock);
  }
  while (s->channels != NULL) {
    struct channel *c = s->channels;
    s->channels = c->next;
    free_channel(c);
  }
  if (s->listener != NULL) drop_listener(s->listener);
  pthread_mutex_unlock(&toy_lock);
  drop(&s->in);
  drop(&s->out);
  close(s->wake[0]);
  close(s->wake[1]);
  free(s);
  return NULL;
}

static uint64_t setting(mux_config c, uint32_t key, uint64_t most) {
  uint64_t value = 0;
  if (mux_config_get_u64(c, key, &value) != MUX_OK || value > most) value = most;
  return value;
}

struct settings settings_of(mux_config c) {
  return (struct settings){
      .window = setting(c, MUX_CFG_CHANNEL_WINDOW, 65536),
      .budget = setting(c, MUX_CFG_SESSION_WINDOW, UINT64_MAX),
      .max_label = setting(c, MUX_CFG_MAX_LABEL, MOST),
      .send_buffer = setting(c, MUX_CFG_SEND_BUFFER, 65536),
      .max_channels = setting(c, MUX_CFG_MAX_CHANNELS_IN, 1000000),
      .backlog = setting(c, MUX_CFG_CHANNEL_BACKLOG, 1000000),
      .keepalive = setting(c, MUX_CFG_KEEPALIVE_MS, 1 << 30),
      .idle = setting(c, MUX_CFG_IDLE_MS, 1 << 30),
  };
}

struct session *new_session(int fd, int client, const struct settings *set) {
  struct session *s = calloc(1, sizeof *s);
  int one = 1;
  if (s == NULL || pipe2(s->wake, O_CLOEXEC | O_NONBLOCK) != 0) {
    free(s);
    return NULL;
  }
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  s->fd = fd;
  s->client = client;
  s->set = *set;
  s->last_incoming = &s->incoming;
  s->next_id = client ? 1 : 2;
  s->end.struct_size = sizeof s->end;
  s->stats.struct_size = sizeof s->stats;
  s->heard = s->moved = now_ms();
  frame_u64(s, HELLO, 0, s->set.window);
  return s;
}

static int start(void *(*run)(void *), void *arg) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, run, arg) != 0) return -1;
  pthread_detach(thread);
  return 0;
}

int start_session(struct session *s) { return start(carry, s); }

void drop_listener(struct listener *l) {
  if (--l->users > 0) return;
  close(l->wake[0]);
  close(l->wake[1]);
  free(l);
}

static void *take_connections(void *arg) {
  struct listener *l = arg;
  while (!l->closed) {
    struct pollfd on[2] = {{l->fd, POLLIN, 0}, {l->wake[0], POLLIN, 0}};
    poll(on, 2, -1);
    pthread_mutex_lock(&toy_lock);
    int fd = l->closed || !on[0].revents ? -1 : accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct session *s = fd < 0 ? NULL : new_session(fd, 0, &l->set);
    if (s != NULL) {
      s->listener = l;
      l->users++;
      if (start_session(s) != 0) abort(); /* a toy */
    }
    pthread_mutex_unlock(&toy_lock);
  }
  pthread_mutex_lock(&toy_lock);
  close(l->fd);
  l->released = 1;
  notify(l->cookie, MUX_EV_CLOSED);
  drop_listener(l);
  pthread_mutex_unlock(&toy_lock);
  return NULL;
}

int start_listener(struct listener *l) { return start(take_connections, l); }
