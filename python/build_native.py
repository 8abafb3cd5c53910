"""Builds `libmux._native`, the cffi module over include/mux.h.

The declarations come from the header itself, run through the C compiler's preprocessor, and the generated C includes
the header again: a prototype, struct or constant that does not match is a compile error, never a wrong call.
"""

import os
import re
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent


def pkg_config(*flags: str) -> str:
    """What pkg-config says about the installed libmux."""
    try:
        said = subprocess.run(["pkg-config", *flags, "libmux"], check=True, stdout=subprocess.PIPE)
    except (FileNotFoundError, subprocess.CalledProcessError):
        raise SystemExit("MUX_SYSTEM=1, but pkg-config finds no libmux: install it, or set PKG_CONFIG_PATH") from None
    return said.stdout.decode().strip()


def header() -> Path:
    """Finds mux.h: where pkg-config says with MUX_SYSTEM=1, else beside LIBMUX_DIR, else in the checkout."""
    if os.environ.get("MUX_SYSTEM") == "1":
        return Path(pkg_config("--variable=includedir")) / "mux.h"
    candidates = [HERE.parent / "include" / "mux.h"]
    if library_dir := os.environ.get("LIBMUX_DIR"):
        candidates[:0] = [Path(library_dir) / "mux.h", Path(library_dir).parent / "include" / "mux.h"]
    for path in candidates:
        if path.is_file():
            return path
    raise SystemExit(
        f"mux.h not found (looked at {', '.join(map(str, candidates))}): build from a checkout of libmux,"
        " set LIBMUX_DIR to the directory of libmux.so, or set MUX_SYSTEM=1 where libmux is installed"
    )


def declarations(path: Path) -> str:
    """What cffi can parse of the header: no includes, attributes or conditions, and its integer macros as constants."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    with tempfile.TemporaryDirectory() as stubs:
        # cffi knows the standard types, so the system's headers are replaced by empty ones.
        for name in re.findall(r"#\s*include\s*<([^>]+)>", path.read_text()):
            stub = Path(stubs, name)
            stub.parent.mkdir(parents=True, exist_ok=True)
            stub.touch()
        base = [*compiler, "-E", "-x", "c", "-std=c99", "-nostdinc", f"-I{stubs}", "-D__attribute__(x)="]
        text, macros = (
            subprocess.run([*base, flag, str(path)], check=True, stdout=subprocess.PIPE).stdout.decode()
            for flag in ("-P", "-dM")
        )
    number = r"\(?(?:-?\d\w*|U?INT(?:32|64)_C\(\w+\))\)?"
    constants = re.findall(rf"^#define (MUX_\w+) {number}$", macros, re.MULTILINE)
    return text + "".join(f"#define {name} ...\n" for name in sorted(constants))


ffibuilder = FFI()
_header = header()
ffibuilder.cdef(declarations(_header))
ffibuilder.set_source(
    "libmux._native",
    '#include "mux.h"\n',
    include_dirs=[str(_header.parent)],
    libraries=["mux"],
    # A function that the library lacks is found when the module is loaded, not when it is first called.
    extra_link_args=["-Wl,-z,now"],
)
