/* The C agent of the language matrix; see ../README.md. */
#include <mux.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WAIT_MS = 60000, BLOCK = 65536 };

static const uint64_t CODES[] = {0, 7, 4294967295u, UINT64_C(1) << 61};
enum { N_CODES = sizeof CODES / sizeof *CODES };

static char block_of_x[BLOCK];
static const char *current = "start";

/* A check failed: says where and why, and ends the process as a crash would. */
static void fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  printf("FAIL %s: ", current);
  vprintf(format, args);
  puts("");
  fflush(stdout);
  exit(1);
}

static void must(const char *doing, int64_t status) {
  if (status < 0) fail("%s: %s (%d)", doing, mux_status_text((mux_status)status), (int)status);
}

static uint64_t code_of(mux_channel ch) {
  mux_error e = {.struct_size = sizeof e};
  mux_cause(ch.h, &e);
  return e.code;
}

/* ---- the serving end ---- */

static void echo_back(mux_channel ch) {
  char buf[BLOCK];
  size_t done;
  int64_t n;
  while ((n = mux_read(ch, buf, sizeof buf, 0, WAIT_MS)) > 0)
    must("echo", mux_write_all(ch, buf, (size_t)n, 0, WAIT_MS, &done));
  if (n < 0)
    mux_abort(ch, 1);
  else
    mux_close(ch.h);
}

/* Reads to the end; the number of bytes, or the status that ended it. */
static int64_t read_away(mux_channel ch) {
  char buf[BLOCK];
  int64_t n, total = 0;
  while ((n = mux_read(ch, buf, sizeof buf, 0, WAIT_MS)) > 0) total += n;
  return n < 0 ? n : total;
}

/* Writes until it fails; the status that ended it. */
static int64_t write_until_failure(mux_channel ch) {
  int64_t n;
  while ((n = mux_write(ch, block_of_x, BLOCK, 0, WAIT_MS)) > 0) {}
  return n;
}

static void answer(mux_channel ch, const char *text) {
  size_t done;
  must("answer", mux_write_all(ch, text, strlen(text), MUX_IO_FIN, WAIT_MS, &done));
}

static void *serve_channel(void *arg) {
  mux_channel ch = {*(mux_handle *)arg};
  char label[1025], text[64];
  free(arg);
  int64_t len = mux_info(ch.h, MUX_INFO_LABEL, label, sizeof label - 1);
  must("label", len);
  label[len] = 0;
  if (len == 0 || !strcmp(label, "echo") || !strcmp(label, "many")) {
    echo_back(ch);
    return NULL;
  }
  if (!strcmp(label, "hello")) {
    answer(ch, "hello");
    read_away(ch);
  } else if (!strncmp(label, "label:", 6)) {
    size_t done;
    must("label", mux_write_all(ch, label, (size_t)len, MUX_IO_FIN, WAIT_MS, &done));
    read_away(ch);
  } else if (!strcmp(label, "halfclose")) {
    snprintf(text, sizeof text, "%" PRId64, read_away(ch));
    answer(ch, text);
  } else if (!strcmp(label, "sink")) {
    must("finish", mux_finish(ch));
    must("sink", read_away(ch));
  } else if (!strncmp(label, "reset:", 6)) {
    size_t done;
    must("partial", mux_write_all(ch, "partial", 7, 0, WAIT_MS, &done));
    must("reset", mux_reset(ch, strtoull(label + 6, NULL, 10)));
    read_away(ch);
  } else if (!strcmp(label, "seereset")) {
    int64_t n = read_away(ch);
    if (n == MUX_ERESET)
      snprintf(text, sizeof text, "reset %" PRIu64, code_of(ch));
    else
      snprintf(text, sizeof text, n < 0 ? "failed" : "end");
    answer(ch, text);
  } else if (!strncmp(label, "stop:", 5)) {
    // In this order: a peer that sees the stop may end the channel before anything else is said here.
    must("finish", mux_finish(ch));
    must("stop", mux_stop(ch, strtoull(label + 5, NULL, 10)));
  } else if (!strcmp(label, "seestop")) {
    uint64_t code = write_until_failure(ch) == MUX_ESTOPPED ? code_of(ch) : 99;
    must("stop", mux_stop(ch, code));
  } else if (!strcmp(label, "endless")) {
    write_until_failure(ch);
  } else {
    mux_abort(ch, 404);
  }
  mux_close(ch.h);
  return NULL;
}

