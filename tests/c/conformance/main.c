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

/* The exit status of a process, -1 once it had to be killed. */
static int wait_for(pid_t pid, double limit) {
  double end = seconds() + limit;
  int status;
  for (;;) {
    pid_t got = waitpid(pid, &status, WNOHANG);
    CHECK(got >= 0);
    if (got == pid) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (seconds() > end) {
      kill(pid, SIGKILL);
      waitpid(pid, &status, 0);
      return -1;
    }
    sleep_ms(2);
  }
}

static void show(FILE *said) {
  char line[1024];
  rewind(said);
  while (fgets(line, sizeof line, said)) printf("        %s", line);
}

static int run(const struct scenario *sc, const char *url) {
  FILE *said = tmpfile();
  CHECK(said != NULL);
  fflush(stdout);
  double begin = seconds();
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    CHECK(dup2(fileno(said), 2) == 2);
    fclose(said);
    sc->run(url);
    finish_test();
    exit(0);
  }
  int code = wait_for(pid, 2.5 * SOON / 1000);
  printf("%-7s %-44s %-4s %6.2f\n", sc->clause, sc->name, code == 0 ? "ok" : "FAIL", seconds() - begin);
  if (code < 0) printf("        no end after %d s\n", (int)(2.5 * SOON / 1000));
  if (code > 0) printf("        exit status %d\n", code);
  show(said);
  fclose(said);
  return code == 0;
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
      passed += run(sc, argv[1]);
    }
  }
  printf("%d of %d scenarios passed\n", passed, ran);
  return ran > 0 && passed == ran ? 0 : 1;
}
