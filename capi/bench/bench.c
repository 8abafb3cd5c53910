/* The benchmark in C: one of the two processes of a run of 'mux bench --api c', which starts it and talks with it by lines,
 * as with the workers in Rust (cli/src/bench/worker.rs). Every channel has a thread at each end, which blocks.
 *
 *   mux-bench-c server|client --backend SCHEME --scenario NAME --at WHERE [--seconds S] [--warm-up S] [--option NAME=VALUE]...
 *   mux-bench-c calls NAME URL [SECONDS]     what one call costs, in nanoseconds; NAME is c-read, c-write, c-event or c-open */
#include "bench.h"

#include <sys/resource.h>

atomic_uint_fast64_t moved;

static pthread_mutex_t speaking = PTHREAD_MUTEX_INITIALIZER;
static atomic_int phase; /* 0 warms up, 1 measures, 2 stops */

_Noreturn static void tell_and_end(const char *what, const char *text) {
  pthread_mutex_lock(&speaking);
  printf("{\"%s\":\"", what);
  for (; *text; text++)
    if (*text == '"' || *text == '\\' || (unsigned char)*text < ' ') putchar(' ');
    else putchar(*text);
  printf("\"}\n");
  fflush(stdout);
  _exit(0);
}

void fail(const char *doing, mux_handle h, int64_t status) {
  mux_error e = {.struct_size = sizeof e};
  char text[512];
  int known = mux_cause(h, &e) == (mux_status)status && status != MUX_OK;
  snprintf(text, sizeof text, "%s: %s", doing, known ? e.message : mux_status_text((mux_status)status));
  tell_and_end("Failed", text);
}

void skip(const char *why) { tell_and_end("Skipped", why); }

static void say(const char *word) {
  pthread_mutex_lock(&speaking);
  printf("%s\n", word);
  fflush(stdout);
  pthread_mutex_unlock(&speaking);
}

/* A moment in the life of this process. */
struct moment {
  double at, cpu;
  uint64_t count, rss, peak;
};

static uint64_t kib(const char *status, const char *field) {
  const char *at = strstr(status, field);
  return at == NULL ? 0 : strtoull(at + strlen(field), NULL, 10) * 1024;
}

static struct moment now(void) {
  struct moment m = {clock_s(CLOCK_MONOTONIC), clock_s(CLOCK_PROCESS_CPUTIME_ID), moved, 0, 0};
  char status[4096] = "";
  FILE *file = fopen("/proc/self/status", "r");
  if (file != NULL) {
    status[fread(status, 1, sizeof status - 1, file)] = 0;
    fclose(file);
  }
  m.rss = kib(status, "VmRSS:");
  m.peak = kib(status, "VmHWM:");
  return m;
}

static void report(struct moment a, struct moment b, const char *latency) {
  char line[512];
  snprintf(line, sizeof line,
           "{\"Report\":{\"count\":%llu,\"elapsed_s\":%.9f,\"cpu_s\":%.9f,\"rss_peak\":%llu,\"rss_grown\":%llu,"
           "\"budget\":0,\"latency\":%s}}",
           (unsigned long long)(b.count - a.count), b.at - a.at, b.cpu - a.cpu, (unsigned long long)b.peak,
           (unsigned long long)(b.rss > a.rss ? b.rss - a.rss : 0), latency);
  say(line);
}

/* The parent's next word; it hung up: all is done. */
static char hear(void) {
  char line[64];
  if (fgets(line, sizeof line, stdin) == NULL) _exit(0);
  return line[0];
}

mux_listener listen_at(const char *url, mux_config c) {
  mux_error e = {.struct_size = sizeof e};
  mux_listener l;
  if (mux_listen(url, c, 10000, &l, &e) != MUX_OK) tell_and_end("Failed", e.message);
  return l;
}

mux_session dial_at(const char *url, mux_config c) {
  mux_error e = {.struct_size = sizeof e};
  mux_session s;
  if (mux_dial(url, c, 10000, &s, &e) != MUX_OK) tell_and_end("Failed", e.message);
  return s;
}