static void serve(mux_session s) {
  mux_channel ch;
  mux_status status;
  while ((status = mux_channel_accept(s, MUX_FOREVER, &ch)) == MUX_OK) {
    mux_handle *arg = malloc(sizeof *arg);
    pthread_t thread;
    if (!arg) fail("no memory");
    *arg = ch.h;
    if (pthread_create(&thread, NULL, serve_channel, arg) != 0) fail("no thread");
    pthread_detach(thread);
  }
  mux_error e = {.struct_size = sizeof e};
  mux_cause(s.h, &e);
  static const char *const by[] = {"?", "local", "peer", "transport", "os"};
  if (status != MUX_ECLOSED) fail("accept: %s", e.message);
  printf("closed code=%" PRIu64 " by=%s\n", e.code, by[e.origin <= MUX_BY_OS ? e.origin : 0]);
  mux_close(s.h);
}

/* ---- the driving end ---- */

static mux_channel open_channel(mux_session s, const void *label, size_t len, uint32_t urgency) {
  mux_open_opts opts = {.struct_size = sizeof opts, .label = label, .label_len = len, .urgency = urgency};
  mux_channel ch;
  must("open", mux_channel_open(s, &opts, WAIT_MS, &ch));
  return ch;
}

static mux_channel open_coded(mux_session s, const char *what, uint64_t code) {
  char label[64];
  snprintf(label, sizeof label, "%s:%" PRIu64, what, code);
  return open_channel(s, label, strlen(label), 0);
}

static void expect(mux_channel ch, const void *want, size_t len) {
  char got[2048];
  size_t at = 0;
  int64_t n;
  while ((n = mux_read(ch, got + at, sizeof got - at, 0, WAIT_MS)) > 0) at += (size_t)n;
  must("read", n);
  if (at != len || memcmp(got, want, len) != 0)
    fail("got '%.*s', not '%.*s'", (int)at, got, (int)len, (const char *)want);
  if (mux_read(ch, got, 1, 0, WAIT_MS) != 0) fail("the end did not stay the end");
}

static uint64_t xorshift(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  return *state ^= *state << 17;
}

static uint64_t fnv1a(uint64_t hash, const char *data, size_t len) {
  while (len--) hash = (hash ^ (unsigned char)*data++) * UINT64_C(0x100000001b3);
  return hash;
}

/* One thread, never blocked by either direction: writes while it can, reads while there is something. */
static void drive_echo(mux_session s) {
  const uint64_t total = UINT64_C(64) << 20;
  static char out[BLOCK], in[BLOCK];
  uint64_t sent = 0, received = 0, seed = UINT64_C(88172645463325252);
  uint64_t hash_out = UINT64_C(0xcbf29ce484222325), hash_in = hash_out;
  size_t have = 0, at = 0;
  mux_channel ch = open_channel(s, "echo", 4, 0);
  for (int ended = 0; !ended;) {
    uint32_t interest = MUX_EV_READ, ready;
    if (sent < total) {
      if (at == have) {
        for (size_t i = 0; i < BLOCK; i += 8) {
          uint64_t word = xorshift(&seed);
          memcpy(out + i, &word, 8);
        }
        have = BLOCK, at = 0;
        hash_out = fnv1a(hash_out, out, have);
      }
      int64_t n = mux_write(ch, out + at, have - at, 0, MUX_NOWAIT);
      if (n > 0)
        sent += (uint64_t)n, at += (size_t)n;
      else if (n != MUX_AGAIN)
        must("write", n);
      else
        interest |= MUX_EV_WRITE;
      if (sent == total) must("finish", mux_finish(ch));
    }
    int64_t n = mux_read(ch, in, sizeof in, 0, MUX_NOWAIT);
    if (n > 0)
      received += (uint64_t)n, hash_in = fnv1a(hash_in, in, (size_t)n);
    else if (n == 0)
      ended = 1;
    else if (n != MUX_AGAIN)
      must("read", n);
    else if (sent == total || (interest & MUX_EV_WRITE))
      must("wait", mux_wait(ch.h, interest, WAIT_MS, &ready));
  }
  if (received != total) fail("%" PRIu64 " bytes came back", received);
  if (hash_in != hash_out) fail("the hash differs");
  mux_close(ch.h);
}

