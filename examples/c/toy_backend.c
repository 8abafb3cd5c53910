/* toy_backend: how a wire is added to libmux from C. These are the functions of struct mux_backend; the bytes are moved by
 * toy_wire.c. Nothing here waits: what cannot be done is MUX_AGAIN, and toy_wire.c says mux_backend_ready later. */
#define _GNU_SOURCE
#include "toy_backend.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "toy_wire.h"

#define LOCKED pthread_mutex_lock(&toy_lock)
#define UNLOCK pthread_mutex_unlock(&toy_lock)

static mux_status failed(mux_error *err, mux_status status, const char *what) {
  snprintf(err->message, sizeof err->message, "%s: %s", what, strerror(errno));
  err->os_errno = errno;
  return status;
}

/* A socket for the host and port of a URL, which are numbers: looking up names would wait. */
static int socket_of(const char *url, struct sockaddr_storage *addr, socklen_t *len) {
  char host[256], *port;
  const char *at = strstr(url, "://");
  struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *found;
  snprintf(host, sizeof host, "%s", at == NULL ? "" : at + 3);
  host[strcspn(host, "/?")] = 0;
  port = strrchr(host, ':');
  if (port == NULL) return -1;
  *port++ = 0;
  char *name = host[0] == '[' ? host + 1 : host;
  name[strcspn(name, "]")] = 0;
  if (getaddrinfo(name, port, &hints, &found) != 0) return -1;
  memcpy(addr, found->ai_addr, found->ai_addrlen);
  *len = found->ai_addrlen;
  int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  freeaddrinfo(found);
  return fd;
}

static int bad_url(mux_error *err) {
  snprintf(err->message, sizeof err->message, "toy: write numbers, such as toy://127.0.0.1:4000");
  return MUX_EURL;
}

static mux_status toy_dial(void *ctx, const char *url, mux_config c, uint64_t cookie, void **session, mux_error *err) {
  (void)ctx;
  struct sockaddr_storage addr;
  socklen_t len;
  struct settings set = settings_of(c);
  int fd = socket_of(url, &addr, &len);
  if (fd < 0) return bad_url(err);
  struct session *s = new_session(fd, 1, &set);
  if (s == NULL) {
    close(fd);
    return MUX_ENOFILE;
  }
  s->connecting = 1;
  s->cookie = cookie;
  s->owned = 1;
  if (connect(fd, (struct sockaddr *)&addr, len) != 0 && errno != EINPROGRESS) {
    mux_status status = failed(err, MUX_EUNREACH, "connect");
    s->owned = 0, s->abort = 1; /* its thread frees it */
    if (start_session(s) != 0) abort();
    return status;
  }
  *session = s;
  if (start_session(s) != 0) abort();
  return MUX_OK;
}

static mux_status toy_listen(void *ctx, const char *url, mux_config c, uint64_t cookie, void **listener, mux_error *err) {
  (void)ctx;
  struct sockaddr_storage addr;
  socklen_t len;
  int one = 1, fd = socket_of(url, &addr, &len);
  if (fd < 0) return bad_url(err);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, (struct sockaddr *)&addr, len) != 0 || listen(fd, 128) != 0) {
    mux_status status = failed(err, errno == EADDRINUSE ? MUX_EADDRINUSE : MUX_EOS, "listen");
    close(fd);
    return status;
  }
  struct listener *l = calloc(1, sizeof *l);
  if (l == NULL || pipe2(l->wake, O_CLOEXEC | O_NONBLOCK) != 0) {
    free(l);
    close(fd);
    return MUX_ENOFILE;
  }
  char host[64], port[16];
  getsockname(fd, (struct sockaddr *)&addr, &len);
  getnameinfo((struct sockaddr *)&addr, len, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
  snprintf(l->url, sizeof l->url, strchr(host, ':') ? "toy://[%s]:%s" : "toy://%s:%s", host, port);
  l->fd = fd;
  l->cookie = cookie;
  l->set = settings_of(c);
  l->last_ready = &l->ready;
  l->users = 2; /* the library, and the thread */
  if (start_listener(l) != 0) abort();
  *listener = l;
  return MUX_OK;
}

static struct session *next_ready(struct listener *l) {
  struct session *s = l->ready;
  if (s == NULL) return NULL;
  l->ready = s->next_ready;
  if (l->ready == NULL) l->last_ready = &l->ready;
  return s;
}

static mux_status toy_accept(void *listener, uint64_t cookie, void **session) {
  struct listener *l = listener;
  LOCKED;
  struct session *s = next_ready(l);
  mux_status status = s != NULL ? MUX_OK : l->closed ? MUX_ECLOSED : MUX_AGAIN;
  if (s != NULL) {
    s->cookie = cookie;
    *session = s;
  }
  UNLOCK;
  return status;
}

