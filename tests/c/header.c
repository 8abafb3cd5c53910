/* The header alone, in every language it promises: each macro and enumerator is used, each layout is what it says. */
#include "mux.h"

/* The guard and the must-check attribute are macros too. */
#ifndef MUX_H
#error "the include guard is gone"
#endif
MUX_MUST_CHECK static int32_t checked(void);
static int32_t checked(void) { return MUX_NOWAIT + MUX_FOREVER; }

#define SIZE(type, size) typedef char size_of_##type[sizeof(type) == (size) ? 1 : -1]
SIZE(mux_session, 8);
SIZE(mux_event, 32);
SIZE(mux_error, 264);
SIZE(mux_stats, 104);

int main(void) {
  mux_error error = {sizeof error, MUX_OK, 0, 0, 0, 0, 0, 0, ""};
  mux_event event = {0, 0, 0, {0, 0, 0}};
  size_of_mux_session a;
  size_of_mux_event b;
  size_of_mux_error c;
  size_of_mux_stats d;
  mux_fd fd = (mux_fd)-1;
  a[0] = b[0] = c[0] = d[0] = 0;
  int64_t sum = 0;
ENUMERATORS
  return checked() == -1 && error.status == MUX_OK && event.h == 0 && fd == -1 && a[0] + b[0] + c[0] + d[0] == 0 && sum != 1
             ? 0
             : 1;
}
