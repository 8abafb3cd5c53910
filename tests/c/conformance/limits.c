/* Clauses 2, 4, 6, 8, 10, 11, 13, 15, 16: what a session allows, measures and says of itself, and the ends of listeners. */
#include "conform.h"

/* Written as soon as it is open, before anybody has accepted it. */
static void written_at_once(const char *url) {
  struct pair p = connect_pair(url);
  static char block[1000];
  mux_channel a, b;
  for (int side = 0; side < 2; side++) {
    size_t got = 0;
    OK(mux_channel_open(side ? p.server : p.client, NULL, MUX_NOWAIT, &a));
    EQ(mux_write(a, block, sizeof block, MUX_IO_FIN, MUX_NOWAIT), sizeof block);
    OK(mux_channel_accept(side ? p.client : p.server, SOON, &b));
    EQ(read_out(b, &got), 0);
    EQ(got, sizeof block);
    close_both(a, b);
  }
  disconnect(p);
}

enum { EACH = 6 };

static void *open_and_send(void *arg) {
  mux_session s = *(mux_session *)arg;
  for (unsigned i = 0; i < EACH; i++) {
    mux_channel ch;
    OK(mux_channel_open(s, NULL, SOON, &ch));
    struct flow out = {ch, scaled(200000) + i, i}, back = out;
    pthread_t t = start(send_flow, &out);
    receive_flow(&back); /* the same comes back */
    join(t);
    OK(mux_close(ch.h));
  }
  return NULL;
}

static void *accept_and_echo(void *arg) {
  for (int i = 0; i < 2 * EACH; i++) {
    struct flow f = {{0}, 0, 0};
    OK(mux_channel_accept(*(mux_session *)arg, SOON, &f.ch));
    echo_flow(&f);
    OK(mux_close(f.ch.h));
  }
  return NULL;
}

/* Many threads, channels of both ends: every byte once and in order. */
static void many_channels_at_once(const char *url) {
  struct pair p = connect_pair(url);
  mux_session ends[2] = {p.client, p.server};
  pthread_t t[6];
  for (int i = 0; i < 4; i++) t[i] = start(open_and_send, &ends[i % 2]);
  for (int i = 0; i < 2; i++) t[4 + i] = start(accept_and_echo, &ends[i]);
  for (int i = 0; i < 6; i++) join(t[i]);
  disconnect(p);
}

static void close_is_polite(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b;
  size_t got = 0;
  channel_between(p.client, p.server, &a, &b);
  struct flow out = {a, 0, 0};
  OK(mux_write_all(out.ch, "to the end", 10, 0, SOON, NULL));
  OK(mux_close(a.h));
  EQ(read_out(b, &got), 0);
  EQ(got, 10);
  OK(mux_close(b.h));
  disconnect(p);
}

/* Nobody reads and nobody accepts: what an end holds for its peer stays within what was configured, and comes back. */
static void the_budget_holds(const char *url) {
  enum { BUDGET = 1 << 20, MOST = 300 };
  mux_config c = with_u64(MUX_CFG_SESSION_WINDOW, BUDGET);
  OK(mux_config_set_u64(c, MUX_CFG_MAX_CHANNELS_IN, MOST));
  OK(mux_config_set_u64(c, MUX_CFG_CHANNEL_BACKLOG, MOST));
  struct pair p = connect_with(url, c);
  mux_channel a[MOST], b;
  static char block[65536];
  int opened = 0;
  while (opened < MOST && mux_channel_open(p.client, NULL, 1000, &a[opened]) == MUX_OK) {
    while (mux_write(a[opened], block, sizeof block, 0, MUX_NOWAIT) > 0) {
    }
    opened++;
    CHECK(stats_of(p.server.h).recv_buffered <= BUDGET);
  }
  CHECK(opened > 0);
  for (int i = 0; i < opened; i++) mux_abort(a[i], 1);
  while (mux_channel_accept(p.server, 50, &b) == MUX_OK) OK(mux_abort(b, 1));
  for (int64_t end = now_ms() + SOON; stats_of(p.server.h).channels_open + stats_of(p.client.h).channels_open > 0;) {
    CHECK(now_ms() < end);
    sleep_ms(5);
  }
  EQ(stats_of(p.server.h).recv_buffered, 0);
  OK(mux_channel_open(p.client, NULL, SOON, &a[0]));
  OK(mux_write_all(a[0], "x", 1, 0, SOON, NULL));
  for (char byte = 0;;) { /* what was aborted above may still come */
    OK(mux_channel_accept(p.server, SOON, &b));
    if (mux_read(b, &byte, 1, 0, SOON) == 1 && byte == 'x') break;
    OK(mux_abort(b, 1));
  }
  round_trip(a[0], b, "as at first");
  close_both(a[0], b);
  OK(mux_close(c.h));
  disconnect(p);
}

