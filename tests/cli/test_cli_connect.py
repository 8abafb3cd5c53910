"""`mux connect` and `mux listen`: a channel on stdin and stdout."""

import hashlib
import os
import pathlib
import random
import signal
import socket
import subprocess
import threading
import time

import pytest

from mux_command import DEADLINE, wait_for

MIB = 1 << 20


def noise(size):
    return random.Random(size).randbytes(size)


def test_64_mib_come_back_exactly(mux, url):
    _, dial = mux.listen(url, "--echo")
    data = noise(64 * MIB)
    ended = mux.run("connect", dial, stdin=data)
    assert ended.returncode == 0, ended.stderr
    assert hashlib.sha256(ended.stdout).digest() == hashlib.sha256(data).digest()
    assert ended.stderr == b""


@pytest.mark.parametrize(("listen", "dial"), [("off", "off"), ("off", "auto"), ("auto", "off"), ("on", "on")])
def test_a_peer_of_the_base_protocol_is_served_as_well(mux, listen, dial):
    server, url = mux.listen(f"qmux://127.0.0.1:0?ext={listen}", "--echo")
    data = noise(4 * MIB)
    ended = mux.run("connect", f"{url.partition('?')[0]}?ext={dial}", stdin=data)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout == data
    assert server.end() == "", "a goodbye is no news"


def test_a_label_that_the_peer_cannot_understand_is_an_error(mux):
    _, url = mux.listen("qmux://127.0.0.1:0?ext=off", "--echo")
    ended = mux.run("connect", url, "--label", "x")
    assert ended.returncode == 1 and b"label" in ended.stderr, ended.stderr


def test_the_line_is_the_url_with_the_real_port(mux):
    process, dial = mux.listen("qmux://127.0.0.1:0", "--echo")
    assert dial.startswith("qmux") and not dial.endswith(":0")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=DEADLINE)[0] == b"", "one line and no more"


def test_one_listener_serves_many(mux, url):
    _, dial = mux.listen(url, "--echo")
    clients = [mux.start("connect", dial, stdin=subprocess.PIPE) for _ in range(8)]
    for number, client in enumerate(clients):
        client.stdin.write(b"%d" % number)
    for number, client in enumerate(clients):
        out, err = client.communicate(timeout=DEADLINE)
        assert (client.returncode, out, err) == (0, b"%d" % number, b"")


def test_an_answer_arrives_while_stdin_is_open(mux, url):
    _, dial = mux.listen(url, "--echo")
    client = mux.start("connect", dial, stdin=subprocess.PIPE)
    for word in [b"one\n", b"two\n"]:
        client.stdin.write(word)
        assert client.first_line().encode() == word.strip()
    assert client.poll() is None
    out, _ = client.communicate(timeout=DEADLINE)
    assert (client.returncode, out) == (0, b"")


def test_both_ends_on_stdio_move_a_file_each_way(mux, url):
    up, down = noise(5 * MIB), noise(3 * MIB)
    server, dial = mux.listen(url, stdin=subprocess.PIPE)
    got = {}
    serving = threading.Thread(target=lambda: got.update(server=server.communicate(down, timeout=DEADLINE)))
    serving.start()
    client = mux.run("connect", dial, stdin=up)
    serving.join()
    assert client.returncode == 0, client.stderr
    assert server.returncode == 0, got["server"][1]
    assert client.stdout == down
    assert got["server"][0] == up


def test_without_the_url_stdout_is_the_channel_alone(mux, place):
    server = mux.start("listen", "--no-url", f"qmux+unix://{place}/m.sock")
    wait_for(lambda: (place / "m.sock").exists())
    assert mux.run("connect", f"qmux+unix://{place}/m.sock", stdin=b"hello").returncode == 0
    assert server.communicate(timeout=DEADLINE)[0] == b"hello"
    assert server.returncode == 0


def test_a_silent_session_does_not_hold_up_the_first_channel(mux):
    server, dial = mux.listen("qmux://127.0.0.1:0")
    host, port = dial.rpartition("/")[2].rsplit(":", 1)
    with socket.create_connection((host, int(port))):
        time.sleep(0.1)
        assert mux.run("connect", dial, stdin=b"hello").returncode == 0
    assert server.communicate(timeout=DEADLINE)[0] == b"hello"
    assert server.returncode == 0


def test_curl_opens_a_channel_by_hand(mux, place):
    for listen, server in [("h2c://127.0.0.1:0", []), (f"h2c+unix://{place}/m.sock", ["--unix-socket", f"{place}/m.sock"])]:
        _, dial = mux.listen(listen, "--echo")
        authority = "localhost" if server else dial.removeprefix("h2c://")
        args = ["curl", "--silent", "--show-error", "--http2-prior-knowledge", "--no-buffer", *server]
        args += ["--max-time", str(DEADLINE), "--request", "POST", "--upload-file", "-", f"http://{authority}/mux/1/ch"]
        data = noise(MIB)
        for body in (b"hello", b"", data):
            ended = subprocess.run(args, input=body, capture_output=True, timeout=DEADLINE)
            assert (ended.returncode, ended.stdout) == (0, body), ended.stderr