static void start(void *(*run)(void *), void *arg) {
  pthread_t thread;
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attr, 256 * 1024);
  if (pthread_create(&thread, &attr, run, arg) != 0) fail("thread", 0, MUX_ENOMEM);
}

static void *boxed(mux_channel ch) {
  mux_channel *box = malloc(sizeof *box);
  if (box == NULL) abort();
  *box = ch;
  return box;
}

static mux_channel unboxed(void *box) {
  mux_channel ch = *(mux_channel *)box;
  free(box);
  return ch;
}

/* What a scenario does: 's' streams, 'p' plays pingpong, 'c' churns, 'i' holds, 0 none of these. */
static char kind_of(const char *name, int *channels, size_t *size) {
  *channels = 1;
  *size = BULK;
  if (strcmp(name, "bulk1") == 0) return 's';
  if (strcmp(name, "bulk100") == 0) return *channels = 100, 's';
  if (strcmp(name, "small") == 0) return *size = SMALL, 's';
  if (strcmp(name, "rr64") == 0) return *channels = 64, 'p';
  if (strncmp(name, "pingpong", 8) == 0) {
    if (name[8] == ':') *channels = atoi(name + 9);
    return 'p';
  }
  if (strcmp(name, "churn") == 0) return 'c';
  if (strcmp(name, "churn64") == 0) return *channels = 64, 'c';
  if (strncmp(name, "idle:", 5) == 0) return *channels = atoi(name + 5), 'i';
  return 0;
}

/* ---- the server ---- */

static void *count_bytes(void *arg) {
  mux_channel ch = unboxed(arg);
  char *buf = malloc(BULK);
  int64_t n;
  while ((n = mux_read(ch, buf, BULK, 0, MUX_FOREVER)) > 0) moved += (uint64_t)n;
  if (n < 0) fail("read", ch.h, n);
  return NULL;
}

static void *echo(void *arg) {
  mux_channel ch = unboxed(arg);
  char buf[ECHO_READ];
  int64_t n;
  while ((n = mux_read(ch, buf, sizeof buf, 0, MUX_FOREVER)) > 0) {
    mux_status st = mux_write_all(ch, buf, (size_t)n, 0, MUX_FOREVER, NULL);
    if (st != MUX_OK) fail("write", ch.h, st);
  }
  if (n < 0) fail("read", ch.h, n);
  mux_finish(ch);
  mux_close(ch.h);
  return NULL;
}

static char serving;

static void *serve(void *arg) {
  mux_listener l = *(mux_listener *)arg;
  mux_session s;
  mux_channel ch;
  mux_status st = mux_accept(l, MUX_FOREVER, &s, NULL);
  if (st != MUX_OK) fail("accept", l.h, st);
  while ((st = mux_channel_accept(s, MUX_FOREVER, &ch)) == MUX_OK) {
    if (serving == 'i') moved++;
    else start(serving == 's' ? count_bytes : echo, boxed(ch));
  }
  fail("accept", s.h, st);
}

static void run_server(const struct plan *plan, mux_config c, int channels) {
  char url[1024], real[600], line[700];
  mux_listener l;
  snprintf(url, sizeof url, "%s%s", plan->at, plan->options);
  l = listen_at(url, c);
  mux_info(l.h, MUX_INFO_URL, real, sizeof real);
  snprintf(line, sizeof line, "{\"Listening\":\"%s\"}", real);
  say(line);
  if (serving != 'f') start(serve, &l);
  struct moment begin = now();
  for (;;) {
    char word = hear();
    if (word == 'b') {
      begin = now();
    } else {
      while (serving == 'i' && moved < (uint64_t)channels) sleep_s(0.005);
      report(begin, now(), "null");
    }
  }
}

/* ---- the client ---- */

struct traffic {
  mux_session s;
  char kind;
  size_t size;
  uint32_t *samples;
  size_t count, room;
  atomic_int done;
};