/* 2,000 channels open at once, each of which carries its bytes. */
static void two_thousand_channels(const char *url) {
  size_t count = scaled(2000);
  mux_config c = with_u64(MUX_CFG_MAX_CHANNELS_IN, count + 100);
  OK(mux_config_set_u64(c, MUX_CFG_CHANNEL_BACKLOG, count + 100));
  struct pair p = connect_with(url, c);
  mux_channel *a = calloc(count, sizeof *a), *b = calloc(count, sizeof *b);
  CHECK(a != NULL && b != NULL);
  for (size_t i = 0; i < count; i++) {
    OK(mux_channel_open(p.client, NULL, SOON, &a[i]));
    OK(mux_write_all(a[i], &i, sizeof i, 0, SOON, NULL));
  }
  for (size_t i = 0; i < count; i++) {
    size_t word;
    OK(mux_channel_accept(p.server, SOON, &b[i]));
    OK(mux_read_exact(b[i], &word, sizeof word, SOON, NULL));
    OK(mux_write_all(b[i], &word, sizeof word, MUX_IO_FIN, SOON, NULL));
  }
  CHECK(stats_of(p.client.h).channels_open >= count);
  for (size_t i = 0; i < count; i++) {
    size_t word;
    OK(mux_read_exact(a[i], &word, sizeof word, SOON, NULL));
    EQ(word, i);
    EQ(mux_read(a[i], &word, 1, 0, SOON), 0);
    close_both(a[i], b[i]);
  }
  for (int64_t end = now_ms() + SOON; stats_of(p.client.h).channels_open + stats_of(p.server.h).channels_open > 0;) {
    CHECK(now_ms() < end);
    sleep_ms(5);
  }
  EQ(stats_of(p.client.h).recv_buffered + stats_of(p.server.h).recv_buffered, 0);
  free(a);
  free(b);
  OK(mux_close(c.h));
  disconnect(p);
}

/* After the session's end every call says so at once, for ever. */
static void nothing_goes_on_after_the_end(const char *url) {
  struct pair p = connect_pair(url);
  mux_session ends[2] = {p.client, p.server};
  mux_channel ch[2], extra;
  channel_between(p.client, p.server, &ch[0], &ch[1]);
  OK(mux_shutdown(p.client.h, 5, "over"));
  for (int i = 0; i < 2; i++) OK(mux_wait(ends[i].h, MUX_EV_CLOSED, SOON, NULL));
  for (int round = 0; round < 2; round++) {
    for (int i = 0; i < 2; i++) {
      int can_ping = mux_ping(ends[i], SOON, NULL) != MUX_EUNSUPPORTED;
      EQ(mux_cause(ends[i].h, NULL), MUX_ECLOSED);
      EQ(mux_channel_open(ends[i], NULL, MUX_FOREVER, &extra), MUX_ECLOSED);
      EQ(mux_channel_accept(ends[i], MUX_FOREVER, &extra), MUX_ECLOSED);
      CHECK(mux_write(ch[i], "x", 1, 0, MUX_FOREVER) < 0);
      CHECK(mux_read(ch[i], &extra, 1, 0, MUX_FOREVER) < 0);
      if (can_ping) EQ(mux_ping(ends[i], MUX_FOREVER, NULL), MUX_ECLOSED);
      CHECK(mux_session_drain(ends[i]) != MUX_AGAIN);
    }
  }
  close_both(ch[0], ch[1]);
  disconnect(p);
}

/* A listener that ends leaves its sessions alone. */
static void listener_closed(const char *url) {
  struct pair p = connect_pair(url);
  mux_session s;
  mux_channel a, b;
  char target[512];
  url_of(p.listener, target, sizeof target);
  OK(mux_shutdown(p.listener.h, 0, NULL));
  OK(mux_wait(p.listener.h, MUX_EV_CLOSED, SOON, NULL));
  EQ(mux_accept(p.listener, MUX_FOREVER, &s, NULL), MUX_ECLOSED);
  channel_between(p.client, p.server, &a, &b);
  round_trip(a, b, "still good");
  close_both(a, b);
  OK(mux_close(p.client.h));
  OK(mux_wait(p.server.h, MUX_EV_CLOSED, SOON, NULL));
  mux_error e;
  no_error(&e);
  mux_status st = mux_dial(target, defaults, 2000, &s, &e);
  CHECK(st < 0 && st != MUX_EINTERNAL && e.message[0] != 0);
  OK(mux_close(p.server.h));
  OK(mux_close(p.listener.h));
}

