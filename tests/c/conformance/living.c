/* Clauses 6, 9, 11: priorities, peers that are killed or stop answering, peers that are only busy. */
#include "conform.h"

/* Keystrokes beside a bulk transfer: each is answered while the bulk goes on. */
static void an_urgent_channel_moves_beside_a_bulk_one(const char *url) {
  struct pair p = connect_pair(url);
  mux_channel bulk_a, bulk_b, a, b;
  mux_open_opts opts = {0};
  opts.struct_size = sizeof opts;
  opts.urgency = 8; /* the least urgent */
  OK(mux_channel_open(p.client, &opts, SOON, &bulk_a));
  OK(mux_channel_accept(p.server, SOON, &bulk_b));
  opts.urgency = 1;
  OK(mux_channel_open(p.client, &opts, SOON, &a));
  OK(mux_channel_accept(p.server, SOON, &b));
  struct flow out = {bulk_a, scaled(24u << 20), 4}, in = {bulk_b, scaled(24u << 20), 4};
  pthread_t t[2] = {start(send_flow, &out), start(receive_flow, &in)};
  for (int i = 0; i < 50; i++) round_trip(a, b, "key");
  OK(mux_channel_set_priority(a, 4, 1));
  OK(mux_channel_set_priority(bulk_a, 1, 0)); /* turned round, both still move */
  for (int i = 0; i < 20; i++) round_trip(a, b, "key");
  join(t[0]);
  join(t[1]);
  EQ(mux_channel_set_priority(a, 9, 0), MUX_EINVAL);
  close_both(a, b);
  close_both(bulk_a, bulk_b);
  disconnect(p);
}

/* A peer in another process: dials, opens one channel, says "begin", then writes or sleeps for ever. */
struct peer {
  pid_t pid;
  mux_listener listener;
  mux_session session;
  mux_channel channel;
};

static struct peer peer_process(const char *listen_url, mux_config (*make)(void), int writes) {
  struct peer peer;
  int to_child[2];
  char url[512] = {0};
  CHECK(pipe(to_child) == 0);
  peer.pid = fork(); /* before the library starts threads here */
  CHECK(peer.pid >= 0);
  if (peer.pid == 0) {
    static char zeros[30000];
    mux_channel ch;
    CHECK(read(to_child[0], url, sizeof url - 1) > 0);
    mux_session s = dial_to(url, make());
    OK(mux_channel_open(s, NULL, SOON, &ch));
    OK(mux_write_all(ch, "begin", 5, 0, SOON, NULL));
    while (!writes || mux_write(ch, zeros, sizeof zeros, 0, MUX_FOREVER) > 0) {
      if (!writes) pause();
    }
    _exit(3);
  }
  char begin[5];
  peer.listener = listen_with(listen_url, make());
  url_of(peer.listener, url, sizeof url);
  EQ(write(to_child[1], url, strlen(url)), (int64_t)strlen(url));
  close(to_child[0]);
  close(to_child[1]);
  OK(mux_accept(peer.listener, SOON, &peer.session, NULL));
  OK(mux_channel_accept(peer.session, SOON, &peer.channel));
  OK(mux_read_exact(peer.channel, begin, 5, SOON, NULL));
  return peer;
}

static void end_of(struct peer peer) {
  kill(peer.pid, SIGKILL);
  EQ(waitpid(peer.pid, NULL, 0), peer.pid);
  OK(mux_close(peer.channel.h));
  OK(mux_close(peer.session.h));
  OK(mux_close(peer.listener.h));
}

static mux_config probing(void) {
  static mux_config c;
  if (c.h == 0) c = with_u64(MUX_CFG_KEEPALIVE_MS, getenv("MUX_TEST_SMALL") ? 5000 : 500);
  return c;
}

/* A peer that is killed in the middle of its stream never looks complete. */
static void a_killed_writer_is_no_end(const char *url) {
  struct peer peer = peer_process(url, probing, 1);
  size_t got = 0;
  char buf[8192];
  while (got < 100000) {
    int64_t n = mux_read(peer.channel, buf, sizeof buf, 0, SOON);
    CHECK(n > 0);
    got += (size_t)n;
  }
  EQ(kill(peer.pid, SIGKILL), 0);
  int64_t end = read_out(peer.channel, NULL);
  CHECK(end < 0 && end != MUX_TIMEDOUT && end != MUX_ERESET && end != MUX_EFINISHED);
  mux_error e = cause_of(peer.channel.h, end);
  CHECK(e.origin == MUX_BY_TRANSPORT || e.origin == MUX_BY_OS);
  OK(mux_wait(peer.session.h, MUX_EV_CLOSED, SOON, NULL));
  CHECK(mux_cause(peer.session.h, NULL) < 0);
  CHECK(mux_write(peer.channel, "x", 1, 0, SOON) < 0);
  end_of(peer);
  OK(mux_close(probing().h));
}

