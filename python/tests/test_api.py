"""What the objects do when nothing goes wrong."""

import array
import threading

import libmux
import pytest
from conftest import dialled, url_for
from libmux._config import native_config
from libmux._native import lib


def read_all(channel):
    return b"".join(iter(lambda: channel.recv(65536), b""))


def test_the_listener_says_the_real_port(tmp_path):
    with libmux.listen(url_for("qmux+tcp", tmp_path)) as listener:
        assert not listener.url.endswith(":0")
        assert listener.url in repr(listener)


def test_both_sides_open_and_accept(sessions):
    for opener, acceptor in (sessions, sessions[::-1]):
        with opener.open() as ours, acceptor.accept(timeout=10) as theirs:
            ours.sendall(b"ping", finish=True)
            assert read_all(theirs) == b"ping"
            theirs.sendall(b"pong")
            theirs.finish()
            assert read_all(ours) == b"pong"
            assert ours.recv(1) == b"", "the end stays the end"


def test_an_open_is_seen_without_a_byte(sessions):
    dialing, accepting = sessions
    with dialing.open(label=b"silent", urgency=0), accepting.accept(timeout=10) as theirs:
        assert theirs.label == b"silent"


def test_label_id_session_and_repr(sessions, channels):
    ours, theirs = channels
    assert ours.label == theirs.label == b"test"
    assert isinstance(ours.id, int) and ours.session is sessions[0]
    assert "test" in repr(ours)
    ours.close()
    assert ours.closed and "closed" in repr(ours)


def test_capabilities_and_info(sessions, transport):
    for session in sessions:
        wanted = libmux.Capability.LABEL | libmux.Capability.RESET_VISIBLE | libmux.Capability.SERVER_OPEN
        assert session.capabilities & wanted == wanted
        assert session.info.url.startswith(transport)
        assert session.cause is None
    assert sessions[0].info.peer_addr == sessions[1].info.local_addr
    assert libmux.Capability.HALF_CLOSE in libmux.scheme_capabilities(transport)


def test_recv_into_fills_any_writable_buffer(channels):
    ours, theirs = channels
    ours.sendall(b"0123456789", finish=True)
    buffer = bytearray(4)
    assert theirs.recv_into(buffer) == 4 and buffer == b"0123"
    assert theirs.recv_into(memoryview(buffer)[1:], 2) == 2 and buffer == b"0453"
    assert theirs.recv_into(bytearray(0)) == 0
    numbers = array.array("I", [0])
    assert theirs.recv_into(numbers) == 4 and numbers.tobytes() == b"6789"
    assert theirs.recv_into(buffer) == 0
    with pytest.raises((TypeError, BufferError, ValueError)):
        theirs.recv_into(b"read-only")


def test_send_takes_any_contiguous_buffer(channels):
    ours, theirs = channels
    ours.sendall(bytearray(b"ab"))
    ours.sendall(memoryview(b"cdef")[:2])
    ours.sendall(array.array("H", [0x6665]))
    assert ours.send(b"") == 0
    ours.sendall(b"", finish=True)
    assert read_all(theirs) == b"abcd" + array.array("H", [0x6665]).tobytes()


def test_more_than_the_windows_goes_through(channels):
    ours, theirs = channels
    data = bytes(range(256)) * 64 * 1024
    writer = threading.Thread(target=lambda: ours.sendall(data, finish=True))
    writer.start()
    assert read_all(theirs) == data
    writer.join()


def test_makefile_reads_and_writes(channels):
    ours, theirs = channels
    with ours.makefile("rw", encoding="utf-8", newline="\n") as file:
        file.write("première\nseconde\n")
        file.flush()
        with theirs.makefile("rb") as lines:
            assert lines.readline() == "première\n".encode()
            assert lines.readline() == b"seconde\n"
        theirs.sendall(b"answer\n", finish=True)
        assert file.read() == "answer\n"
    assert not ours.closed
    with theirs.makefile("wb", buffering=0) as raw, pytest.raises(libmux.FinishedError):
        raw.write(b"x")
    for mode in ("x", "b", ""):
        with pytest.raises(ValueError):
            ours.makefile(mode)


def test_shutdown_is_like_a_socket(channels):
    ours, theirs = channels
    ours.shutdown(libmux.SHUT_WR)
    assert theirs.recv(1) == b""
    ours.shutdown(libmux.SHUT_RD)
    with pytest.raises(BrokenPipeError):
        while True:
            theirs.sendall(b"x" * 65536)
    with pytest.raises(ValueError):
        ours.shutdown(9)


