/* Sessions: connecting without waiting, facts, capabilities, configuration, draining, runtimes. */
#include <netinet/in.h>
#include <sys/socket.h>

#include "t.h"

static void connecting(const char *listen_url) {
  char url[512], text[512];
  uint32_t ready;
  uint64_t caps;
  mux_error e;
  mux_session s, server;
  mux_channel ch, peer;
  mux_listener l = listen_on(listen_url);
  url_of(l, url, sizeof url);

  /* timeout 0: a live session at once; what needs the connection says so or waits for it. */
  OK(mux_dial(url, defaults, MUX_NOWAIT, &s, NULL));
  CHECK(mux_info(s.h, MUX_INFO_URL, text, sizeof text) > 0);
  OK(mux_channel_open(s, NULL, SOON, &ch));
  OK(mux_session_caps(s, &caps));
  OK(mux_accept(l, SOON, &server, NULL));
  OK(mux_channel_accept(server, SOON, &peer));
  OK(mux_close(peer.h));
  OK(mux_close(ch.h));
  OK(mux_close(s.h));
  OK(mux_close(server.h));
  OK(mux_close(l.h));

  /* What cannot be connected is a session that has failed, with its cause. */
  no_error(&e);
  mux_status st = mux_dial("qmux+tcp://127.0.0.1:1", defaults, MUX_NOWAIT, &s, &e);
  if (st == MUX_OK) {
    OK(mux_wait(s.h, MUX_EV_CONNECTED, SOON, &ready));
    EQ(ready, MUX_EV_CONNECTED | MUX_EV_CLOSED);
    EQ(mux_cause(s.h, &e), MUX_EREFUSED);
    EQ(mux_channel_open(s, NULL, SOON, &ch), MUX_EREFUSED);
    EQ(mux_channel_accept(s, 0, &ch), MUX_EREFUSED);
    OK(mux_close(s.h));
  } else {
    EQ(st, MUX_EREFUSED); /* the system knew at once */
  }
  CHECK(strstr(e.message, "127.0.0.1:1") != NULL);

  /* A URL that is wrong is wrong at once. */
  EQ(mux_dial("nothing://x", defaults, MUX_NOWAIT, &s, NULL), MUX_EURL);
}

/* Takes connections and says nothing: the dialer's handshake never ends. */
static int silent_listener(char *url, size_t cap) {
  struct sockaddr_in addr;
  socklen_t len = sizeof addr;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  memset(&addr, 0, sizeof addr);
  addr.sin_family = AF_INET;
  addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof addr) == 0 && listen(fd, 16) == 0);
  CHECK(getsockname(fd, (struct sockaddr *)&addr, &len) == 0);
  snprintf(url, cap, "qmux+tcp://127.0.0.1:%d", ntohs(addr.sin_port));
  return fd;
}

static void silent_peer(void) {
  mux_session s;
  mux_error e;
  mux_config c;
  char url[64];
  int fd = silent_listener(url, sizeof url);
  no_error(&e);
  EQ(mux_dial(url, defaults, 80, &s, &e), MUX_TIMEDOUT);
  CHECK(strstr(e.message, "127.0.0.1") != NULL);
  OK(mux_config_new(&c));
  OK(mux_config_set_u64(c, MUX_CFG_CONNECT_MS, 80));
  EQ(mux_dial(url, c, SOON, &s, NULL), MUX_TIMEDOUT); /* the configuration's own limit */
  /* Closing and shutting down while it connects. */
  uint32_t ready;
  OK(mux_dial(url, defaults, MUX_NOWAIT, &s, NULL));
  EQ(mux_session_caps(s, &(uint64_t){0}), MUX_ESTATE);
  EQ(mux_session_drain(s), MUX_ESTATE);
  OK(mux_close(s.h));
  OK(mux_dial(url, defaults, MUX_NOWAIT, &s, NULL));
  OK(mux_shutdown(s.h, 0, NULL));
  OK(mux_wait(s.h, MUX_EV_CLOSED, SOON, &ready));
  EQ(mux_cause(s.h, NULL), MUX_ECLOSED);
  OK(mux_close(s.h));
  OK(mux_close(c.h));
  close(fd);
}

