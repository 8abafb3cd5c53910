/* toy_backend: a wire of one's own, registered as scheme "toy". Its sessions run over TCP: toy://127.0.0.1:4000. */
#ifndef TOY_BACKEND_H
#define TOY_BACKEND_H

#include <mux.h>

/* Registers it; MUX_OK, or why not. */
mux_status toy_register(mux_error *err);

#endif
