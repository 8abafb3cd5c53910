"""Compiles libmux with cargo and bundles it, unless told where it is.

LIBMUX_DIR=DIR   takes libmux.so from DIR and bundles it
MUX_SYSTEM=1     links against the installed libmux that pkg-config finds, and bundles nothing
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent
# A build backend does not put the project's directory on the path.
sys.path.insert(0, str(HERE))
from build_native import pkg_config  # noqa: E402


def cargo_build() -> Path:
    """Builds the C library and says which file it is."""
    if not (CHECKOUT / "capi" / "Cargo.toml").is_file():
        sys.exit("not in a checkout of libmux: set LIBMUX_DIR to the directory of libmux.so, or MUX_SYSTEM=1")
    # Built alone (-p): cargo unifies the features of what it builds together.
    command = ["cargo", "build", "--release", "-p", "mux-capi", "--message-format=json-render-diagnostics"]
    try:
        built = subprocess.run(command, cwd=CHECKOUT, check=True, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        sys.exit("cargo not found: install a Rust toolchain, or set LIBMUX_DIR or MUX_SYSTEM=1")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(command)} failed with status {error.returncode}")
    files = [
        Path(file)
        for line in built.stdout.splitlines()
        for file in json.loads(line).get("filenames", [])
        if Path(file).name == "libmux.so"
    ]
    if not files:
        sys.exit("cargo built no libmux.so")
    return files[-1]


def soname(library: Path) -> str:
    """The name under which the loader will look for the library."""
    listing = subprocess.run(["readelf", "-d", str(library)], check=True, stdout=subprocess.PIPE).stdout.decode()
    found = re.search(r"\(SONAME\).*\[(.+)\]", listing)
    return found.group(1) if found else library.name


class BuildNative(build_ext):
    """Finds or builds libmux before the extension, and puts it beside the extension."""

    def finalize_options(self):
        super().finalize_options()
        # pip builds in the checkout: what an earlier build left there may belong to another library.
        self.force = True

    def build_extension(self, ext):
        package = Path(self.get_ext_fullpath(ext.name)).parent
        for stale in package.glob("libmux.so*"):
            stale.unlink()
        if os.environ.get("MUX_SYSTEM") == "1":
            ext.extra_link_args += shlex.split(pkg_config("--libs"))
            return super().build_extension(ext)
        given = os.environ.get("LIBMUX_DIR")
        library = Path(given) / "libmux.so" if given else cargo_build()
        if not library.is_file():
            sys.exit(f"LIBMUX_DIR: {library} does not exist")
        ext.library_dirs.insert(0, str(library.parent))
        ext.runtime_library_dirs.append("$ORIGIN")
        super().build_extension(ext)
        shutil.copy2(library, package / soname(library))


setup(
    cffi_modules=["build_native.py:ffibuilder"],
    cmdclass={"build_ext": BuildNative},
    # One wheel for every later CPython: cffi builds against the limited API.
    options={"bdist_wheel": {"py_limited_api": "cp39"}},
)
