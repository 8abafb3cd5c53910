"""The library as it is installed: built by `make`, put into directories of the tests.

LIBMUX_DIR (what scripts/build-library filled) and MUX_BIN are taken when they are set, else everything is built.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(CHECKOUT / "packaging"))
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", CHECKOUT / "target")).resolve()
# Below a prefix: Debian's lib/x86_64-linux-gnu, which CMake and pkg-config know, or elsewhere lib.
LIB = ("lib/" + subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True).stdout.strip()).rstrip("/")
WARN = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]


def run(*command, **options):
    """What a command says; it must succeed."""
    command = [str(part) for part in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
                          timeout=600, **options)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
    return done.stdout


def flags(*arguments, path):
    """What pkg-config says of a libmux below `path`, and of no other."""
    return run("pkg-config", *arguments, "libmux", env={**os.environ, "PKG_CONFIG_LIBDIR": str(path)}).split()


@pytest.fixture(scope="session")
def built():
    """The directory of the built library, and the command."""
    if "LIBMUX_DIR" in os.environ and "MUX_BIN" in os.environ:
        return Path(os.environ["LIBMUX_DIR"]), Path(os.environ["MUX_BIN"])
    run("make", "--silent", "-C", CHECKOUT, "lib", "cli")
    return TARGET / "dist", TARGET / "release" / "mux"


@pytest.fixture(scope="session")
def manual(tmp_path_factory):
    directory = tmp_path_factory.mktemp("manual")
    run(sys.executable, CHECKOUT / "packaging" / "man", directory)
    return directory


@pytest.fixture(scope="session")
def install(built, manual):
    """Installs where it is told to, and nowhere that the environment of the tests says."""
    inherited = {"PREFIX", "LIBDIR", "INCLUDEDIR", "BINDIR", "MANDIR", "DESTDIR"}
    clean = {name: value for name, value in os.environ.items() if name not in inherited}
    return lambda **env: run(CHECKOUT / "packaging" / "install", *built, manual, env={**clean, **env})


@pytest.fixture(scope="session")
def prefix(install, tmp_path_factory):
    """Where it is installed, in a directory like those of Debian."""
    prefix = tmp_path_factory.mktemp("prefix")
    install(PREFIX=str(prefix), LIBDIR=f"{prefix}/{LIB}", DESTDIR="")
    return prefix


@pytest.fixture
def talk():
    """Runs an echo server and a client that sends it a text; the client's answer."""
    servers = []

    def both(server, client, env=None):
        url = "qmux://127.0.0.1:0"
        process = subprocess.Popen([server, url], stdout=subprocess.PIPE, text=True, env=env)
        servers.append(process)
        answer = run(client, process.stdout.readline().strip(), "there and back", env=env)
        assert "there and back" in answer
        return answer

    yield both
    for process in servers:
        process.kill()
        process.communicate()
