/* A thousand channels at once on one session, each with its own bytes; accept_many; then all gone. */
#include "t.h"

enum { N = 1000 };
static mux_channel out[N], in[N];

int main(int argc, char **argv) {
  CHECK(argc == 2);
  mux_config c;
  OK(mux_config_new(&c));
  OK(mux_config_set_u64(c, MUX_CFG_MAX_CHANNELS_IN, N));
  OK(mux_config_set_u64(c, MUX_CFG_CHANNEL_BACKLOG, N));
  struct pair p = connect_with(argv[1], c);
  OK(mux_close(c.h)); /* it was copied */
  for (int i = 0; i < N; i++) {
    uint32_t word = (uint32_t)i;
    OK(mux_channel_open(p.client, NULL, SOON, &out[i]));
    OK(mux_write_all(out[i], &word, sizeof word, i % 2 ? MUX_IO_FIN : 0, SOON, NULL));
  }
  int count = 0;
  while (count < N) {
    int64_t n = mux_channel_accept_many(p.server, in + count, N - count);
    CHECK(n >= 0);
    count += (int)n;
    if (n == 0) OK(mux_wait(p.server.h, MUX_EV_ACCEPT, SOON, NULL));
  }
  EQ(mux_channel_accept_many(p.server, in, 1), 0);
  mux_stats st = {0};
  st.struct_size = sizeof st;
  OK(mux_stats_get(p.server.h, &st));
  EQ(st.channels_open, N);
  EQ(st.channels_accepted, N);
  OK(mux_stats_get(0, &st));
  EQ(st.handles_live, 2 * N + 3);

  /* Each channel answers with its own word; read in another order than written. */
  char seen[N] = {0};
  for (int i = N - 1; i >= 0; i--) {
    uint32_t word;
    OK(mux_read_exact(in[i], &word, sizeof word, SOON, NULL));
    CHECK(word < N && !seen[word]);
    seen[word] = 1;
    word = ~word;
    OK(mux_write_all(in[i], &word, sizeof word, MUX_IO_FIN, SOON, NULL));
  }
  for (int i = 0; i < N; i++) {
    uint32_t word;
    OK(mux_read_exact(out[i], &word, sizeof word, SOON, NULL));
    EQ(word, (uint32_t)~(uint32_t)i);
    EQ(mux_read(out[i], &word, 1, 0, SOON), 0);
  }
  for (int i = 0; i < N; i++) {
    OK(mux_close(out[i].h));
    OK(mux_close(in[i].h));
  }
  /* Their places are free again. */
  for (int i = 0; i < 50; i++) {
    mux_channel a, b;
    channel_between(p.client, p.server, &a, &b);
    OK(mux_close(a.h));
    OK(mux_close(b.h));
  }
  disconnect(p);
  finish_test();
  return 0;
}
