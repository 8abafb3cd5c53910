/* TLS through the C calls: who is trusted and who is not, and what is said about it. */
#include "t.h"

static char scheme[16]; /* "quic", "h2" or "qmux+tls" */

static const char *path(const char *name) {
  static char text[8][512];
  static int next;
  char *to = text[next++ % 8];
  snprintf(to, 512, "%s/%s", certs(), name);
  return to;
}

static size_t contents(const char *name, char *buf, size_t cap) {
  FILE *file = fopen(path(name), "rb");
  CHECK(file != NULL);
  size_t n = fread(buf, 1, cap, file);
  CHECK(n > 0 && n < cap);
  buf[n] = 0;
  fclose(file);
  return n;
}

static mux_config config(void) {
  mux_config c;
  OK(mux_config_new(&c));
  return c;
}

static mux_config serving(void) {
  mux_config c = config();
  OK(mux_config_tls_identity_files(c, path("server.pem"), path("server.key"), NULL));
  return c;
}

static mux_listener serve(mux_config c) {
  char url[64];
  mux_listener l;
  mux_error e;
  no_error(&e);
  snprintf(url, sizeof url, "%s://127.0.0.1:0", scheme);
  if (mux_listen(url, c, SOON, &l, &e) != MUX_OK) {
    fprintf(stderr, "listen: %s\n", e.message);
    exit(1);
  }
  return l;
}

/* Dials as `host`; the status, and what was said. */
static mux_status dial(mux_listener l, const char *host, mux_config c, mux_session *s, mux_error *e) {
  char url[128], text[128];
  CHECK(mux_info(l.h, MUX_INFO_URL, url, sizeof url) > 0);
  snprintf(text, sizeof text, "%s://%s%s", scheme, host, strrchr(url, ':'));
  no_error(e);
  mux_status st = mux_dial(text, c, SOON, s, e);
  EQ(e->status, st);
  return st;
}

/* A dial that must fail so, with these words among what is said. */
static void refused(mux_listener l, const char *host, mux_config c, mux_status status, const char *words) {
  mux_session s = {0};
  mux_error e;
  mux_status st = dial(l, host, c, &s, &e);
  if (st != status || !strstr(e.message, words))
    fprintf(stderr, "dial %s: %s (%d); expected %s, and '%s' in it\n", host, e.message, st, mux_status_text(status), words);
  EQ(st, status);
  CHECK(strstr(e.message, words) != NULL);
  EQ(s.h, 0);
}

/* A dial that must succeed: both sessions, with a channel's worth of bytes through them. */
static struct pair trusted(mux_listener l, const char *host, mux_config c) {
  struct pair p = {l, {0}, {0}};
  mux_channel a, b;
  mux_error e;
  char buf[4];
  if (dial(l, host, c, &p.client, &e) != MUX_OK) {
    fprintf(stderr, "dial: %s\n", e.message);
    exit(1);
  }
  OK(mux_accept(l, SOON, &p.server, NULL));
  channel_between(p.client, p.server, &a, &b);
  OK(mux_write_all(a, "safe", 4, MUX_IO_FIN, SOON, NULL));
  OK(mux_read_exact(b, buf, 4, SOON, NULL));
  OK(mux_close(a.h));
  OK(mux_close(b.h));
  return p;
}

static void end(struct pair p, mux_config c) {
  OK(mux_close(p.client.h));
  OK(mux_close(p.server.h));
  OK(mux_close(c.h));
}