static void ping_measures(const char *url) {
  struct pair p = connect_pair(url);
  mux_session ends[2] = {p.client, p.server};
  mux_channel unread;
  OK(mux_channel_open(p.client, NULL, SOON, &unread)); /* nobody accepts */
  for (int i = 0; i < 2; i++) {
    uint64_t us = 0;
    mux_status st = mux_ping(ends[i], SOON, &us);
    if (st == MUX_EUNSUPPORTED) continue; /* what is documented where the wire has none */
    OK(st);
    CHECK(us > 0);
  }
  OK(mux_close(unread.h));
  disconnect(p);
}

/* Calls that gave up at once or soon changed nothing. */
static void waits_cancelled(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel a, b;
  channel_between(p.client, p.server, &a, &b);
  for (int i = 0; i < 100; i++) {
    char word[8];
    CHECK(mux_wait(b.h, MUX_EV_READ, i % 2, NULL) < 0);
    CHECK(mux_wait(a.h, MUX_EV_CLOSED, MUX_NOWAIT, NULL) == MUX_AGAIN);
    CHECK(mux_wait(p.client.h, MUX_EV_CLOSED, MUX_NOWAIT, NULL) == MUX_AGAIN);
    mux_status st = mux_ping(p.client, i % 2, NULL);
    CHECK(st == MUX_OK || st == MUX_AGAIN || st == MUX_TIMEDOUT || st == MUX_EUNSUPPORTED);
    OK(mux_write_all(a, "eight by", 8, 0, SOON, NULL));
    st = mux_wait(a.h, MUX_EV_DRAINED, MUX_NOWAIT, NULL);
    CHECK(st == MUX_OK || st == MUX_AGAIN);
    OK(mux_read_exact(b, word, 8, SOON, NULL));
    CHECK(memcmp(word, "eight by", 8) == 0);
  }
  OK(mux_wait(a.h, MUX_EV_DRAINED, SOON, NULL));
  close_both(a, b);
  disconnect(p);
}

/* A dial that is given up at any moment leaves nothing, and the listener goes on. */
static void dial_cancelled(const char *url) {
  mux_listener l = listen_on(url);
  mux_session s, server;
  char target[512];
  url_of(l, target, sizeof target);
  for (size_t i = 0; i < scaled(64); i++) {
    if (i % 2) {
      OK(mux_dial(target, defaults, MUX_NOWAIT, &s, NULL));
      sleep_ms((int)(i % 4));
    } else if (mux_dial(target, defaults, (int32_t)(i % 5), &s, NULL) != MUX_OK) {
      continue;
    }
    OK(mux_close(s.h));
  }
  OK(mux_dial(target, defaults, SOON, &s, NULL));
  mux_channel a, b = {0};
  OK(mux_channel_open(s, NULL, SOON, &a));
  while (b.h == 0) {
    OK(mux_accept(l, SOON, &server, NULL));
    if (mux_channel_accept(server, SOON, &b) != MUX_OK) OK(mux_close(server.h)); /* one that was given up */
  }
  round_trip(a, b, "it works");
  close_both(a, b);
  disconnect((struct pair){l, s, server});
}

static void datagrams(const char *url) {
  struct pair p = connect_pair(url);
  static unsigned char got[70000];
  uint64_t most = 9;
  EQ(mux_info(p.client.h, MUX_INFO_MAX_DATAGRAM, &most, sizeof most), 8);
  if (!(caps_of(p.client) & MUX_CAP_DATAGRAM)) {
    EQ(most, 0);
    EQ(mux_datagram_send(p.client, "x", 1), MUX_EUNSUPPORTED);
    EQ(mux_datagram_recv(p.client, got, sizeof got, MUX_FOREVER), MUX_EUNSUPPORTED);
    disconnect(p);
    return;
  }
  unsigned char *sent = calloc(1, most);
  CHECK(sent != NULL);
  for (size_t len = 1; len <= most; len += most - 1) {
    int64_t n;
    memset(sent, (int)(len & 255), len);
    do { /* one may be lost, and come late */
      OK(mux_datagram_send(p.client, sent, len));
      n = mux_datagram_recv(p.server, got, sizeof got, 200);
      CHECK(n > 0 || n == MUX_TIMEDOUT);
    } while (n != (int64_t)len);
    CHECK(memcmp(got, sent, len) == 0);
  }
  EQ(mux_datagram_send(p.client, got, sizeof got), MUX_ETOOBIG);
  for (size_t i = 0; i < scaled(5000); i++) OK(mux_datagram_send(p.client, sent, 1000)); /* nobody takes them */
  mux_channel a, b;
  channel_between(p.client, p.server, &a, &b);
  round_trip(a, b, "beside them");
  close_both(a, b);
  OK(mux_shutdown(p.client.h, 3, NULL));
  int64_t end;
  while ((end = mux_datagram_recv(p.server, got, sizeof got, SOON)) >= 0) {
  }
  EQ(end, MUX_ECLOSED);
  free(sent);
  disconnect(p);
}