static void drive_line(mux_session s, const char *label, uint32_t urgency) {
  mux_channel ch = open_channel(s, label, strlen(label), urgency);
  size_t done;
  must("write", mux_write_all(ch, "a line", 6, MUX_IO_FIN, WAIT_MS, &done));
  expect(ch, "a line", 6);
  mux_close(ch.h);
}

static void drive_nolabel(mux_session s) { drive_line(s, "", 0); }
static void drive_urgency(mux_session s) { drive_line(s, "echo", 1); }

static void drive_many(mux_session s) {
  mux_channel ch[64];
  char text[64][16];
  size_t done;
  for (int i = 0; i < 64; i++) ch[i] = open_channel(s, "many", 4, 0);
  for (int i = 63; i >= 0; i--) {
    snprintf(text[i], sizeof text[i], "channel %d", i);
    must("write", mux_write_all(ch[i], text[i], strlen(text[i]), MUX_IO_FIN, WAIT_MS, &done));
  }
  for (int i = 0; i < 64; i++) expect(ch[i], text[i], strlen(text[i])), mux_close(ch[i].h);
}

static void drive_hello(mux_session s) {
  mux_channel ch = open_channel(s, "hello", 5, 0);
  expect(ch, "hello", 5);
  mux_close(ch.h);
}

static void drive_label(mux_session s) {
  char label[1024] = "label:";
  for (size_t i = 6; i < sizeof label; i++) label[i] = (char)i;
  mux_channel ch = open_channel(s, label, sizeof label, 0);
  expect(ch, label, sizeof label);
  mux_close(ch.h);
}

static void drive_halfclose(mux_session s) {
  mux_channel ch = open_channel(s, "halfclose", 9, 0);
  size_t done;
  must("write", mux_write_all(ch, block_of_x, 10000, 0, WAIT_MS, &done));
  must("finish", mux_finish(ch));
  if (mux_write(ch, "x", 1, 0, 0) != MUX_EFINISHED) fail("a write after finish was taken");
  expect(ch, "10000", 5);
  mux_close(ch.h);
}

static void drive_sink(mux_session s) {
  mux_channel ch = open_channel(s, "sink", 4, 0);
  size_t done;
  expect(ch, "", 0);
  for (int i = 0; i < 32; i++) must("write", mux_write_all(ch, block_of_x, BLOCK, 0, WAIT_MS, &done));
  must("finish", mux_finish(ch));
  mux_close(ch.h);
}

static void drive_reset(mux_session s) {
  for (int i = 0; i < N_CODES; i++) {
    mux_channel ch = open_coded(s, "reset", CODES[i]);
    int64_t n = read_away(ch);
    if (n != MUX_ERESET || code_of(ch) != CODES[i]) fail("status %d, code %" PRIu64, (int)n, code_of(ch));
    mux_close(ch.h);
  }
}

static void drive_seereset(mux_session s) {
  for (int i = 0; i < N_CODES; i++) {
    char want[64];
    size_t done;
    mux_channel ch = open_channel(s, "seereset", 8, 0);
    must("write", mux_write_all(ch, "partial", 7, 0, WAIT_MS, &done));
    must("reset", mux_reset(ch, CODES[i]));
    snprintf(want, sizeof want, "reset %" PRIu64, CODES[i]);
    expect(ch, want, strlen(want));
    mux_close(ch.h);
  }
}

static void drive_stop(mux_session s) {
  for (int i = 0; i < N_CODES; i++) {
    mux_channel ch = open_coded(s, "stop", CODES[i]);
    int64_t n = write_until_failure(ch);
    if (n != MUX_ESTOPPED || code_of(ch) != CODES[i]) fail("status %d, code %" PRIu64, (int)n, code_of(ch));
    mux_close(ch.h);
  }
}

