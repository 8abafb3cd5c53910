"""The Debian packages: what a checker of packages would look for, and a program built and run with them."""

import hashlib
import os
import re

import header
import pytest
from conftest import CHECKOUT, WARN, run


@pytest.fixture(scope="module")
def packages(built, manual, tmp_path_factory):
    """Name to file."""
    out = tmp_path_factory.mktemp("deb")
    run(CHECKOUT / "packaging" / "deb", *built, manual, out)
    return {file.name.split("_")[0]: file for file in out.glob("*.deb")}


@pytest.fixture(scope="module")
def system(packages, tmp_path_factory):
    """All of them unpacked, as if into /."""
    root = tmp_path_factory.mktemp("system")
    for package in packages.values():
        run("dpkg-deb", "-x", package, root)
    return root


def field(package, name):
    return run("dpkg-deb", "-f", package, name).strip()


def test_the_library_the_headers_and_the_command_are_apart(packages):
    assert packages.keys() == {"libmux0", "libmux-dev", "libmux-bin"}
    version = field(packages["libmux0"], "Version")
    assert f"libmux0 (= {version})" in field(packages["libmux-dev"], "Depends")
    assert "libc6 (>=" in field(packages["libmux0"], "Depends") and "libmux" not in field(packages["libmux0"], "Depends")
    names = {name: {line.split()[5].rsplit("/", 1)[1] for line in run("dpkg-deb", "-c", file).splitlines()} for name, file in packages.items()}
    assert names["libmux0"] - {""} == {f"libmux.so.{version.split('-')[0]}", "libmux.so.0", "NOTICE.gz", "copyright", "changelog.Debian.gz"}
    assert {"mux.h", "mux.hpp", "libmux.so", "libmux.a", "libmux.pc", "muxConfig.cmake", "libmux.3.gz"} <= names["libmux-dev"]


def test_files_belong_to_root_and_have_ordinary_modes(packages):
    for package in packages.values():
        for line in run("dpkg-deb", "-c", package).splitlines():
            mode, owner, *_, name = line.split(" -> ")[0].split()
            assert owner == "root/root", line
            wanted = {"d": "drwxr-xr-x", "l": "lrwxrwxrwx"}.get(mode[0], "-rwxr-xr-x" if "/bin/" in name else "-rw-r--r--")
            assert mode == wanted, line


def test_the_control_files_are_right(packages, tmp_path):
    for name, package in packages.items():
        run("dpkg-deb", "-R", package, tmp_path / name)
        for line in (tmp_path / name / "DEBIAN" / "md5sums").read_text().splitlines():
            digest, file = line.split("  ")
            assert hashlib.md5((tmp_path / name / file).read_bytes()).hexdigest() == digest
        summary, *rest = field(package, "Description").splitlines()
        assert summary.startswith("many streams over one connection - ") and rest and all(len(line) <= 80 for line in rest)
        assert int(field(package, "Installed-Size")) > 0
        run("gzip", "-t", tmp_path / name / "usr/share/doc" / name / "changelog.Debian.gz")
    symbols = (tmp_path / "libmux0/DEBIAN/symbols").read_text().splitlines()
    assert symbols[0] == "libmux.so.0 libmux0 #MINVER#"
    assert re.findall(r"^ (mux_\w+)@MUX_[\d.]+ [\d.]+$", "\n".join(symbols), re.M) == header.read().names()
    assert (tmp_path / "libmux0/DEBIAN/triggers").read_text() == "activate-noawait ldconfig\n"


def test_what_is_installed_is_stripped_and_hardened(system):
    for file in (next(system.glob("usr/lib/*/libmux.so.0.*")), system / "usr/bin/mux"):
        sections, dynamic = run("readelf", "-SW", file), run("readelf", "-dlW", file)
        assert ".debug_info" not in sections and ".symtab" not in sections
        assert "GNU_RELRO" in dynamic and "NOW" in dynamic and "RUNPATH" not in dynamic and "RPATH" not in dynamic
        assert re.search(r"GNU_STACK.* RW ", dynamic), dynamic
    assert ".debug_info" not in run("readelf", "-SW", next(system.glob("usr/lib/*/libmux.a")))
    for link in (path for path in system.rglob("*") if path.is_symlink()):
        assert not os.path.isabs(link.readlink()) and link.exists(), link


def test_a_program_is_built_and_runs_with_them(system, tmp_path, talk):
    libdir = next(system.glob("usr/lib/*/pkgconfig")).parent
    env = {**os.environ, "PKG_CONFIG_LIBDIR": str(libdir / "pkgconfig"), "PKG_CONFIG_SYSROOT_DIR": str(system),
           "PKG_CONFIG_ALLOW_SYSTEM_CFLAGS": "1", "PKG_CONFIG_ALLOW_SYSTEM_LIBS": "1", "LD_LIBRARY_PATH": str(libdir)}
    for name in ("echo_server", "echo_client"):
        run("cc", "-std=c11", "-pthread", *WARN, *run("pkg-config", "--cflags", "libmux", env=env).split(), "-o", tmp_path / name,
            CHECKOUT / "examples" / "c" / f"{name}.c", *run("pkg-config", "--libs", "libmux", env=env).split())
    talk(tmp_path / "echo_server", tmp_path / "echo_client", env=env)
