/* crowd URL N: opens N channels labelled "echo" at once, sends each its own words, and reads them back. */
#include "t.h"

static size_t stats_open(mux_session s) {
  mux_stats st = {0};
  st.struct_size = sizeof st;
  OK(mux_stats_get(s.h, &st));
  return st.channels_open;
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  size_t n = strtoul(argv[2], NULL, 10);
  mux_channel *ch = calloc(n, sizeof *ch);
  mux_open_opts opts = {0};
  char text[64], got[64];
  CHECK(ch != NULL && n > 0);
  mux_session s = dial_to(argv[1], defaults);
  opts.struct_size = sizeof opts;
  opts.label = "echo";
  opts.label_len = 4;
  for (size_t i = 0; i < n; i++) {
    OK(mux_channel_open(s, &opts, SOON, &ch[i]));
    int len = snprintf(text, sizeof text, "channel %zu of %zu", i, n);
    OK(mux_write_all(ch[i], text, (size_t)len, 0, SOON, NULL));
  }
  EQ(stats_open(s), n);
  for (size_t i = n; i-- > 0;) { /* in another order than they were opened */
    int len = snprintf(text, sizeof text, "channel %zu of %zu", i, n);
    OK(mux_read_exact(ch[i], got, (size_t)len, SOON, NULL));
    CHECK(memcmp(got, text, (size_t)len) == 0);
    OK(mux_finish(ch[i]));
  }
  for (size_t i = 0; i < n; i++) {
    EQ(mux_read(ch[i], got, sizeof got, 0, SOON), 0);
    OK(mux_close(ch[i].h));
  }
  free(ch);
  OK(mux_close(s.h));
  finish_test();
  return 0;
}