/* A peer that answers nothing, although its kernel does, is noticed: the reader, the writer and the session are told. */
static void a_silent_peer_is_noticed(const char *url) {
  struct peer peer = peer_process(url, probing, 0);
  EQ(kill(peer.pid, SIGSTOP), 0);
  char byte;
  EQ(mux_read(peer.channel, &byte, 1, 0, SOON), MUX_EIDLE);
  EQ(cause_of(peer.channel.h, MUX_EIDLE).origin, MUX_BY_TRANSPORT);
  EQ(mux_write(peer.channel, "x", 1, 0, SOON), MUX_EIDLE);
  OK(mux_wait(peer.session.h, MUX_EV_CLOSED, SOON, NULL));
  cause_of(peer.session.h, MUX_EIDLE);
  end_of(peer);
  OK(mux_close(probing().h));
}

/* As it is, on a link that was busy when the peer fell silent. */
static void a_silent_peer_is_noticed_on_a_full_link(const char *url) {
  struct peer peer = peer_process(url, probing, 0);
  EQ(kill(peer.pid, SIGSTOP), 0);
  EQ(write_out(peer.channel), MUX_EIDLE);
  cause_of(peer.session.h, MUX_EIDLE);
  end_of(peer);
  OK(mux_close(probing().h));
}

/* Neither silence of the applications nor a saturated link is taken for death. */
static void no_false_alarm(const char *url) {
  mux_config c = probing();
  struct pair p = connect_with(url, c);
  mux_channel a, b;
  channel_between(p.client, p.server, &a, &b);
  sleep_ms(getenv("MUX_TEST_SMALL") ? 12000 : 2000);
  round_trip(a, b, "after a long silence");
  for (int64_t end = now_ms() + 2000; now_ms() < end;) {
    mux_channel x, y;
    channel_between(p.client, p.server, &x, &y);
    struct flow out = {x, scaled(8u << 20), 1}, in = {y, scaled(8u << 20), 1};
    pthread_t t = start(send_flow, &out);
    receive_flow(&in);
    join(t);
    close_both(x, y);
  }
  round_trip(a, b, "after a busy time");
  OK(mux_cause(p.client.h, NULL));
  close_both(a, b);
  OK(mux_close(c.h));
  disconnect(p);
}

/* A session without traffic ends when its application asked for that, and not before. */
static void an_idle_session_ends_when_asked_to(const char *url) {
  int idle = getenv("MUX_TEST_SMALL") ? 5000 : 300;
  mux_config c = with_u64(MUX_CFG_IDLE_MS, (uint64_t)idle);
  struct pair p = connect_with(url, c);
  mux_channel a, b;
  channel_between(p.client, p.server, &a, &b);
  int64_t begin = now_ms();
  OK(mux_wait(p.client.h, MUX_EV_CLOSED, SOON, NULL));
  CHECK(now_ms() - begin >= idle / 2);
  OK(mux_wait(p.server.h, MUX_EV_CLOSED, SOON, NULL));
  CHECK(mux_cause(p.client.h, NULL) == MUX_EIDLE || mux_cause(p.server.h, NULL) == MUX_EIDLE);
  close_both(a, b);
  OK(mux_close(c.h));
  disconnect(p);
}

const struct scenario living[] = {
    {"11", "cut-is-noticed", a_killed_writer_is_no_end},
    {"9", "turns", an_urgent_channel_moves_beside_a_bulk_one},
    {"11", "black-hole-is-noticed", a_silent_peer_is_noticed},
    {"11", "black-hole-on-a-full-link", a_silent_peer_is_noticed_on_a_full_link},
    {"11", "no-false-alarm", no_false_alarm},
    {"11", "idle", an_idle_session_ends_when_asked_to},
    {NULL, NULL, NULL},
};