static void facts(const char *listen_url) {
  struct pair p = connect_pair(listen_url);
  int tcp = strncmp(listen_url, "qmux+tcp", 8) == 0;
  char url[512], text[512];
  uint64_t caps = 0, scheme = 0;
  uint32_t kind;
  url_of(p.listener, url, sizeof url);
  if (tcp) CHECK(strstr(url, ":0") == NULL); /* the real port */
  CHECK(mux_info(p.client.h, MUX_INFO_URL, text, sizeof text) == (int64_t)strlen(url) && strcmp(text, url) == 0);
  EQ(mux_info(p.client.h, MUX_INFO_KIND, &kind, sizeof kind), 4);
  EQ(kind, MUX_KIND_SESSION);
  if (tcp) {
    CHECK(mux_info(p.client.h, MUX_INFO_PEER_ADDR, text, sizeof text) > 0 && strstr(url, text) != NULL);
    CHECK(mux_info(p.server.h, MUX_INFO_LOCAL_ADDR, text, sizeof text) > 0 && strstr(url, text) != NULL);
  }
  EQ(mux_info(p.client.h, MUX_INFO_TLS, text, sizeof text), 0);
  EQ(text[0], 0);
  EQ(mux_info(p.client.h, MUX_INFO_ALPN, NULL, 0), 0);
  EQ(mux_info(p.client.h, MUX_INFO_PEER_CERT_DER, NULL, 0), 0);
  OK(mux_session_caps(p.client, &caps));
  OK(mux_scheme_caps("qmux", &scheme));
  EQ(caps, scheme);
  const uint64_t want = MUX_CAP_HALF_CLOSE | MUX_CAP_RESET_CODE | MUX_CAP_STOP | MUX_CAP_RESET_VISIBLE | MUX_CAP_LABEL |
                        MUX_CAP_SERVER_OPEN;
  EQ(caps & want, want);
  EQ(caps & (MUX_CAP_DATAGRAM | MUX_CAP_NO_HOL | MUX_CAP_MIGRATION | MUX_CAP_ACKED), 0);

  mux_channel a, b;
  uint32_t ready;
  channel_between(p.client, p.server, &a, &b);
  if (caps & MUX_CAP_OPENED) {
    OK(mux_wait(a.h, MUX_EV_OPENED, SOON, &ready));
    EQ(ready, MUX_EV_OPENED);
  }
  mux_stats st = {0};
  st.struct_size = sizeof st;
  OK(mux_write_all(a, "12345", 5, 0, SOON, NULL));
  OK(mux_wait(a.h, MUX_EV_DRAINED, SOON, &ready));
  CHECK(ready & MUX_EV_DRAINED);
  OK(mux_wait(p.client.h, MUX_EV_DRAINED | MUX_EV_OPEN, SOON, &ready));
  OK(mux_wait(b.h, MUX_EV_READ, SOON, NULL));
  OK(mux_stats_get(b.h, &st));
  EQ(st.recv_buffered, 5);
  OK(mux_stats_get(p.server.h, &st));
  CHECK(st.bytes_in > 5 && st.channels_open == 1 && st.channels_accepted == 1);
  st.struct_size = 8;
  EQ(mux_stats_get(p.server.h, &st), MUX_EINVAL);
  OK(mux_close(a.h));
  OK(mux_close(b.h));
  disconnect(p);
}

