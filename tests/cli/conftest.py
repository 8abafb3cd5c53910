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


@pytest.fixture(params=["qmux", "qmux+tcp", "qmux+unix"])
def url(request, place):
    """Where to listen: only the URL differs."""
    if request.param.endswith("+unix"):
        return f"{request.param}://{place}/m.sock"
    return f"{request.param}://127.0.0.1:0"
