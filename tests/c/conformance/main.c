/* Runs the scenarios on one wire and prints a table; the exit status is 0 if all passed.
 *   conformance URL [NAME...]
 * Each runs in a process of its own, so that one that fails, hangs or crashes leaves the others alone. This process never
 * calls the library. */
#include "conform.h"

static const struct scenario *const groups[] = {opening, streams, endings, limits, living, threads, deadlines};
enum { GROUPS = sizeof groups / sizeof *groups };

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A scenario that runs in a process of its own. */
struct running {
  const struct scenario *scenario;
  FILE *said;
  pid_t pid;
  double begin;
};

/* Some wait for most of their time, so that several share the machine well. */
enum { JOBS = 3 };
static struct running running[JOBS];

static void begin(struct running *r, const struct scenario *sc, const char *url) {
  *r = (struct running){sc, tmpfile(), 0, seconds()};
  CHECK(r->said != NULL);
  fflush(stdout);
  r->pid = fork();
  CHECK(r->pid >= 0);
  if (r->pid == 0) {
    CHECK(dup2(fileno(r->said), 2) == 2);
    for (int i = 0; i < JOBS; i++)
      if (running[i].pid != 0 || &running[i] == r) fclose(running[i].said);
    sc->run(url);
    finish_test();
    exit(0);
  }
}

static void show(FILE *said) {
  char line[1024];
  rewind(said);
  while (fgets(line, sizeof line, said)) printf("        %s", line);
}

/* Whether it is over; whether it passed. One that takes too long is killed. */
static int is_over(struct running *r, int *passed) {
  const double limit = 2.5 * SOON / 1000;
  double took = seconds() - r->begin;
  int status, hangs = 0;
  pid_t got = waitpid(r->pid, &status, WNOHANG);
  CHECK(got >= 0);
  if (got == 0 && took < limit) return 0;
  if (got == 0) {
    hangs = 1;
    kill(r->pid, SIGKILL);
    waitpid(r->pid, &status, 0);
  }
  int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  printf("%-7s %-44s %-4s %6.2f\n", r->scenario->clause, r->scenario->name, code == 0 ? "ok" : "FAIL", took);
  if (hangs) printf("        no end after %d s\n", (int)limit);
  if (code != 0 && !hangs) printf("        exit status %d\n", code);
  show(r->said);
  fclose(r->said);
  r->pid = 0;
  *passed = code == 0;
  return 1;
}

/* Waits until one more may begin, or until `left` still run; how many have passed meanwhile. */
static int wait_until(int left) {
  int passed = 0;
  for (;;) {
    int busy = 0;
    for (int i = 0; i < JOBS; i++) {
      int ok = 0;
      if (running[i].pid != 0 && !is_over(&running[i], &ok)) busy++;
      passed += ok;
    }
    if (busy <= left) return passed;
    sleep_ms(2);
  }
}

static int wanted(const char *name, int argc, char **argv) {
  for (int i = 2; i < argc; i++)
    if (strcmp(argv[i], name) == 0) return 1;
  return argc == 2;
}

int main(int argc, char **argv) {
  int ran = 0, passed = 0;
  if (argc < 2) {
    fprintf(stderr, "usage: %s URL-TO-LISTEN-ON [SCENARIO...]\n", argv[0]);
    return 2;
  }
  printf("%s\n%-7s %-44s %-4s %6s\n", argv[1], "clause", "scenario", "", "s");
  for (int g = 0; g < GROUPS; g++) {
    for (const struct scenario *sc = groups[g]; sc->name; sc++) {
      if (!wanted(sc->name, argc, argv)) continue;
      ran++;
      passed += wait_until(JOBS - 1);
      for (int i = 0; i < JOBS; i++) {
        if (running[i].pid == 0) {
          begin(&running[i], sc, argv[1]);
          break;
        }
      }
    }
  }
  passed += wait_until(0);
  printf("%d of %d scenarios passed\n", passed, ran);
  return ran > 0 && passed == ran ? 0 : 1;
}