static void draining(const char *listen_url) {
  struct pair p = connect_pair(listen_url);
  mux_channel a, b, c, d;
  char buf[8];
  channel_between(p.client, p.server, &a, &b);
  OK(mux_session_drain(p.server));
  OK(mux_write_all(a, "old", 3, MUX_IO_FIN, SOON, NULL)); /* what was open goes on */
  OK(mux_read_exact(b, buf, 3, SOON, NULL));
  EQ(mux_read(b, buf, 1, 0, SOON), 0);
  /* What is new is refused, by the open itself or by what is done with it, and that is safe to retry elsewhere. */
  mux_status st = mux_channel_open(p.client, NULL, SOON, &c);
  if (st == MUX_OK) {
    mux_error e;
    int64_t n = mux_read(c, buf, 1, 0, SOON);
    CHECK(n == MUX_EREFUSED || n == MUX_EGOAWAY);
    no_error(&e);
    EQ(mux_cause(c.h, &e), n);
    EQ(e.retry_safe, 1);
    OK(mux_close(c.h));
  } else {
    EQ(st, MUX_EGOAWAY);
  }
  EQ(mux_channel_accept(p.server, 30, &d), MUX_TIMEDOUT);
  OK(mux_close(a.h));
  OK(mux_close(b.h));
  disconnect(p);
}

static void runtimes(const char *listen_url) {
  mux_runtime rt;
  mux_config c;
  mux_runtime_opts opts = {0};
  mux_channel a, b;
  char buf[8];
  opts.struct_size = sizeof opts;
  opts.worker_threads = 1;
  opts.thread_name = "own";
  OK(mux_runtime_new(&opts, &rt));
  OK(mux_config_new(&c));
  OK(mux_config_set_runtime(c, rt));
  struct pair p = connect_with(listen_url, c);
  channel_between(p.client, p.server, &a, &b);
  OK(mux_write_all(a, "bytes", 5, MUX_IO_FIN, SOON, NULL));
  OK(mux_read_exact(b, buf, 5, SOON, NULL));
  /* Shutting it down ends every handle that belongs to it, and no other. */
  OK(mux_runtime_shutdown(rt, SOON));
  EQ(mux_read(b, buf, 1, 0, SOON), MUX_EHANDLE);
  EQ(mux_close(p.client.h), MUX_EHANDLE);
  EQ(mux_close(p.listener.h), MUX_EHANDLE);
  EQ(mux_runtime_shutdown(rt, SOON), MUX_EHANDLE);
  mux_session s;
  EQ(mux_dial("qmux://127.0.0.1:1", c, SOON, &s, NULL), MUX_ESTATE); /* it still names the ended runtime */
  OK(mux_config_set_runtime(c, (mux_runtime){0}));
  EQ(mux_dial("qmux://127.0.0.1:1", c, SOON, &s, NULL), MUX_EREFUSED);
  OK(mux_close(c.h));

  /* A runtime whose handle is closed lives as long as it has work. */
  OK(mux_runtime_new(NULL, &rt));
  OK(mux_config_new(&c));
  OK(mux_config_set_runtime(c, rt));
  p = connect_with(listen_url, c);
  OK(mux_close(rt.h));
  OK(mux_close(c.h));
  channel_between(p.client, p.server, &a, &b);
  OK(mux_write_all(a, "bytes", 5, MUX_IO_FIN, SOON, NULL));
  OK(mux_read_exact(b, buf, 5, SOON, NULL));
  OK(mux_close(a.h));
  OK(mux_close(b.h));
  disconnect(p);
}

