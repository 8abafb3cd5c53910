"""Two ends of a session in one process, over each transport."""

import functools
import os
import subprocess
import tempfile
import time

import libmux
import pytest

TRANSPORTS = ["qmux+tcp", "qmux+unix", "h2c", "h2c+unix"]
# These need a certificate, which the command makes.
ENCRYPTED = ["h2", "quic"]
if "MUX_BIN" in os.environ:
    TRANSPORTS += ENCRYPTED


def url_for(transport, directory):
    """A URL to listen on."""
    if transport.endswith("unix"):
        return f"{transport}://{directory}/m.sock"
    if transport in ENCRYPTED:
        made, _ = certificate()
        return f"{transport}://127.0.0.1:0?cert={made.name}/cert.pem&key={made.name}/key.pem"
    return f"{transport}://127.0.0.1:0"


def dialled(url):
    """The URL to dial, of the one that a listener shows."""
    return f"{url}?pin={certificate()[1]}" if url.partition(":")[0] in ENCRYPTED else url


@functools.cache
def certificate():
    """The run's one certificate: its directory and its pin."""
    directory = tempfile.TemporaryDirectory()
    made = subprocess.run([os.environ["MUX_BIN"], "cert", "--out", directory.name], stdout=subprocess.PIPE, check=True)
    return directory, made.stdout.decode().strip()


@pytest.fixture(params=TRANSPORTS)
def transport(request):
    return request.param


@pytest.fixture
def url(transport, tmp_path):
    """A URL to listen on."""
    return url_for(transport, tmp_path)


@pytest.fixture
def connected(url):
    """Makes pairs (dialing session, accepting session) with a configuration of the accepting side."""
    opened = []

    def make(config=None, client_config=None):
        with libmux.listen(url, config=config) as listener:
            dialing = libmux.connect(dialled(listener.url), timeout=10, config=client_config)
            opened.append(dialing)
            accepting = listener.accept(timeout=10)
            opened.append(accepting)
        return dialing, accepting

    yield make
    for session in opened:
        session.close()


@pytest.fixture
def sessions(connected):
    """A pair (dialing session, accepting session)."""
    return connected()


@pytest.fixture
def channels(sessions):
    """Two ends of a channel: the opener's and the acceptor's."""
    dialing, accepting = sessions
    with dialing.open(label=b"test") as ours, accepting.accept(timeout=10) as theirs:
        yield ours, theirs


def eventually(condition, seconds=10):
    """Waits for what happens in the background."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