static void toy_listener_close(void *listener) {
  struct listener *l = listener;
  LOCKED;
  l->closed = 1;
  if (write(l->wake[1], "", 1) < 0) l->closed = 1;
  UNLOCK;
}

static void toy_listener_free(void *listener) {
  struct listener *l = listener;
  toy_listener_close(l);
  LOCKED;
  l->freed = 1;
  l->cookie = 0;
  for (struct session *s; (s = next_ready(l)) != NULL;) {
    s->owned = 0, s->abort = 1;
    wake(s);
  }
  drop_listener(l);
  UNLOCK;
}

static mux_status toy_open(void *session, const mux_open_opts *o, uint64_t cookie, void **channel) {
  struct session *s = session;
  mux_status status = MUX_OK;
  LOCKED;
  if (s->end.status != MUX_OK) status = s->end.status;
  else if (s->closing) status = MUX_ECLOSED;
  else if (s->drain || s->peer_drains) status = MUX_EGOAWAY;
  else if (!has_room(s)) status = MUX_ELIMIT;
  else {
    struct channel *c = new_channel(s, s->next_id);
    s->next_id += 2;
    s->stats.channels_opened++;
    put(&c->label, o->label, o->label_len);
    frame(s, OPEN, c->id, o->label, o->label_len);
    c->cookie = cookie;
    c->owner = OWNED;
    *channel = c;
    wake(s);
  }
  UNLOCK;
  return status;
}

static mux_status toy_incoming(void *session, uint64_t cookie, void **channel) {
  struct session *s = session;
  LOCKED;
  struct channel *c = s->incoming;
  mux_status status = c != NULL ? MUX_OK : s->end.status != MUX_OK ? s->end.status : MUX_AGAIN;
  if (c != NULL) {
    s->incoming = c->next_incoming;
    if (s->incoming == NULL) s->last_incoming = &s->incoming;
    s->waiting--;
    c->cookie = cookie;
    c->owner = OWNED;
    *channel = c;
  }
  UNLOCK;
  return status;
}

static void toy_drain(void *session) {
  struct session *s = session;
  LOCKED;
  s->drain = 1;
  frame(s, GOAWAY, 0, NULL, 0);
  wake(s);
  UNLOCK;
}

static void send_reset(struct channel *c, uint64_t code) {
  if (c->fin_sent && drained(c)) return;
  if (send_over(c) && !c->fin_sent) return;
  drop(&c->out);
  frame_u64(c->s, RESET, c->id, code);
  c->reset_sent = 1;
  c->s->stats.resets_out++;
}

static void toy_close(void *session, uint64_t code, const char *reason) {
  struct session *s = session;
  LOCKED;
  if (!s->closing && s->end.status == MUX_OK) {
    s->closing = 1;
    s->close_code = code;
    snprintf(s->close_reason, sizeof s->close_reason, "%s", reason);
    for (struct channel *c = s->channels; c != NULL; c = c->next)
      if (!c->fin_wanted) send_reset(c, 0);
    if (!s->connected) s->abort = 1;
    wake(s);
  }
  UNLOCK;
}

static void toy_abort(void *session, uint64_t code) {
  struct session *s = session;
  LOCKED;
  s->abort = 1;
  s->close_code = code;
  end_session(s, MUX_ECLOSED, MUX_BY_LOCAL, code, "aborted by this side");
  wake(s);
  UNLOCK;
}

static int64_t toy_read(void *channel, void *buf, size_t len) {
  struct channel *c = channel;
  struct session *s = c->s;
  int64_t result;
  LOCKED;
  size_t n = waiting(&c->in);
  if (n > len) n = len;
  if (n > 0) {
    memcpy(buf, c->in.at + c->in.head, n);
    c->in.head += n;
    c->taken += n;
    if (c->taken >= s->set.window / 2 && !recv_over(c)) {
      frame_u64(s, WINDOW, c->id, c->taken);
      c->taken = 0;
      wake(s);
    }
    result = (int64_t)n;
  } else {
    result = c->fin_got ? 0 : c->reset_got ? MUX_ERESET : c->refused ? MUX_EREFUSED : s->end.status;
    if (result == 0 && !c->fin_got) result = MUX_AGAIN;
  }
  UNLOCK;
  return result;
}

