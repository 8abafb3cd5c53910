# make               release build: target/dist/libmux.so and libmux.a, include/mux.h, the command mux
# make run           the main job: a C file server, fetched from by Python and by the command, then a short benchmark
# make test          everything, installing what it needs first (what CI runs)
# make test-full     that, then the contract with every seed on every backend and valgrind on every wire: hours
# make conformance   runs the contract on every backend and writes docs/conformance.md
# make header        regenerates include/mux.h and capi/libmux.map
# make abi           takes the header of now as the ABI to keep: capi/libmux.abi (at a release)
# make man           manual pages from the header: target/man
# make install       PREFIX=/usr/local LIBDIR=$PREFIX/lib INCLUDEDIR= BINDIR= MANDIR= DESTDIR=; install-strip is smaller
# make deb           Debian packages: target/deb

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
DESTDIR ?=
CARGO ?= cargo
CARGOFLAGS ?=
PYTHON ?= python3
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
RELEASE := $(TARGET)/$(if $(CARGO_BUILD_TARGET),$(CARGO_BUILD_TARGET)/)release
LIB := $(TARGET)/dist
export CARGO CARGOFLAGS

all: lib cli

lib:
	scripts/build-library $(LIB)

cli:
	$(CARGO) build --release -p mux-cli $(CARGOFLAGS)

header:
	$(CARGO) test -q -p mux-capi --test header -- --ignored regenerate
	$(PYTHON) packaging/abi map

abi: header
	$(PYTHON) packaging/abi refresh

man:
	$(PYTHON) packaging/man $(TARGET)/man

run:
	scripts/setup run
	scripts/run-demo

test:
	scripts/setup test
	scripts/test-all

test-full:
	scripts/setup test
	scripts/test-full

conformance:
	$(CARGO) run -q -p mux-conformance --example table

# Only here: a test that installs elsewhere must not inherit them.
install: export PREFIX := $(PREFIX)
install: export LIBDIR := $(LIBDIR)
install: export INCLUDEDIR := $(INCLUDEDIR)
install: export BINDIR := $(BINDIR)
install: export MANDIR := $(MANDIR)
install: export DESTDIR := $(DESTDIR)
install: all man
	packaging/install $(LIB) $(RELEASE)/mux $(TARGET)/man

install-strip: export STRIP_INSTALLED := 1
install-strip: install

deb: all man
	packaging/deb $(LIB) $(RELEASE)/mux $(TARGET)/man $(TARGET)/deb

clean:
	$(CARGO) clean
	$(MAKE) -C examples/c clean

.PHONY: all lib cli header abi man run test test-full conformance install install-strip deb clean
