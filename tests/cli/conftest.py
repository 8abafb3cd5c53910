"""What every test of the `mux` command needs."""

import pathlib
import shutil
import tempfile

import pytest

from mux_command import Mux


@pytest.fixture
def mux():
    mux = Mux()
    yield mux
    mux.close()


@pytest.fixture
def place():
    """A short directory: the path of a Unix socket has a hundred bytes."""
    directory = tempfile.mkdtemp(prefix="mux-")
    yield pathlib.Path(directory)
    shutil.rmtree(directory)


@pytest.fixture(params=["qmux", "qmux+tcp", "qmux+tls", "qmux+unix", "quic", "h2", "h2c", "h2c+unix"])
def url(request, place):
    """Where to listen: only the URL differs. `Mux.listen` adds what TLS needs."""
    if request.param.endswith("+unix"):
        return f"{request.param}://{place}/m.sock"
    # Over UDP nobody says that a process was killed: its silence does, soon.
    silence = "?keepalive=2s" if request.param == "quic" else ""
    return f"{request.param}://127.0.0.1:0{silence}"