static int64_t toy_write(void *channel, const mux_iovec *iov, int32_t n, uint32_t flags) {
  struct channel *c = channel;
  struct session *s = c->s;
  size_t taken = 0, left = 0;
  int64_t result = 0;
  LOCKED;
  if (c->refused) result = MUX_EREFUSED;
  else if (c->stop_got) result = MUX_ESTOPPED;
  else if (s->end.status != MUX_OK) result = s->end.status;
  else if (s->closing) result = MUX_ECLOSED;
  if (result == 0) {
    for (int32_t i = 0; i < n; i++) {
      size_t held = waiting(&c->out), room = held < s->set.send_buffer ? s->set.send_buffer - held : 0;
      size_t len = iov[i].len < room ? iov[i].len : room;
      put(&c->out, iov[i].base, len);
      taken += len;
      left += iov[i].len - len;
    }
    if (left == 0 && flags & MUX_IO_FIN) c->fin_wanted = 1;
    result = taken == 0 && left > 0 ? MUX_AGAIN : (int64_t)taken;
    wake(s);
  }
  UNLOCK;
  return result;
}

static mux_status toy_reset(void *channel, uint64_t code) {
  struct channel *c = channel;
  LOCKED;
  send_reset(c, code);
  wake(c->s);
  UNLOCK;
  return MUX_OK;
}

static mux_status toy_stop(void *channel, uint64_t code) {
  struct channel *c = channel;
  LOCKED;
  drop(&c->in);
  if (!c->stop_sent && !recv_over(c)) frame_u64(c->s, STOP, c->id, code);
  c->stop_sent = 1;
  wake(c->s);
  UNLOCK;
  return MUX_OK;
}

static uint32_t ready_channel(const struct channel *c, size_t min) {
  const struct session *s = c->s;
  size_t most_in = min < s->set.window ? min : s->set.window, held = waiting(&c->out);
  size_t most_out = min < s->set.send_buffer ? min : s->set.send_buffer;
  int failed = c->stop_got || c->refused || s->end.status != MUX_OK;
  uint32_t ready = 0;
  if (waiting(&c->in) >= most_in || recv_over(c)) ready |= MUX_EV_READ;
  if (failed || held + most_out <= s->set.send_buffer) ready |= MUX_EV_WRITE;
  if (failed || drained(c)) ready |= MUX_EV_DRAINED;
  if (failed || c->opened) ready |= MUX_EV_OPENED;
  if (failed || c->reset_sent || (c->fin_sent && drained(c))) ready |= MUX_EV_CLOSED;
  return ready;
}

static int all_drained(const struct session *s) {
  for (const struct channel *c = s->channels; c != NULL; c = c->next)
    if (waiting(&c->out) > 0) return 0;
  return waiting(&s->out) == 0;
}

static uint32_t toy_ready(uint32_t kind, void *object, uint32_t events, size_t min) {
  uint32_t ready = 0;
  LOCKED;
  if (kind == MUX_KIND_CHANNEL) {
    ready = ready_channel(object, min);
  } else if (kind == MUX_KIND_SESSION) {
    const struct session *s = object;
    if (s->connected) ready |= MUX_EV_CONNECTED;
    if (s->connected || s->end.status != MUX_OK) ready |= MUX_EV_OPEN;
    if (all_drained(s)) ready |= MUX_EV_DRAINED;
    if (s->released) ready |= MUX_EV_CLOSED;
  } else if (((struct listener *)object)->released) {
    ready = MUX_EV_CLOSED;
  }
  UNLOCK;
  return ready & events;
}

static void by_peer(mux_error *e, mux_status status, uint64_t code) {
  e->status = status;
  e->origin = MUX_BY_PEER;
  e->code = code;
  e->retry_safe = status == MUX_EREFUSED;
}

/* Why the session ended, as far as e knows. */
static void of_session(const struct session *s, mux_error *e) {
  if (s->end.status != MUX_OK) {
    mux_status asked = e->status;
    *e = s->end;
    if (asked != MUX_OK) e->status = asked;
  } else if (e->status == MUX_ECLOSED) {
    e->origin = MUX_BY_LOCAL;
  } else if (e->status == MUX_EGOAWAY) {
    e->origin = s->drain ? MUX_BY_LOCAL : MUX_BY_PEER;
    e->retry_safe = 1;
  }
}

static void toy_cause(uint32_t kind, void *object, mux_error *e) {
  const struct channel *c = object;
  LOCKED;
  if (kind == MUX_KIND_SESSION) {
    of_session(object, e);
  } else if (kind == MUX_KIND_CHANNEL) {
    if (e->status == MUX_ERESET) by_peer(e, MUX_ERESET, c->reset_code);
    else if (c->refused && (e->status == MUX_OK || e->status == MUX_EREFUSED)) by_peer(e, MUX_EREFUSED, c->refuse_code);
    else if (c->stop_got && (e->status == MUX_OK || e->status == MUX_ESTOPPED)) by_peer(e, MUX_ESTOPPED, c->stop_code);
    else if (e->status != MUX_OK || !(c->reset_sent || (c->fin_sent && drained(c)))) of_session(c->s, e);
  }
  UNLOCK;
}

