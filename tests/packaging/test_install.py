"""An installed libmux is found and used by the tools that people have."""

import re
import shutil
import subprocess

import pytest
from conftest import CHECKOUT, LIB, WARN, flags, run

VERSION = re.search(r'^version = "(.*)"', (CHECKOUT / "Cargo.toml").read_text(), re.M).group(1)
MAJOR, MINOR, PATCH = map(int, VERSION.split("."))
PROGRAMS = ["echo_server", "echo_client"]


def compile_examples(directory, *arguments):
    programs = [directory / name for name in PROGRAMS]
    for program in programs:
        source = CHECKOUT / "examples" / "c" / f"{program.name}.c"
        before = [argument for argument in arguments if argument.startswith("-I")]
        run("cc", "-std=c11", "-pthread", *WARN, *before, "-o", program, source, *(a for a in arguments if a not in before))
    return programs


def test_pkg_config_finds_the_shared_library(prefix, tmp_path, talk):
    found = flags("--cflags", "--libs", path=prefix / LIB / "pkgconfig")
    talk(*compile_examples(tmp_path, *found, f"-Wl,-rpath,{prefix}/{LIB}"))


def test_pkg_config_knows_what_the_static_library_needs(prefix, tmp_path, talk):
    found = flags("--cflags", "--libs", "--static", path=prefix / LIB / "pkgconfig")
    server, client = compile_examples(tmp_path, *("-l:libmux.a" if flag == "-lmux" else flag for flag in found))
    assert "libmux" not in run("readelf", "-d", server)
    talk(server, client)


@pytest.mark.skipif(shutil.which("cargo-cinstall") is None, reason="cargo-c is not installed (cargo install cargo-c)")
def test_cargo_c_lays_out_what_pkg_config_finds(tmp_path, talk):
    run("cargo", "cinstall", "--locked", "--package", "mux-capi", "--profile", "dev", "--prefix", tmp_path, "--libdir", "lib",
        cwd=CHECKOUT)
    assert "[libmux.so.0]" in run("readelf", "-d", tmp_path / "lib" / "libmux.so")
    found = flags("--cflags", "--libs", path=tmp_path / "lib" / "pkgconfig")
    talk(*compile_examples(tmp_path, *found, f"-Wl,-rpath,{tmp_path}/lib"))


def test_nothing_installed_names_the_staging_directory(install, tmp_path):
    install(PREFIX="/usr", LIBDIR=f"/usr/{LIB}", DESTDIR=str(tmp_path))
    for file in ("pkgconfig/libmux.pc", "cmake/mux/muxConfig.cmake", "cmake/mux/muxConfigVersion.cmake"):
        text = (tmp_path / "usr" / LIB / file).read_text()
        assert str(tmp_path) not in text and "@" not in text
    assert f"libdir=/usr/{LIB}\n" in (tmp_path / "usr" / LIB / "pkgconfig/libmux.pc").read_text()
    links = {path.name: path.readlink().name for path in (tmp_path / "usr" / LIB).iterdir() if path.is_symlink()}
    version = run(tmp_path / "usr/bin/mux", "--version").split()[-1]
    assert links == {"libmux.so": "libmux.so.0", "libmux.so.0": f"libmux.so.{version}"}


def test_cmake_finds_both_libraries(prefix, tmp_path, talk):
    run("cmake", "-S", CHECKOUT / "tests/packaging/cmake", "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}",
        f"-DEXAMPLES={CHECKOUT}/examples/c", f"-DWANTED={MAJOR}.{MINOR}")
    run("cmake", "--build", tmp_path)
    assert "libmux.so.0" in run("readelf", "-d", tmp_path / "echo_server")
    assert "libmux" not in run("readelf", "-d", tmp_path / "echo_server_static")
    talk(tmp_path / "echo_server", tmp_path / "echo_client_static")
    talk(tmp_path / "echo_server_static", tmp_path / "echo_client")


@pytest.mark.parametrize("wanted, found", [
    (f"{MAJOR}.{MINOR}", True),
    (f"{MAJOR}.{MINOR}.{PATCH}", True),
    (f"{MAJOR}.{MINOR}.{PATCH + 1}", False),
    (f"{MAJOR}.{MINOR + 1}", False),
    (f"{MAJOR + 1}.0", False),
])
def test_cmake_takes_versions_of_the_same_soname(prefix, tmp_path, wanted, found):
    (tmp_path / "version.cmake").write_text(
        f'set(PACKAGE_FIND_VERSION "{wanted}")\ninclude("{prefix}/{LIB}/cmake/mux/muxConfigVersion.cmake")\n'
        'if(NOT PACKAGE_VERSION_COMPATIBLE)\n  message(FATAL_ERROR "not this one")\nendif()\n'
    )
    done = subprocess.run(["cmake", "-P", tmp_path / "version.cmake"], capture_output=True)
    assert (done.returncode == 0) == found


def test_cmake_says_what_is_missing(prefix, tmp_path):
    shutil.copytree(prefix / "lib", tmp_path / "lib", symlinks=True)
    done = subprocess.run(["cmake", "-S", CHECKOUT / "tests/packaging/cmake", "-B", tmp_path / "build",
                           f"-DCMAKE_PREFIX_PATH={tmp_path}"],
                          capture_output=True, text=True)
    assert done.returncode != 0 and "mux.h does not exist" in " ".join(done.stderr.split())