static void drive_seestop(mux_session s) {
  for (int i = 0; i < N_CODES; i++) {
    char byte;
    mux_channel ch = open_channel(s, "seestop", 7, 0);
    must("read", mux_read(ch, &byte, 1, 0, WAIT_MS));
    must("stop", mux_stop(ch, CODES[i]));
    int64_t n = write_until_failure(ch);
    if (n != MUX_ESTOPPED || code_of(ch) != CODES[i]) fail("status %d, code %" PRIu64, (int)n, code_of(ch));
    mux_close(ch.h);
  }
}

static void drive_endless(mux_session s) {
  mux_channel ch = open_channel(s, "endless", 7, 0);
  char byte;
  must("read", mux_read(ch, &byte, 1, 0, WAIT_MS));
  puts("reading");
  fflush(stdout);
  printf("ended %d\n", (int)read_away(ch));
}

static void drive_handles(mux_session s) {
  mux_channel ch = open_channel(s, "echo", 4, 0), zero = {0}, wrong = {s.h};
  mux_listener not_a_listener = {ch.h};
  mux_session out;
  char byte;
  mux_close(ch.h);
  if (mux_read(ch, &byte, 1, 0, 0) != MUX_EHANDLE) fail("read on a closed channel");
  if (mux_close(ch.h) != MUX_EHANDLE) fail("second close");
  if (mux_write(zero, "x", 1, 0, 0) != MUX_EHANDLE) fail("write on handle 0");
  if (mux_read(wrong, &byte, 1, 0, 0) != MUX_EKIND) fail("read on a session");
  if (mux_accept(not_a_listener, 0, &out, NULL) != MUX_EHANDLE) fail("accept on a closed channel");
  drive_line(s, "echo", 0);
}

static const struct check {
  const char *name;
  void (*run)(mux_session);
  int named_only;
} CHECKS[] = {
    {"echo", drive_echo, 0},         {"nolabel", drive_nolabel, 0},   {"urgency", drive_urgency, 0},
    {"many", drive_many, 0},         {"hello", drive_hello, 0},       {"label", drive_label, 0},
    {"halfclose", drive_halfclose, 0}, {"sink", drive_sink, 0},       {"reset", drive_reset, 0},
    {"seereset", drive_seereset, 0}, {"stop", drive_stop, 0},         {"seestop", drive_seestop, 0},
    {"endless", drive_endless, 1},   {"handles", drive_handles, 1},
};

static void drive(mux_session s, int n_names, char **names) {
  for (size_t i = 0; i < sizeof CHECKS / sizeof *CHECKS; i++) {
    int wanted = n_names == 0 && !CHECKS[i].named_only;
    for (int j = 0; j < n_names; j++) wanted |= !strcmp(names[j], CHECKS[i].name);
    if (!wanted) continue;
    current = CHECKS[i].name;
    CHECKS[i].run(s);
    printf("ok %s\n", current);
    fflush(stdout);
  }
  current = "close";
  uint32_t ready;
  mux_shutdown(s.h, 5, "bye");
  must("wait", mux_wait(s.h, MUX_EV_CLOSED, WAIT_MS, &ready));
  mux_close(s.h);
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  mux_runtime default_runtime = {0};
  mux_config defaults = {0};
  mux_listener listener = {0};
  mux_session s;
  mux_error e = {.struct_size = sizeof e};
  mux_status status;
  memset(block_of_x, 'x', sizeof block_of_x);
  if (!strcmp(argv[1], "listen")) {
    status = mux_listen(argv[2], defaults, WAIT_MS, &listener, &e);
    if (status == MUX_OK) {
      char url[1024];
      int64_t len = mux_info(listener.h, MUX_INFO_URL, url, sizeof url);
      must("url", len);
      printf("%.*s\n", (int)len, url);
      fflush(stdout);
      status = mux_accept(listener, WAIT_MS, &s, &e);
    }
  } else {
    status = mux_dial(argv[2], defaults, MUX_FOREVER, &s, &e);
  }
  if (status != MUX_OK) {
    printf("error %d %s\n", (int)status, e.message);
    return 3;
  }
  if (!strcmp(argv[3], "serve"))
    serve(s);
  else
    drive(s, argc - 4, argv + 4);
  if (listener.h) mux_close(listener.h);
  must("runtime shutdown", mux_runtime_shutdown(default_runtime, WAIT_MS));
  return 0;
}
