/* Two libmux in one process: one linked statically dials the other, which dlopen brought and dlclose does not take away. */
#include <dlfcn.h>
#include <mux.h>
#include <stdio.h>
#include <string.h>

#define LOAD(name) __typeof__(&name) other_##name = (__typeof__(&name))dlsym(library, #name)
#define CHECK(condition) \
  do { \
    if (!(condition)) return fprintf(stderr, "line %d: %s\n", __LINE__, #condition), 1; \
  } while (0)

int main(int argc, char **argv) {
  mux_config none = {0};
  mux_runtime runtime = {0};
  mux_listener listener;
  mux_session here, there;
  mux_channel out, in;
  char url[256], buf[16];
  size_t done;
  void *library = argc == 3 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
  CHECK(library != NULL);
  LOAD(mux_version);
  LOAD(mux_listen);
  LOAD(mux_info);
  LOAD(mux_accept);
  LOAD(mux_channel_accept);
  LOAD(mux_read);
  LOAD(mux_close);
  LOAD(mux_runtime_shutdown);
  CHECK(dlclose(library) == 0);
  CHECK(other_mux_version != mux_version && other_mux_version() == mux_version());
  CHECK(other_mux_listen(argv[2], none, 5000, &listener, NULL) == MUX_OK);
  CHECK(other_mux_info(listener.h, MUX_INFO_URL, url, sizeof url) > 0);
  /* A handle is known to the copy that gave it out. */
  CHECK(mux_close(listener.h) == MUX_EHANDLE);
  CHECK(mux_dial(url, none, 5000, &here, NULL) == MUX_OK);
  CHECK(other_mux_accept(listener, 5000, &there, NULL) == MUX_OK);
  CHECK(mux_channel_open(here, NULL, 5000, &out) == MUX_OK);
  CHECK(mux_write_all(out, "across", 6, MUX_IO_FIN, 5000, &done) == MUX_OK);
  CHECK(other_mux_channel_accept(there, 5000, &in) == MUX_OK);
  CHECK(other_mux_read(in, buf, sizeof buf, 0, 5000) == 6 && memcmp(buf, "across", 6) == 0);
  CHECK(other_mux_read(in, buf, sizeof buf, 0, 5000) == 0);
  CHECK(mux_runtime_shutdown(runtime, 5000) == MUX_OK);
  CHECK(other_mux_close(listener.h) == MUX_OK && other_mux_close(there.h) == MUX_OK && other_mux_close(in.h) == MUX_OK);
  CHECK(other_mux_runtime_shutdown(runtime, 5000) == MUX_OK);
  return 0;
}
