// The second file with include/mux.hpp in it.
#include <mux.hpp>

bool linked_twice(const mux::channel &channel);
bool linked_twice(const mux::channel &channel) { return static_cast<bool>(channel); }