static void authorities(void) {
  mux_config sc = serving(), c = config();
  mux_listener l = serve(sc);
  char pem[16384], text[256];

  OK(mux_config_tls_ca_file(c, path("ca.pem"), NULL));
  struct pair p = trusted(l, "localhost", c);
  CHECK(mux_info(p.client.h, MUX_INFO_TLS, text, sizeof text) > 0);
  CHECK(strstr(text, "1.3") || strstr(text, "1.2"));
  CHECK(mux_info(p.client.h, MUX_INFO_ALPN, text, sizeof text) > 0);
  char der[8192], want[8192];
  int64_t n = mux_info(p.client.h, MUX_INFO_PEER_CERT_DER, der, sizeof der);
  CHECK(n > 0 && (size_t)n == contents("server.der", want, sizeof want) && memcmp(der, want, (size_t)n) == 0);
  EQ(mux_info(p.server.h, MUX_INFO_PEER_CERT_DER, der, sizeof der), 0); /* nobody asked the client */
  char hash[33], want_hash[33];
  EQ(contents("server.sha256", want_hash, sizeof want_hash), 32);
  EQ(mux_info(p.client.h, MUX_INFO_PEER_CERT_SHA256, hash, sizeof hash), 32);
  CHECK(memcmp(hash, want_hash, 32) == 0);
  EQ(mux_info(p.server.h, MUX_INFO_PEER_CERT_SHA256, hash, sizeof hash), 0);
  end(p, c);

  c = config();
  OK(mux_config_tls_ca(c, pem, contents("ca.pem", pem, sizeof pem), NULL)); /* from memory */
  end(trusted(l, "127.0.0.1", c), c);

  c = config();
  OK(mux_config_tls_ca_file(c, path("other.pem"), NULL));
  refused(l, "localhost", c, MUX_ECERT, "certificate");
  OK(mux_close(c.h));
  refused(l, "localhost", defaults, MUX_ECERT, "certificate"); /* the platform does not know it */

  c = config();
  OK(mux_config_tls_ca_file(c, path("nothing.pem"), NULL));
  refused(l, "localhost", c, MUX_EOS, "nothing.pem");
  OK(mux_close(c.h));
  c = config();
  OK(mux_config_tls_ca(c, "no certificate", 14, NULL));
  refused(l, "localhost", c, MUX_EINVAL, "certificate");
  OK(mux_close(c.h));
  OK(mux_close(l.h));
  OK(mux_close(sc.h));
}

static void names(void) {
  mux_config sc = serving(), c = config();
  mux_listener l = serve(sc);
  OK(mux_config_tls_ca_file(c, path("ca.pem"), NULL));
  OK(mux_config_tls_server_name(c, "example.net")); /* not what the certificate says */
  refused(l, "127.0.0.1", c, MUX_ECERT, "example.net");
  OK(mux_config_tls_server_name(c, "localhost"));
  end(trusted(l, "127.0.0.1", c), c);
  OK(mux_close(l.h));
  OK(mux_close(sc.h));
}

static void pins(void) {
  mux_config sc = serving(), c = config();
  mux_listener l = serve(sc);
  char right[64], wrong[32] = {1};
  EQ(contents("server.sha256", right, sizeof right), 32);
  OK(mux_config_tls_pin_sha256(c, (const uint8_t *)wrong, 32));
  refused(l, "localhost", c, MUX_ECERT, "pin");
  OK(mux_config_tls_pin_sha256(c, (const uint8_t *)right, 32)); /* one of several is enough */
  end(trusted(l, "127.0.0.1", c), c);

  c = config(); /* the same as an option's text */
  char text[128] = "sha256:";
  for (int i = 0; i < 32; i++) snprintf(text + 7 + 2 * i, 3, "%02x", (unsigned char)right[i]);
  OK(mux_config_set_option(c, "pin", text));
  OK(mux_config_tls_server_name(c, "example.net")); /* a pin replaces the check of the name */
  end(trusted(l, "127.0.0.1", c), c);

  c = config();
  OK(mux_config_set_u64(c, MUX_CFG_TLS_INSECURE, 1));
  end(trusted(l, "127.0.0.1", c), c);
  OK(mux_close(l.h));
  OK(mux_close(sc.h));
}