/* New limits hold for the sessions that come, and for those alone. */
static void listener_reloaded(const char *url) {
  struct pair old = connect_pair(url), new = old;
  mux_config c = with_u64(MUX_CFG_MAX_LABEL, 3);
  mux_open_opts opts = {0};
  mux_channel a, b;
  char path[2][512], target[512];
  if (is_tls(url)) {
    snprintf(path[0], sizeof path[0], "%s/server.pem", certs());
    snprintf(path[1], sizeof path[1], "%s/server.key", certs());
    OK(mux_config_tls_identity_files(c, path[0], path[1], NULL));
  }
  mux_status st = mux_listener_reload(old.listener, c, NULL);
  if (st == MUX_OK) {
    url_of(old.listener, target, sizeof target);
    new.client = dial_to(target, defaults);
    OK(mux_accept(old.listener, SOON, &new.server, NULL));
    opts.struct_size = sizeof opts;
    opts.label = (const uint8_t *)"four";
    opts.label_len = 4;
    if (caps_of(new.client) & MUX_CAP_LABEL) {
      OK(mux_channel_open(new.client, &opts, SOON, &a));
      EQ(read_out(a, NULL), MUX_EREFUSED);
      OK(mux_close(a.h));
      OK(mux_channel_open(old.client, &opts, SOON, &a));
      OK(mux_channel_accept(old.server, SOON, &b));
      round_trip(a, b, "as before");
      close_both(a, b);
    }
    OK(mux_close(new.client.h));
    OK(mux_close(new.server.h));
  } else {
    EQ(st, MUX_EUNSUPPORTED);
  }
  channel_between(old.client, old.server, &a, &b);
  round_trip(a, b, "not touched");
  close_both(a, b);
  OK(mux_close(c.h));
  disconnect(old);
}

/* A label that only the peer finds too long is refused, and nothing else happens. */
static void label_above_the_peers_limit(const char *url) {
  mux_config c = with_u64(MUX_CFG_MAX_LABEL, 10);
  struct pair p;
  mux_open_opts opts = {0};
  mux_channel a, b;
  char target[512];
  p.listener = listen_with(url, c);
  url_of(p.listener, target, sizeof target);
  p.client = dial_to(target, defaults);
  OK(mux_accept(p.listener, SOON, &p.server, NULL));
  opts.struct_size = sizeof opts;
  opts.label = (const uint8_t *)"eleven byte";
  opts.label_len = 11;
  mux_status st = mux_channel_open(p.client, &opts, SOON, &a);
  if (caps_of(p.client) & MUX_CAP_LABEL) {
    OK(st);
    EQ(read_out(a, NULL), MUX_EREFUSED);
    OK(mux_close(a.h));
  } else {
    EQ(st, MUX_EUNSUPPORTED);
  }
  channel_between(p.client, p.server, &a, &b);
  round_trip(a, b, "afterwards");
  close_both(a, b);
  OK(mux_close(c.h));
  disconnect(p);
}

const struct scenario limits[] = {
    {"2", "written-at-once", written_at_once},
    {"4", "many-channels-at-once", many_channels_at_once},
    {"6", "close-is-polite", close_is_polite},
    {"8", "budget-holds", the_budget_holds},
    {"8", "2000-channels-at-once", two_thousand_channels},
    {"10", "nothing-goes-on-after-the-end", nothing_goes_on_after_the_end},
    {"10", "listener-closed", listener_closed},
    {"11", "ping-measures", ping_measures},
    {"13", "waits-cancelled", waits_cancelled},
    {"13", "dial-cancelled", dial_cancelled},
    {"15", "datagrams", datagrams},
    {"15", "listener-reloaded", listener_reloaded},
    {"16", "label-above-the-peers-limit", label_above_the_peers_limit},
    {NULL, NULL, NULL},
};
