"""What goes wrong is an exception that says what, who, with which code, and whether to retry."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import time

import libmux
import pytest
from conftest import dialled, url_for


def test_a_refused_port_is_a_refused_connection():
    with pytest.raises(ConnectionRefusedError) as caught:
        libmux.connect("qmux://127.0.0.1:1")
    error = caught.value
    assert isinstance(error, libmux.RefusedError) and error.errno == errno.ECONNREFUSED
    assert error.status is libmux.Status.EREFUSED and error.retry_safe and error.origin is libmux.Origin.OS
    assert "127.0.0.1:1" in str(error)


def test_a_socket_path_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        libmux.connect(f"qmux+unix://{tmp_path}/nobody")
    assert "nobody" in str(caught.value)


@pytest.mark.parametrize("call", [libmux.connect, libmux.listen])
@pytest.mark.parametrize(
    "url, hint",
    [
        ("nosuch://x:1", "qmux"),
        ("qmux+carrier://x:1", "qmux"),
        ("qmux://127.0.0.1:0?windw=1", "window"),
        ("127.0.0.1:1", "scheme"),
        ("", "scheme"),
    ],
)
def test_a_url_that_cannot_be_used_says_what_exists(call, url, hint):
    with pytest.raises(ValueError, match=hint) as caught:
        call(url)
    assert caught.value.status is libmux.Status.EURL


def test_a_taken_address(tmp_path):
    with libmux.listen(url_for("qmux+tcp", tmp_path)) as listener, pytest.raises(OSError) as caught:
        libmux.listen(listener.url)
    assert caught.value.errno == errno.EADDRINUSE and caught.value.status is libmux.Status.EADDRINUSE


def test_reset_carries_its_code(channels):
    ours, theirs = channels
    ours.sendall(b"part")
    ours.reset(42)
    with pytest.raises(ConnectionResetError) as caught:
        while theirs.recv(100):
            pass
    error = caught.value
    assert (error.code, error.origin, error.status) == (42, libmux.Origin.PEER, libmux.Status.ERESET)
    with pytest.raises(ConnectionResetError):
        theirs.recv(100)
    theirs.sendall(b"the other direction lives", finish=True)
    assert ours.recv(100) == b"the other direction lives"


def test_stop_carries_its_code(channels):
    ours, theirs = channels
    theirs.stop(43)
    with pytest.raises(BrokenPipeError) as caught:
        while True:
            ours.sendall(b"x" * 65536)
    assert (caught.value.code, caught.value.status) == (43, libmux.Status.ESTOPPED)


def test_abort_is_a_reset_and_a_stop(channels):
    ours, theirs = channels
    ours.abort(44)
    with pytest.raises(ConnectionResetError) as caught:
        theirs.recv(1)
    assert caught.value.code == 44
    with pytest.raises(BrokenPipeError):
        while True:
            theirs.sendall(b"x" * 65536)


def test_a_code_is_never_that_of_another_failure(channels):
    ours, theirs = channels
    ours.stop(5)
    ours.reset(6)
    with pytest.raises(BrokenPipeError) as caught:
        while True:
            theirs.sendall(b"x" * 65536)
    assert caught.value.code == 5
    with pytest.raises(ConnectionResetError) as caught:
        theirs.recv(1)
    # The library keeps the details of an object's first failure only.
    assert caught.value.code in (6, None)


def test_writing_after_the_end(channels):
    ours, _ = channels
    ours.finish()
    with pytest.raises(libmux.FinishedError):
        ours.send(b"x")
    with pytest.raises(libmux.FinishedError):
        ours.finish()


@pytest.mark.parametrize("code", [-1, 1 << 62, (1 << 62) - 1, 1 << 64])
def test_codes_out_of_range_change_nothing(channels, code):
    ours, theirs = channels
    for call in (ours.reset, ours.stop, ours.abort, ours.session.close):
        with pytest.raises((ValueError, OverflowError)):
            call(code)
    ours.sendall(b"alive")
    assert theirs.recv(10) == b"alive"


def test_bad_arguments_say_what_is_allowed(sessions, channels):
    ours, _ = channels
    for call in (
        lambda: ours.recv(-1),
        lambda: ours.recv_into(bytearray(1), -1),
        lambda: ours.settimeout(-1),
        lambda: ours.settimeout(float("nan")),
        lambda: sessions[0].open(urgency=8),
        lambda: sessions[0].open(label=b"x" * 1025),
        lambda: sessions[0].accept(timeout=-1),
        lambda: sessions[0].close(0, "x" * 1025),
        lambda: sessions[0].close(0, "nul\0"),
        lambda: libmux.connect("qmux://127.0.0.1:1", timeout=0),
        lambda: libmux.connect("qmux://127.0.0.1:1", config=libmux.Config(options={"nosuch": "1"})),
        lambda: libmux.connect("qmux://127.0.0.1:1", config=libmux.Config(max_channels=-1)),
    ):
        with pytest.raises(ValueError):
            call()


def test_a_closed_object_says_so(url):
    listener = libmux.listen(url)
    dialing = libmux.connect(dialled(listener.url))
    channel = dialing.open()
    for thing in (channel, dialing, listener):
        thing.close()
        thing.close()
    for call in (
        lambda: channel.recv(1),
        lambda: channel.send(b"x"),
        lambda: channel.sendall(b"x"),
        channel.finish,
        lambda: channel.reset(1),
        lambda: channel.stop(1),
        lambda: channel.label,
        dialing.open,
        dialing.accept,
        lambda: dialing.capabilities,
        listener.accept,
        lambda: listener.url,
    ):
        with pytest.raises(libmux.ClosedError, match="closed by this side") as caught:
            call()
        assert caught.value.origin is libmux.Origin.LOCAL
    channel.abort(1)


def test_channels_end_with_their_session(connected):
    dialing, accepting = connected()
    with dialing.open() as ours, accepting.accept(timeout=10) as theirs:
        dialing.close(9, "over")
        with pytest.raises(ConnectionError):
            ours.recv(1)
        with pytest.raises(ConnectionError):
            theirs.recv(1)
    with pytest.raises(ConnectionAbortedError) as caught:
        accepting.accept()
    assert caught.value.code == 9


def test_timeouts(sessions, channels):
    ours, _ = channels
    started = time.monotonic()
    ours.settimeout(0.05)
    assert ours.gettimeout() == 0.05
    with pytest.raises(TimeoutError) as caught:
        ours.recv(1)
    assert caught.value.status is libmux.Status.TIMEDOUT
    with pytest.raises(TimeoutError):
        ours.sendall(b"x" * (64 << 20))
    with pytest.raises(TimeoutError):
        sessions[0].accept(timeout=0.05)
    with pytest.raises(TimeoutError):
        sessions[0].wait_closed(timeout=0.05)
    assert 0.2 <= time.monotonic() - started < 5
    ours.settimeout(0)
    with pytest.raises(BlockingIOError):
        ours.recv(1)
    with pytest.raises(BlockingIOError):
        while True:  # what is under way may make room once more
            ours.send(bytes(65536))
    with pytest.raises(BlockingIOError):
        sessions[0].accept(timeout=0)
    assert ours.makefile("rb", buffering=0).read(1) is None


def test_a_timeout_loses_nothing(channels):
    ours, theirs = channels
    ours.settimeout(0.01)
    for text in (b"one", b"two"):
        with pytest.raises(TimeoutError):
            ours.recv(10)
        theirs.sendall(text)
        ours.settimeout(10)
        assert ours.recv(10) == text
        ours.settimeout(0.01)


def test_exceptions_survive_pickling():
    with pytest.raises(libmux.Error) as caught:
        libmux.connect("qmux://127.0.0.1:1")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is type(caught.value) and copy.status is caught.value.status and str(copy) == str(caught.value)


SERVER = """
import libmux, sys
with libmux.listen(sys.argv[1]) as listener:
    print(listener.url, flush=True)
    channel = listener.accept().accept()
    while True:
        channel.sendall(b"x" * 65536)
"""


def test_a_killed_peer_never_looks_complete(url):
    server = subprocess.Popen([sys.executable, "-c", SERVER, url], stdout=subprocess.PIPE, text=True)
    try:
        # Over UDP nobody says that a process was killed: its silence does, soon.
        config = libmux.Config(keepalive=1)
        dialing = libmux.connect(dialled(server.stdout.readline().strip()), config=config)
        with dialing as session, session.open() as channel:
            channel.settimeout(30)
            assert channel.recv(1) == b"x"
            os.kill(server.pid, signal.SIGKILL)
            with pytest.raises(ConnectionError) as caught:
                while channel.recv(65536):
                    pass
            assert caught.value.origin is not libmux.Origin.LOCAL
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