/* What a listener's identity must be. */
static void identities(void) {
  mux_config c = config();
  mux_listener l;
  mux_error e;
  char url[64], cert[16384], key[16384];
  snprintf(url, sizeof url, "%s://127.0.0.1:0", scheme);
  size_t cert_len = contents("server.pem", cert, sizeof cert), key_len = contents("server.key", key, sizeof key);

  no_error(&e);
  EQ(mux_listen(url, defaults, SOON, &l, &e), MUX_EINVAL);
  CHECK(strstr(e.message, "certificate") != NULL);
  OK(mux_config_tls_identity_files(c, path("nothing.pem"), path("server.key"), NULL));
  EQ(mux_listen(url, c, SOON, &l, &e), MUX_EOS);
  CHECK(strstr(e.message, "nothing.pem") != NULL && e.os_errno == ENOENT);
  OK(mux_config_tls_identity_files(c, path("server.pem"), path("client.key"), NULL));
  EQ(mux_listen(url, c, SOON, &l, &e), MUX_EINVAL);
  CHECK(strstr(e.message, "key") != NULL);
  OK(mux_close(c.h));

  c = config();
  OK(mux_config_tls_identity(c, "nonsense", 8, key, key_len, NULL));
  EQ(mux_listen(url, c, SOON, &l, &e), MUX_EINVAL);
  CHECK(strstr(e.message, "certificate") != NULL);
  OK(mux_config_tls_identity(c, cert, cert_len, key, key_len, NULL)); /* from memory */
  memset(cert, 0, sizeof cert); /* it was copied */
  memset(key, 0, sizeof key);
  l = serve(c);
  OK(mux_close(c.h));
  c = config();
  OK(mux_config_tls_ca_file(c, path("ca.pem"), NULL));
  end(trusted(l, "localhost", c), c);
  OK(mux_close(l.h));
}

/* What a listener asks of its clients. */
static void clients(void) {
  mux_config sc = serving(), c = config();
  char der[8192], want[8192];
  OK(mux_config_set_u64(sc, MUX_CFG_CLIENT_AUTH, 2));
  OK(mux_config_tls_ca_file(sc, path("ca.pem"), NULL));
  mux_listener l = serve(sc);
  OK(mux_config_tls_ca_file(c, path("ca.pem"), NULL));
  refused(l, "localhost", c, MUX_ECERT, "certificate"); /* none presented */
  OK(mux_config_tls_identity_files(c, path("client.pem"), path("client.key"), NULL));
  struct pair p = trusted(l, "localhost", c);
  int64_t n = mux_info(p.server.h, MUX_INFO_PEER_CERT_DER, der, sizeof der);
  CHECK(n > 0 && (size_t)n == contents("client.der", want, sizeof want) && memcmp(der, want, (size_t)n) == 0);
  end(p, c);
  c = config();
  OK(mux_config_tls_ca_file(c, path("ca.pem"), NULL));
  OK(mux_config_tls_identity_files(c, path("other.pem"), path("other.key"), NULL)); /* of another authority */
  refused(l, "localhost", c, MUX_ECERT, "certificate");
  OK(mux_close(c.h));
  /* Nobody who was refused was accepted. */
  mux_session s;
  EQ(mux_accept(l, 100, &s, NULL), MUX_TIMEDOUT);
  OK(mux_close(l.h));
  OK(mux_close(sc.h));
}

static void protocols(void) {
  mux_config sc = serving(), c = config();
  mux_listener l = serve(sc);
  OK(mux_config_tls_ca_file(c, path("ca.pem"), NULL));
  OK(mux_config_alpn(c, "some/1,other/2"));
  refused(l, "localhost", c, MUX_EALPN, "protocol");
  OK(mux_close(c.h));
  OK(mux_close(l.h));
  OK(mux_close(sc.h));
}

/* A dial that does not wait tells the same by its session's cause. */
static void later(void) {
  mux_config sc = serving();
  mux_listener l = serve(sc);
  mux_session s;
  mux_error e;
  uint32_t ready;
  char url[128];
  CHECK(mux_info(l.h, MUX_INFO_URL, url, sizeof url) > 0);
  no_error(&e);
  mux_status st = mux_dial(url, defaults, MUX_NOWAIT, &s, &e);
  /* Unless it was over before the call was. */
  if (st != MUX_ECERT) {
    OK(st);
    OK(mux_wait(s.h, MUX_EV_CONNECTED, SOON, &ready));
    EQ(ready, MUX_EV_CONNECTED | MUX_EV_CLOSED);
    EQ(mux_cause(s.h, &e), MUX_ECERT);
  }
  CHECK(strstr(e.message, "certificate") != NULL);
  if (st != MUX_ECERT) OK(mux_close(s.h));
  OK(mux_close(l.h));
  OK(mux_close(sc.h));
}

int main(int argc, char **argv) {
  CHECK(argc == 2 && is_tls(argv[1]));
  size_t length = strcspn(argv[1], ":");
  CHECK(length < sizeof scheme);
  memcpy(scheme, argv[1], length);
  authorities();
  names();
  pins();
  identities();
  clients();
  protocols();
  later();
  finish_test();
  return 0;
}