static void lap(struct traffic *t, double *started) {
  double at = clock_s(CLOCK_MONOTONIC);
  moved++;
  if (phase == 1) {
    if (t->count == t->room) {
      t->room = t->room ? t->room * 2 : 4096;
      t->samples = realloc(t->samples, t->room * sizeof *t->samples);
      if (t->samples == NULL) abort();
    }
    t->samples[t->count++] = (uint32_t)((at - *started) * 1e9);
  }
  *started = at;
}

static void *drive(void *arg) {
  struct traffic *t = arg;
  mux_channel ch = {0};
  char *data = calloc(1, t->size), answer[PING];
  mux_status st = MUX_OK;
  if (t->kind != 'c' && (st = mux_channel_open(t->s, NULL, MUX_FOREVER, &ch)) != MUX_OK) fail("open", t->s.h, st);
  double started = clock_s(CLOCK_MONOTONIC);
  while (phase != 2) {
    if (t->kind == 's') {
      st = mux_write_all(ch, data, t->size, 0, MUX_FOREVER, NULL);
      if (st != MUX_OK) fail("write", ch.h, st);
      continue;
    }
    if (t->kind == 'c' && (st = mux_channel_open(t->s, NULL, MUX_FOREVER, &ch)) != MUX_OK) fail("open", t->s.h, st);
    st = mux_write_all(ch, data, PING, t->kind == 'c' ? MUX_IO_FIN : 0, MUX_FOREVER, NULL);
    if (st == MUX_OK) st = mux_read_exact(ch, answer, PING, MUX_FOREVER, NULL);
    if (st != MUX_OK) fail("round trip", ch.h, st);
    if (t->kind == 'c') {
      int64_t n = mux_read(ch, answer, PING, 0, MUX_FOREVER);
      if (n != 0) fail("the echo is longer than the message", ch.h, n);
      mux_close(ch.h);
    }
    lap(t, &started);
  }
  t->done = 1;
  return NULL;
}

