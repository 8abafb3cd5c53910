"""Mistakes are explained, and the exit code tells them from failures."""

import re
import socket
import subprocess

import pytest

from mux_command import ENCRYPTED


def free_port():
    """A port where nobody listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_a_refused_port_is_a_failure_with_the_reason(mux):
    ended = mux.run("connect", f"qmux://127.0.0.1:{free_port()}")
    assert ended.returncode == 1
    assert b"refused" in ended.stderr.lower() and b"safe to retry" in ended.stderr, ended.stderr


def test_a_udp_port_where_nobody_listens_is_refused(mux):
    with socket.socket(type=socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    ended = mux.run("connect", f"quic://127.0.0.1:{port}?insecure=1&connect_timeout=60s")
    assert ended.returncode == 1
    assert b"refused" in ended.stderr.lower() and b"safe to retry" in ended.stderr, ended.stderr


def test_who_waits_is_told(mux):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"quic://127.0.0.1:{silent.getsockname()[1]}?insecure=1&connect_timeout=4s"
        process = mux.start("connect", url)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and said.count(b"still trying") == 1 and b"cannot connect" in said, said


def test_every_option_and_url_has_room_in_the_help(mux):
    said = mux.run("--help").stdout.decode()
    for name in ("ext", "path", "window", "pin"):
        assert re.search(rf"^  {name}  +\S", said, re.M), said
    for example in ("qmux+tcp://host:port", "h2c+unix:///run/mux.sock?path=/mux/1"):
        assert re.search(rf"^  {re.escape(example)}  +\S", said, re.M), said


def test_ping_measures_on_every_wire(mux, url):
    _, dial = mux.listen(url, "--echo")
    ended = mux.run("ping", dial, "--count", "3", "--interval", "0.01")
    lines = ended.stdout.decode().splitlines()
    assert ended.returncode == 0 and len(lines) == 4 and lines[3].startswith("3 answers"), ended.stderr


def test_a_missing_socket_file_is_a_failure(mux, place):
    ended = mux.run("connect", f"qmux+unix://{place}/nobody.sock")
    assert ended.returncode == 1 and b"nobody.sock" in ended.stderr, ended.stderr


def test_forward_fails_at_once_when_there_is_no_session(mux):
    ended = mux.run("forward", "--via", f"qmux://127.0.0.1:{free_port()}", "--listen", "127.0.0.1:0")
    assert ended.returncode == 1 and ended.stdout == b"" and b"refused" in ended.stderr.lower()


@pytest.mark.parametrize("command", ["connect", "listen"])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nosuch://127.0.0.1:1", ["nosuch", "qmux"]),
        ("qmux+nosuch://127.0.0.1:1", ["nosuch", "qmux+unix"]),
        ("qmux://127.0.0.1:1?windw=1", ["windw", "window", "max_channels"]),
        ("qmux://127.0.0.1:1?window=3", ["window", "1024"]),
        ("qmux://127.0.0.1", ["port"]),
        ("qmux://127.0.0.1:99999", ["port", "65535"]),
        ("127.0.0.1:1", ["scheme", "qmux://"]),
        ("qmux://user:secret@127.0.0.1:1", ["secrets"]),
    ],
)
def test_a_url_that_cannot_be_used_lists_what_is_allowed(mux, command, url, said):
    ended = mux.run(command, url)
    assert ended.returncode == 2, ended.stderr
    for word in said:
        assert word in ended.stderr.decode(), ended.stderr
    assert ended.stdout == b""


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["nosuch"],
        ["listen"],
        ["listen", "qmux://127.0.0.1:0", "--echo", "--to", "127.0.0.1:1"],
        ["listen", "qmux://127.0.0.1:0", "--to", "127.0.0.1"],
        ["forward", "--via", "qmux://127.0.0.1:1"],
        ["forward", "--via", "qmux://127.0.0.1:1", "--listen", "here"],
        ["bench", "--backend", "nosuch"],
        ["bench", "--scenario", "nosuch"],
        ["bench", "--seconds", "0"],
        ["bench", "--runs", "0"],
        ["bench", "--api", "nosuch"],
    ],
)
def test_a_wrong_command_line_exits_with_2(mux, args):
    ended = mux.run(*args)
    assert ended.returncode == 2 and ended.stderr, ended


def test_a_taken_address_is_a_failure(mux):
    _, url = mux.listen("qmux://127.0.0.1:0", "--echo")
    ended = mux.run("listen", url)
    assert ended.returncode == 1 and b"in use" in ended.stderr, ended.stderr


def test_backends_lists_schemes_and_what_they_can(mux):
    ended = mux.run("backends")
    text = ended.stdout.decode()
    assert ended.returncode == 0
    lines = text.splitlines()[1:]
    table = {name.split()[0]: can.strip() for name, can in zip(lines[::2], lines[1::2], strict=True)}
    assert sorted(table) == ["h2", "h2c", "h2c+unix", "qmux", "qmux+tcp", "qmux+tls", "qmux+unix", "quic"]
    for scheme, can in table.items():
        assert f"{scheme}://" in text
        assert can.startswith("can: ") and "half-close" in can and "server-open" in can, can
        assert can.endswith("; encrypted (TLS)") == (scheme in ENCRYPTED), can
    assert "no-hol" in table["quic"] and "no-hol" not in table["h2"]


@pytest.mark.parametrize("command", [[], ["listen"], ["connect"], ["forward"]])
def test_help_teaches_urls_options_and_exit_codes(mux, command):
    ended = mux.run(*command, "--help")
    text = ended.stdout.decode()
    assert ended.returncode == 0
    for word in ["qmux://", "max_channels", "Exit codes", "mux "]:
        assert word in text, text


def test_a_reader_that_hangs_up_is_no_panic(mux):
    # The pipe's reading end is closed before a byte is written.
    process = subprocess.Popen([mux.binary, "backends"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(timeout=60) in (0, 141)
    assert said == b"", said
