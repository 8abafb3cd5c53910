/* The library as a plugin's would be: loaded, used, closed and loaded again, while threads that used it come and go. This
 * program is not linked with it. */
#include <dlfcn.h>

#include "t.h"

#define GET(name)                                 \
  __typeof__(&name) name##_;                      \
  *(void **)&name##_ = dlsym(library, #name);     \
  CHECK(name##_ != NULL)

static void *library;
static const char *where;

/* One session and one channel, all with functions looked up by name. */
static void *use(void *arg) {
  (void)arg;
  GET(mux_listen);
  GET(mux_dial);
  GET(mux_accept);
  GET(mux_info);
  GET(mux_channel_open);
  GET(mux_channel_accept);
  GET(mux_write_all);
  GET(mux_read_exact);
  GET(mux_close);
  mux_listener l;
  mux_session a, b;
  mux_channel x, y;
  char url[512], buf[4];
  OK(mux_listen_(where, defaults, SOON, &l, NULL));
  CHECK(mux_info_(l.h, MUX_INFO_URL, url, sizeof url) > 0);
  OK(mux_dial_(url, defaults, SOON, &a, NULL));
  OK(mux_accept_(l, SOON, &b, NULL));
  OK(mux_channel_open_(a, NULL, SOON, &x));
  OK(mux_channel_accept_(b, SOON, &y));
  OK(mux_write_all_(x, "ping", 4, 0, SOON, NULL));
  OK(mux_read_exact_(y, buf, 4, SOON, NULL));
  const mux_handle all[] = {x.h, y.h, a.h, b.h, l.h};
  for (int i = 0; i < 5; i++) OK(mux_close_(all[i]));
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  where = argv[1];
  for (int i = 0; i < 4; i++) {
    library = dlopen("libmux.so.0", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) fprintf(stderr, "%s\n", dlerror());
    CHECK(library != NULL);
    pthread_t t = start(use, NULL);
    join(t); /* its thread-locals are torn down here */
    use(NULL);
    GET(mux_runtime_shutdown);
    if (i % 2) OK(mux_runtime_shutdown_((mux_runtime){0}, SOON)); /* else its threads go on, without the library loaded */
    EQ(dlclose(library), 0);
    sleep_ms(20);
  }
  return 0;
}