def test_curl_opens_a_channel_over_tls(mux):
    _, dial = mux.listen("h2://127.0.0.1:0", "--echo")
    url = dial.partition("?")[0].replace("h2://", "https://")
    args = ["curl", "--silent", "--show-error", "--insecure", "--http2", "--no-buffer"]
    args += ["--max-time", str(DEADLINE), "--request", "POST", "--upload-file", "-", f"{url}/mux/1/ch"]
    ended = subprocess.run(args, input=b"hello", capture_output=True, timeout=DEADLINE)
    assert (ended.returncode, ended.stdout) == (0, b"hello"), ended.stderr


def test_a_label_is_seen_by_the_listener(mux, url):
    server, dial = mux.listen(url, "--echo", "-v")
    assert mux.run("connect", dial, "--label", "files \u00e4").returncode == 0
    said = server.end()
    assert "files" in said and "label" in said, said


def test_a_label_that_is_too_long_says_what_is_allowed(mux, url):
    _, dial = mux.listen(url, "--echo")
    ended = mux.run("connect", dial, "--label", "x" * 5000)
    assert ended.returncode == 1 and b"1024" in ended.stderr, ended.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_listener_that_goes_in_mid_transfer_is_an_error(mux, url, number):
    server, dial = mux.listen(url, "--echo")
    client = mux.start("connect", dial, stdin=subprocess.PIPE)
    client.stdin.write(b"half of it\n")
    assert client.first_line() == "half of it"
    server.send_signal(number)
    # Closing the client's stdin earlier could let the echo complete.
    server.wait(timeout=DEADLINE)
    out, err = client.communicate(timeout=DEADLINE)
    assert client.returncode == 1, (out, err)
    assert b"not complete" in err, err


def test_a_client_that_is_killed_is_no_clean_end(mux, url):
    server, dial = mux.listen(url, stdin=subprocess.PIPE)
    client = mux.start("connect", dial, stdin=subprocess.PIPE)
    client.stdin.write(b"half of it\n")
    assert server.first_line() == "half of it"
    client.kill()
    _, err = server.communicate(timeout=DEADLINE)
    assert server.returncode == 1 and b"not complete" in err, err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_everything_promptly(mux, url, number, code):
    server, dial = mux.listen(url, "--echo")
    client = mux.start("connect", dial, stdin=subprocess.PIPE)
    client.stdin.write(b"x\n")
    assert client.first_line() == "x"
    for process in (client, server):
        asked = time.monotonic()
        process.send_signal(number)
        process.wait(timeout=DEADLINE)
        assert process.returncode == code
        assert time.monotonic() - asked < 10


def test_a_socket_file_is_gone_after_a_signal(mux, place):
    path = place / "m.sock"
    server, dial = mux.listen(f"qmux+unix://{path}", "--echo")
    assert path.exists()
    server.end(signal.SIGINT)
    assert not path.exists()


def test_a_reader_that_hangs_up_ends_the_command_quietly(mux, url):
    _, dial = mux.listen(url, "--echo")
    client = mux.start("connect", dial, stdin=subprocess.PIPE)
    client.stdin.write(b"x\n")
    client.first_line()
    client.stdout.close()
    try:
        while True:
            client.stdin.write(b"y" * 65536)
    except BrokenPipeError:
        pass
    assert client.wait(timeout=DEADLINE) == 141
    assert client.stderr.read() == b""


def test_a_directory_as_stdin_is_an_error(mux, url):
    _, dial = mux.listen(url, "--echo")
    directory = os.open(pathlib.Path(__file__).parent, os.O_RDONLY)
    try:
        client = mux.start("connect", dial, stdin=directory)
    finally:
        os.close(directory)
    _, err = client.communicate(timeout=DEADLINE)
    assert client.returncode == 1 and b"stdin" in err, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("role", ["listen", "connect", "forward"])
def test_an_interrupted_command_tells_its_peer_at_once(mux, role, number):
    """Over UDP the system does not: silence would, after half a minute."""
    server, dial = mux.listen("quic://127.0.0.1:0", "--echo")
    if role == "forward":
        client, host, port = mux.forward(dial)
        connection = socket.create_connection((host, port), timeout=DEADLINE)
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
    else:
        client = mux.start("connect", dial, stdin=subprocess.PIPE)
        client.stdin.write(b"x\n")
        assert client.first_line() == "x"
    ended, told = (server, client) if role == "listen" else (client, server)
    asked = time.monotonic()
    ended.send_signal(number)
    assert told.stderr.readline()
    assert time.monotonic() - asked < 10