static void configuration(const char *listen_url) {
  mux_config c;
  mux_channel ch;
  OK(mux_config_new(&c));
  OK(mux_config_set_u64(c, MUX_CFG_KEEPALIVE_MS, 1000));
  OK(mux_config_set_u64(c, MUX_CFG_IDLE_MS, 0));
  OK(mux_config_set_u64(c, MUX_CFG_LINGER_MS, 1000));
  OK(mux_config_set_u64(c, MUX_CFG_MAX_CHANNELS_IN, 2));
  OK(mux_config_set_u64(c, MUX_CFG_CHANNEL_WINDOW, 65536));
  OK(mux_config_set_u64(c, MUX_CFG_SESSION_WINDOW, 1u << 20));
  OK(mux_config_set_u64(c, MUX_CFG_SEND_BUFFER, 65536));
  OK(mux_config_set_u64(c, MUX_CFG_FRAME_SIZE, 16384));
  OK(mux_config_set_u64(c, MUX_CFG_CHANNEL_BACKLOG, 4));
  OK(mux_config_set_u64(c, MUX_CFG_SESSION_BACKLOG, 4));
  OK(mux_config_set_u64(c, MUX_CFG_MAX_LABEL, 10));
  OK(mux_config_set_u64(c, MUX_CFG_MAX_SESSIONS, 10));
  OK(mux_config_set_u64(c, MUX_CFG_CLIENT_AUTH, 2));
  OK(mux_config_set_u64(c, MUX_CFG_TLS_INSECURE, 0));
  OK(mux_config_set_option(c, "window", "32k"));
  OK(mux_config_tls_ca(c, "pem", 3, NULL));
  OK(mux_config_tls_ca_file(c, "/nonexistent", NULL));
  OK(mux_config_tls_identity(c, "pem", 3, "pem", 3, NULL));
  OK(mux_config_tls_identity_files(c, "/nonexistent", "/nonexistent", NULL));
  OK(mux_config_tls_server_name(c, "example.net"));
  OK(mux_config_tls_pin_sha256(c, (const uint8_t *)"0123456789abcdef0123456789abcdef", 32));
  OK(mux_config_alpn(c, "one,two"));
  struct pair p = connect_with(listen_url, c);
  /* Two channels may be open; the third is refused, safe to retry. */
  mux_channel two[2];
  OK(mux_channel_open(p.client, NULL, SOON, &two[0]));
  OK(mux_channel_open(p.client, NULL, SOON, &two[1]));
  mux_status st = mux_channel_open(p.client, NULL, 200, &ch);
  if (st == MUX_OK) {
    char byte;
    mux_error e;
    EQ(mux_read(ch, &byte, 1, 0, SOON), MUX_EREFUSED);
    no_error(&e);
    EQ(mux_cause(ch.h, &e), MUX_EREFUSED);
    EQ(e.retry_safe, 1);
    OK(mux_close(ch.h));
  } else {
    EQ(st, MUX_TIMEDOUT); /* the peer's open credit is used up */
  }
  OK(mux_close(two[0].h));
  OK(mux_close(two[1].h));
  OK(mux_close(c.h));
  disconnect(p);
}

/* Options that only one backend knows are set by name too; the backend checks them. */
static void backend_options(const char *listen_url) {
  mux_config c;
  mux_session s;
  mux_error e;
  uint64_t caps;
  OK(mux_config_new(&c));
  OK(mux_config_set_option(c, "ext", "off"));
  struct pair p = connect_with(listen_url, c);
  OK(mux_session_caps(p.client, &caps));
  EQ(caps & (MUX_CAP_LABEL | MUX_CAP_RESET_CODE), 0); /* the plain wire */
  disconnect(p);
  OK(mux_config_set_option(c, "ext", "maybe"));
  no_error(&e);
  EQ(mux_dial("qmux://127.0.0.1:1", c, SOON, &s, &e), MUX_EINVAL);
  CHECK(strstr(e.message, "maybe") != NULL);
  EQ(mux_dial("h2c://127.0.0.1:1", c, SOON, &s, &e), MUX_EREFUSED); /* not its option */
  EQ(mux_config_set_option(c, "extension", "off"), MUX_EURL);
  OK(mux_close(c.h));
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  EQ(mux_version() >> 16, 0);
  CHECK(mux_version() > 0);
  EQ(mux_abi() >> 16, 0);
  CHECK(strstr(mux_build_info(), "qmux") != NULL);
  connecting(argv[1]);
  silent_peer();
  facts(argv[1]);
  draining(argv[1]);
  runtimes(argv[1]);
  configuration(argv[1]);
  backend_options(argv[1]);
  finish_test();
  return 0;
}
