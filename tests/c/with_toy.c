/* Linked into a test program, registers the backend of examples/c/toy_backend.c before main runs. */
#include "toy_backend.h"
#include "t.h"

__attribute__((constructor)) static void with_toy(void) {
  mux_error e;
  no_error(&e);
  OK(toy_register(&e));
}
