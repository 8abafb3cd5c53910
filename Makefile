# make              release build: libmux.so, libmux.a, include/mux.h, the command mux
# make run          the main job: a C file server, fetched from by Python and by the command, then a short benchmark
# make test         everything, installing what it needs first (what CI runs)
# make header       regenerates include/mux.h
# make install      PREFIX=/usr/local DESTDIR=

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
PYTHON ?= python3
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
LIB := $(TARGET)/release
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
SONAME := libmux.so.0

all: lib cli

# The library is built alone: cargo unifies the features of what it builds together, and a C host wants none of the
# command's signal handling.
lib:
	$(CARGO) build --release -p mux-capi
	ln -sf libmux.so $(LIB)/$(SONAME)

cli:
	$(CARGO) build --release -p mux-cli

header:
	$(CARGO) test -q -p mux-capi --test header -- --ignored regenerate

run:
	scripts/setup run
	scripts/run-demo

test:
	scripts/setup test
	scripts/test-all

install: all
	install -d $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(LIB)/libmux.so $(DESTDIR)$(PREFIX)/lib/libmux.so.$(VERSION)
	ln -sf libmux.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(PREFIX)/lib/libmux.so
	install -m 644 $(LIB)/libmux.a $(DESTDIR)$(PREFIX)/lib/libmux.a
	install -m 644 include/mux.h $(DESTDIR)$(PREFIX)/include/mux.h
	sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@VERSION@|$(VERSION)|g' capi/libmux.pc.in \
	    > $(DESTDIR)$(PREFIX)/lib/pkgconfig/libmux.pc
	install -m 755 $(LIB)/mux $(DESTDIR)$(PREFIX)/bin/mux

clean:
	$(CARGO) clean
	$(MAKE) -C examples/c clean

.PHONY: all lib cli header run test install clean