def test_a_clean_block_closes_and_a_failed_one_aborts(sessions):
    dialing, accepting = sessions
    with dialing.open() as ours:
        ours.sendall(b"whole")
    with accepting.accept(timeout=10) as theirs:
        assert read_all(theirs) == b"whole"
    with pytest.raises(ZeroDivisionError), dialing.open() as ours:
        ours.sendall(b"half")
        theirs = accepting.accept(timeout=10)
        raise ZeroDivisionError
    with theirs, pytest.raises(ConnectionResetError):
        read_all(theirs)


def test_a_failed_session_block_leaves_no_clean_end(connected):
    dialing, accepting = connected()
    with pytest.raises(ZeroDivisionError), dialing:
        ours = dialing.open()
        ours.sendall(b"half")
        theirs = accepting.accept(timeout=10)
        raise ZeroDivisionError
    with theirs, pytest.raises(ConnectionError):
        read_all(theirs)
    ours.close()


def test_closing_a_session_before_its_channel_leaves_no_clean_end(connected):
    for _ in range(20):
        dialing, accepting = connected()
        ours = dialing.open()
        ours.sendall(b"half")
        with accepting.accept(timeout=10) as theirs:
            theirs.settimeout(10)
            dialing.close()
            ours.close()
            with pytest.raises(ConnectionError):
                read_all(theirs)


def test_the_end_of_a_session_ends_the_loop(connected):
    dialing, accepting = connected()
    channel = dialing.open()
    channel.sendall(b"last words", finish=True)
    channel.close()
    dialing.close(7, "done here")
    seen = []
    for theirs in accepting:
        with theirs:
            seen.append(read_all(theirs))
    assert seen == [b"last words"]
    cause = accepting.cause
    assert (cause.code, cause.origin, cause.status) == (7, libmux.Origin.PEER, libmux.Status.ECLOSED)
    assert "done here" in cause.strerror
    assert accepting.wait_closed(timeout=10).code == 7


def test_draining_refuses_new_channels(connected):
    dialing, accepting = connected()
    with dialing.open() as ours, accepting.accept(timeout=10) as theirs:
        accepting.drain()
        ours.sendall(b"old ones finish", finish=True)
        assert read_all(theirs) == b"old ones finish"
        with pytest.raises(OSError) as refused:
            while True:
                with dialing.open(timeout=10) as late:
                    late.settimeout(10)
                    late.recv(1)
        assert refused.value.retry_safe


def test_configuration_reaches_the_library(connected):
    config = libmux.Config(max_channels=1, keepalive=0.5, options={"window": "64k"})
    dialing, accepting = connected(config)
    with dialing.open(), accepting.accept(timeout=10):
        try:
            beyond = dialing.open(timeout=0.5)
        except TimeoutError:
            # A wire that announces how many channels are allowed: an open waits until there is room.
            return
        with beyond:
            beyond.settimeout(10)
            with pytest.raises(ConnectionRefusedError) as refused:
                beyond.recv(1)
            assert refused.value.retry_safe and refused.value.origin is libmux.Origin.PEER


def test_version_is_the_packages():
    assert libmux.__version__.count(".") == 2


def test_every_setting_has_a_place_in_the_library(url):
    everything = libmux.Config(
        connect_timeout=5,
        keepalive=1.5,
        idle=60,
        linger=5,
        max_channels=10,
        window=65536,
        budget=1 << 20,
        send_buffer=65536,
        frame_size=16384,
        channel_backlog=5,
        session_backlog=5,
        max_label=100,
        max_sessions=5,
    )
    with libmux.listen(url, config=everything) as listener, libmux.connect(dialled(listener.url), config=everything) as dialing:
        with listener.accept(timeout=10), dialing.open(label=b"x" * 100):
            with pytest.raises(ValueError):
                dialing.open(label=b"x" * 101)


def test_tls_settings_are_checked_where_they_are_given(tmp_path):
    pem = tmp_path / "some.pem"
    pem.write_bytes(b"-----BEGIN CERTIFICATE-----\n")
    whole = libmux.TLS(
        ca=pem,
        cert=str(pem),
        key=b"-----BEGIN PRIVATE KEY-----\n",
        server_name="example.org",
        pins=[bytes(32)],
        alpn=["one", "two"],
        client_auth=libmux.ClientAuth.REQUIRE,
    )
    native = native_config(None, whole, None)
    assert native.h != 0
    lib.mux_close(native.h)
    for wrong in (
        libmux.TLS(cert=b"x"),
        libmux.TLS(key=b"x"),
        libmux.TLS(pins=[bytes(31)]),
        libmux.TLS(ca=tmp_path / "nothing"),
    ):
        with pytest.raises((ValueError, FileNotFoundError)):
            native_config(None, wrong, None)
