"""What the library defines for others: mux_*, with versions, and nothing that clashes."""

import importlib.machinery
import importlib.util
import os
import sys

import header
import pytest
from conftest import CHECKOUT, LIB, WARN, flags, run


def load(name):
    """A command of packaging/ as a module."""
    loader = importlib.machinery.SourceFileLoader(name, str(CHECKOUT / "packaging" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


abi = load("abi")


def needed_by_the_static_library(prefix):
    return flags("--libs-only-l", "--static", path=prefix / LIB / "pkgconfig")[1:]


def test_both_libraries_define_what_the_header_declares(built):
    assert abi.check_library(built[0], header.read()) is None


def test_cargos_own_shared_library_defines_the_same(built):
    """Developers and Python wheels use that one."""
    cargos = built[1].parent / "libmux.so"
    assert sorted(abi.exports(cargos)) == header.read().names()


def test_a_program_is_bound_to_the_version(prefix, tmp_path):
    (tmp_path / "one.c").write_text("#include <mux.h>\nint main(void) { return mux_version() == 0; }\n")
    run("cc", "-o", tmp_path / "one", tmp_path / "one.c", f"-I{prefix}/include", f"-L{prefix}/{LIB}", "-lmux")
    assert "mux_version@MUX_0.1" in run("nm", "-D", "--with-symbol-versions", tmp_path / "one")
    run(tmp_path / "one", env={**os.environ, "LD_LIBRARY_PATH": f"{prefix}/{LIB}"})


def test_the_static_library_lives_beside_another_one_of_rust(prefix, tmp_path):
    """Of two plain static libraries of Rust a linker takes some functions from one and some from the other."""
    (tmp_path / "other.rs").write_text(
        '#[unsafe(no_mangle)]\npub extern "C" fn other() -> usize {\n'
        "    let thrown = std::panic::catch_unwind(|| std::hint::black_box(Vec::<u8>::new())[1]);\n"
        '    if thrown.is_err() { format!("{:?}", std::thread::current().id()).len() } else { 0 }\n}\n'
    )
    (tmp_path / "main.c").write_text(
        "#include <mux.h>\n#include <string.h>\nsize_t other(void);\n"
        "int main(void) {\n  mux_config none = {0}; mux_session s; mux_error e; memset(&e, 0, sizeof e);\n"
        "  e.struct_size = sizeof e;\n"
        '  return other() > 0 && mux_dial("no-scheme://", none, 0, &s, &e) == MUX_EURL && e.message[0] ? 0 : 1;\n}\n'
    )
    run("rustc", "--edition=2024", "--crate-type=staticlib", "-O", "-o", tmp_path / "libother.a", tmp_path / "other.rs")
    native = needed_by_the_static_library(prefix)
    for order in (["libother.a", "libmux.a"], ["libmux.a", "libother.a"]):
        places = {"libother.a": tmp_path / "libother.a", "libmux.a": prefix / LIB / "libmux.a"}
        run("cc", "-o", tmp_path / "main", tmp_path / "main.c", f"-I{prefix}/include", *(places[name] for name in order), *native)
        run(tmp_path / "main")


def test_two_copies_live_in_one_process(prefix, tmp_path):
    native = needed_by_the_static_library(prefix)
    run("gcc", "-std=gnu11", *WARN, "-Wno-pedantic", f"-I{prefix}/include", "-o", tmp_path / "two", CHECKOUT / "tests/packaging/two_copies.c",
        prefix / LIB / "libmux.a", *native)
    run(tmp_path / "two", prefix / LIB / "libmux.so.0", "qmux://127.0.0.1:0")


def test_new_functions_join_the_node_of_their_version():
    first = abi.make_map("", ["mux_a", "mux_b"], "MUX_0.1")
    assert abi.make_map(first, ["mux_a", "mux_b", "mux_c"], "MUX_0.1") == abi.make_map("", ["mux_a", "mux_b", "mux_c"], "MUX_0.1")
    second = abi.make_map(first, ["mux_a", "mux_b", "mux_c"], "MUX_0.2")
    assert abi.nodes(second) == [("MUX_0.1", ["mux_a", "mux_b"]), ("MUX_0.2", ["mux_c"])]
    assert second.count("*;") == 1 and second.endswith("} MUX_0.1;\n")
    assert abi.make_map(first, ["mux_a", "mux_b"], "MUX_0.2") == first
    with pytest.raises(SystemExit, match="mux_b"):
        abi.make_map(first, ["mux_a"], "MUX_0.2")


def test_the_map_is_up_to_date():
    run(sys.executable, CHECKOUT / "packaging" / "abi", "map", "--check")


def test_the_header_keeps_the_promise_of_the_baseline():
    assert abi.diff() is None


GROWN = "char message[224];\n} mux_error;", "char message[224];\n  uint64_t later;\n} mux_error;"
COMPATIBLE = {
    "a function more": ("mux_status mux_finish(", "mux_status mux_later(int a);\n\n/**\n * Ends.\n */\nmux_status mux_finish("),
    "an enumerator more": ("MUX_EINTERNAL = -81,", "MUX_EINTERNAL = -81,\n  MUX_ELATER = -99,"),
    "a member at the end of a struct with struct_size": GROWN,
}
INCOMPATIBLE = {
    "a function less": ("mux_status mux_resume(mux_handle h);", "mux_status mux_resumed(mux_handle h);"),
    "another type of an argument": ("mux_status mux_reset(struct mux_channel ch, uint64_t code);",
                                    "mux_status mux_reset(struct mux_channel ch, uint32_t code);"),
    "an argument more": ("mux_status mux_resume(mux_handle h);", "mux_status mux_resume(mux_handle h, int32_t more);"),
    "another result": ("uint32_t mux_version(void);", "uint64_t mux_version(void);"),
    "another number of an enumerator": ("MUX_EINTERNAL = -81,", "MUX_EINTERNAL = -82,"),
    "a member in the middle": ("  int32_t os_errno;", "  int32_t os_errno;\n  uint64_t between;"),
    "a member more in a frozen struct": ("uint32_t reserved[3];\n} mux_event;", "uint32_t reserved[3];\n  uint64_t later;\n} mux_event;"),
    "another number of a macro": ("#define MUX_FOREVER -1", "#define MUX_FOREVER -2"),
}


@pytest.mark.parametrize("change", COMPATIBLE | INCOMPATIBLE)
def test_abidiff_tells_additions_from_changes(tmp_path, change):
    old, new = (COMPATIBLE | INCOMPATIBLE)[change]
    text = header.HEADER.read_text()
    assert old in text
    (tmp_path / "mux.h").write_text(text.replace(old, new, 1))
    problem = abi.diff(tmp_path / "mux.h")
    assert (problem is None) == (change in COMPATIBLE), problem