static int64_t toy_info(uint32_t kind, void *object, uint32_t key, void *buf, size_t cap) {
  char text[128] = "";
  const void *value = text;
  size_t len = 0;
  uint64_t id;
  LOCKED;
  if (kind == MUX_KIND_LISTENER && key == MUX_INFO_URL) {
    len = (size_t)snprintf(text, sizeof text, "%s", ((struct listener *)object)->url);
  } else if (kind == MUX_KIND_CHANNEL && key == MUX_INFO_LABEL) {
    const struct channel *c = object;
    value = c->label.at;
    len = waiting(&c->label);
  } else if (kind == MUX_KIND_CHANNEL && key == MUX_INFO_CHANNEL_ID) {
    id = ((struct channel *)object)->id;
    value = &id;
    len = sizeof id;
  } else if (kind == MUX_KIND_SESSION && (key == MUX_INFO_LOCAL_ADDR || key == MUX_INFO_PEER_ADDR)) {
    struct session *s = object;
    struct sockaddr_storage addr;
    socklen_t size = sizeof addr;
    char host[64], port[16];
    int got = s->released ? -1
              : key == MUX_INFO_LOCAL_ADDR ? getsockname(s->fd, (struct sockaddr *)&addr, &size)
                                           : getpeername(s->fd, (struct sockaddr *)&addr, &size);
    if (got == 0 && getnameinfo((struct sockaddr *)&addr, size, host, sizeof host, port, sizeof port,
                                NI_NUMERICHOST | NI_NUMERICSERV) == 0)
      len = (size_t)snprintf(text, sizeof text, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
  }
  if (len > 0) memcpy(buf, value, len < cap ? len : cap);
  UNLOCK;
  return (int64_t)len;
}

static void toy_session_free(void *session) {
  struct session *s = session;
  LOCKED;
  s->owned = 0;
  s->abort = 1;
  s->cookie = 0;
  wake(s);
  UNLOCK;
}

static void toy_channel_free(void *channel) {
  struct channel *c = channel;
  LOCKED;
  c->owner = LET_GO;
  c->cookie = 0;
  wake(c->s);
  UNLOCK;
}

static mux_status toy_ping(void *session, uint64_t *rtt_us) {
  struct session *s = session;
  mux_status status = MUX_AGAIN;
  LOCKED;
  if (s->end.status != MUX_OK) {
    status = s->end.status;
  } else if (s->ping == 2) {
    s->ping = 0;
    *rtt_us = (uint64_t)s->ping_took;
    status = MUX_OK;
  } else if (s->ping == 0) {
    s->ping = 1;
    s->ping_sent = now_us();
    frame(s, PING, 0, NULL, 0);
    wake(s);
  }
  UNLOCK;
  return status;
}

static void toy_stats(uint32_t kind, void *object, mux_stats *out) {
  LOCKED;
  if (kind == MUX_KIND_CHANNEL) {
    const struct channel *c = object;
    out->recv_buffered = waiting(&c->in);
    out->send_buffered = waiting(&c->out);
    out->send_credit = c->s->set.send_buffer - waiting(&c->out);
  } else if (kind == MUX_KIND_SESSION) {
    const struct session *s = object;
    *out = s->stats;
    out->send_buffered = waiting(&s->out);
    for (const struct channel *c = s->channels; c != NULL; c = c->next) {
      out->channels_open++;
      out->recv_buffered += waiting(&c->in);
      out->send_buffered += waiting(&c->out);
    }
  }
  UNLOCK;
}

mux_status toy_register(mux_error *err) {
  const mux_backend toy = {
      .struct_size = sizeof toy,
      .schemes = "toy",
      .caps = MUX_CAP_HALF_CLOSE | MUX_CAP_RESET_CODE | MUX_CAP_STOP | MUX_CAP_RESET_VISIBLE | MUX_CAP_LABEL |
              MUX_CAP_OPENED | MUX_CAP_GOAWAY | MUX_CAP_SERVER_OPEN,
      .dial = toy_dial,
      .listen = toy_listen,
      .accept = toy_accept,
      .listener_close = toy_listener_close,
      .open = toy_open,
      .incoming = toy_incoming,
      .session_drain = toy_drain,
      .session_close = toy_close,
      .session_abort = toy_abort,
      .read = toy_read,
      .write = toy_write,
      .reset = toy_reset,
      .stop = toy_stop,
      .ready = toy_ready,
      .cause = toy_cause,
      .info = toy_info,
      .listener_free = toy_listener_free,
      .session_free = toy_session_free,
      .channel_free = toy_channel_free,
      .ping = toy_ping,
      .stats = toy_stats,
  };
  return mux_backend_register(&toy, NULL, err);
}