static int by_size(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

/* Percentiles of all samples, as JSON. */
static void percentiles(struct traffic *t, int channels, char *out, size_t cap) {
  size_t count = 0, at = 0;
  for (int i = 0; i < channels; i++) count += t[i].count;
  uint32_t *all = malloc((count + 1) * sizeof *all);
  if (all == NULL || count == 0) {
    snprintf(out, cap, "null");
    return;
  }
  for (int i = 0; i < channels; i++) {
    memcpy(all + at, t[i].samples, t[i].count * sizeof *all);
    at += t[i].count;
  }
  qsort(all, count, sizeof *all, by_size);
  snprintf(out, cap, "{\"p50_us\":%.3f,\"p99_us\":%.3f}", all[count / 2] / 1000.0, all[count * 99 / 100] / 1000.0);
}

static void hold(mux_session s, int channels) {
  struct moment begin = now();
  say("\"Begin\"");
  for (int i = 0; i < channels; i++) {
    mux_channel ch;
    mux_status st = mux_channel_open(s, NULL, MUX_FOREVER, &ch);
    if (st != MUX_OK) fail("open", s.h, st);
    moved++;
  }
  say("\"End\"");
  hear();
  report(begin, now(), "null");
}

static void run_client(const struct plan *plan, mux_config c, int channels, size_t size) {
  char url[1024], latency[128];
  snprintf(url, sizeof url, "%s%s", plan->at, plan->options);
  if (strchr(plan->at, '?') != NULL && plan->options[0] == '?') url[strlen(plan->at)] = '&';
  mux_session s = dial_at(url, c);
  if (serving == 'i') {
    hold(s, channels);
    for (;;) hear();
  }
  struct traffic *t = calloc((size_t)channels, sizeof *t);
  if (t == NULL) abort();
  for (int i = 0; i < channels; i++) {
    t[i].s = s, t[i].kind = serving, t[i].size = size;
    start(drive, &t[i]);
  }
  sleep_s(plan->warm_up);
  struct moment begin = now();
  phase = 1;
  say("\"Begin\"");
  sleep_s(plan->seconds);
  struct moment end = now();
  say("\"End\"");
  hear();
  phase = 2;
  /* A writer may sit in a full window; it has nothing to tell, so it is not waited for. */
  for (int i = 0; serving != 's' && i < channels; i++)
    while (!t[i].done) sleep_s(0.001);
  percentiles(t, channels, latency, sizeof latency);
  report(begin, end, latency);
  for (;;) hear();
}

static void run_calls(const struct plan *plan) {
  char url[600];
  if (strcmp(plan->scheme, "quic") == 0 || strcmp(plan->scheme, "h2") == 0 || strstr(plan->scheme, "+tls") != NULL)
    skip("single calls are measured without TLS");
  snprintf(url, sizeof url, "%s://127.0.0.1:0", plan->scheme);
  if (strstr(plan->scheme, "+unix") != NULL)
    snprintf(url, sizeof url, "%s:///tmp/mux-bench-calls-%d.sock", plan->scheme, (int)getpid());
  say("\"Begin\"");
  struct cost cost = figure(plan->scenario)(url, plan->seconds);
  say("\"End\"");
  hear();
  struct moment a = {0, 0, 0, 0, 0}, b = now();
  b.at = b.cpu = cost.seconds;
  b.count = cost.count;
  report(a, b, "null");
  for (;;) hear();
}

/* The defaults, which is what users get; only masses of channels need limits raised. */
static mux_config config_for(int channels) {
  mux_config c;
  if (mux_config_new(&c) != MUX_OK) abort();
  if (serving != 'i') return c;
  mux_config_set_u64(c, MUX_CFG_MAX_CHANNELS_IN, (uint64_t)channels + 1024);
  mux_config_set_u64(c, MUX_CFG_CHANNEL_BACKLOG, (uint64_t)channels + 1024);
  mux_config_set_u64(c, MUX_CFG_SESSION_WINDOW, (uint64_t)1 << 40);
  return c;
}

int main(int argc, char **argv) {
  struct plan plan = {"", "", "", 1.0, 0.2, ""};
  if (argc >= 4 && strcmp(argv[1], "calls") == 0) {
    if (figure(argv[2]) == NULL) return 2;
    struct cost cost = figure(argv[2])(argv[3], argc > 4 ? atof(argv[4]) : 1.0);
    printf("%s %.1f ns, %llu calls\n", argv[2], cost.seconds / (double)cost.count * 1e9, (unsigned long long)cost.count);
    fflush(stdout);
    _exit(0);
  }
  if (argc < 2) return fprintf(stderr, "started by 'mux bench --api c'; or: %s calls NAME URL [SECONDS]\n", argv[0]), 2;
  for (int i = 2; i + 1 < argc; i += 2) {
    size_t at = strlen(plan.options);
    if (strcmp(argv[i], "--backend") == 0) plan.scheme = argv[i + 1];
    if (strcmp(argv[i], "--scenario") == 0) plan.scenario = argv[i + 1];
    if (strcmp(argv[i], "--at") == 0) plan.at = argv[i + 1];
    if (strcmp(argv[i], "--seconds") == 0) plan.seconds = atof(argv[i + 1]);
    if (strcmp(argv[i], "--warm-up") == 0) plan.warm_up = atof(argv[i + 1]);
    if (strcmp(argv[i], "--option") == 0)
      snprintf(plan.options + at, sizeof plan.options - at, "%c%s", at ? '&' : '?', argv[i + 1]);
  }
  int channels = 1, is_server = strcmp(argv[1], "server") == 0;
  size_t size = BULK;
  serving = figure(plan.scenario) != NULL ? 'f' : kind_of(plan.scenario, &channels, &size);
  if (serving == 0) skip("not a scenario of the benchmark in C");
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  mux_config c = config_for(channels);
  if (is_server) run_server(&plan, c, channels);
  if (serving == 'f') run_calls(&plan);
  run_client(&plan, c, channels, size);
}
