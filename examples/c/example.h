/* What the examples share: reporting failures, and ending the process without losing bytes. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <mux.h>
#include <stdio.h>
#include <stdlib.h>

/* What failed, with the library's own words. The details of a failed call are kept with its object. */
static inline void complain(const char *doing, mux_handle object, int64_t status) {
  mux_error e = {.struct_size = sizeof e};
  if (mux_cause(object, &e) == (mux_status)status && status != MUX_OK)
    fprintf(stderr, "%s: %s (status %d, code %llu)\n", doing, e.message, (int)status, (unsigned long long)e.code);
  else
    fprintf(stderr, "%s: %s\n", doing, mux_status_text((mux_status)status));
}

/* Closing is done in the background; this waits until closed objects have delivered what they still had. */
static inline int finish_process(int exit_status) {
  mux_runtime default_runtime = {0};
  if (mux_runtime_shutdown(default_runtime, 10000) != MUX_OK) return EXIT_FAILURE;
  return exit_status;
}

#endif
