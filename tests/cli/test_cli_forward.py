"""TCP connections through a session: `mux forward` on one side, `mux listen --to` on the other."""

import hashlib
import http.server
import random
import socket
import socketserver
import struct
import subprocess
import threading
import time

import pytest

from mux_command import DEADLINE

FILES = {f"/file{n}": random.Random(n).randbytes(37 * n * n * n + n) for n in range(50)}


class Files(http.server.BaseHTTPRequestHandler):
    """A file for every path, and uploads answered with their hash."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(FILES.get(self.path.partition("?")[0], b""))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(hashlib.sha256(body).hexdigest().encode())

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class HttpServer(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


class TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@pytest.fixture
def serve():
    """Runs a server in this process; the address it listens on."""
    servers = []

    def start(server, handler):
        server = server(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return "%s:%d" % server.server_address

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def handler(serve_socket):
    """A request handler from a function of the connected socket."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.settimeout(DEADLINE)
            serve_socket(self.request)

    return Handler


def reset(connection):
    """Closes so that the other end sees a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def read_all(connection):
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def connect(host, port):
    return socket.create_connection((host, port), timeout=DEADLINE)


def through(mux, url, to):
    """Both commands between a client and the server at `to`: processes, host, port."""
    server, dial = mux.listen(url, "--to", to)
    client, host, port = mux.forward(dial)
    return server, client, host, port


def test_50_requests_at_once_are_exact(mux, url, serve, place):
    _, _, host, port = through(mux, url, serve(HttpServer, Files))
    args = ["curl", "--silent", "--show-error", "--fail", "--max-time", str(DEADLINE)]
    args += ["--parallel", "--parallel-immediate", "--parallel-max", "50"]
    for path in FILES:
        args += [f"http://{host}:{port}{path}", "--output", str(place / path.strip("/"))]
    ended = subprocess.run(args, capture_output=True, timeout=2 * DEADLINE)
    assert ended.returncode == 0, ended.stderr
    for path, body in FILES.items():
        got = (place / path.strip("/")).read_bytes() if body else b""
        assert hashlib.sha256(got).digest() == hashlib.sha256(body).digest(), path


def test_50_processes_at_once_are_exact(mux, url, serve):
    _, _, host, port = through(mux, url, serve(HttpServer, Files))
    curl = ["curl", "--silent", "--show-error", "--fail", "--max-time", str(DEADLINE)]
    running = [
        subprocess.Popen([*curl, f"http://{host}:{port}{path}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for path in FILES
    ]
    for process, body in zip(running, FILES.values()):
        out, err = process.communicate(timeout=2 * DEADLINE)
        assert process.returncode == 0, err
        assert hashlib.sha256(out).digest() == hashlib.sha256(body).digest()


def test_an_upload_arrives_whole(mux, url, serve, place):
    _, _, host, port = through(mux, url, serve(HttpServer, Files))
    body = random.Random(1).randbytes(9 << 20)
    (place / "body").write_bytes(body)
    args = ["curl", "--silent", "--show-error", "--fail", "--data-binary", f"@{place}/body", f"http://{host}:{port}/"]
    ended = subprocess.run(args, capture_output=True, timeout=2 * DEADLINE)
    assert ended.stdout.decode() == hashlib.sha256(body).hexdigest(), ended.stderr


def test_the_client_may_end_first_and_read_on(mux, url, serve):
    def answer_after_the_end(connection):
        got = read_all(connection)
        connection.sendall(got * 3)

    _, _, host, port = through(mux, url, serve(TcpServer, handler(answer_after_the_end)))
    with connect(host, port) as client:
        client.sendall(b"abc" * 100_000)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"abc" * 300_000


def test_the_server_may_end_first_and_read_on(mux, url, serve):
    got = []
    done = threading.Event()

    def end_then_read(connection):
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        got.append(read_all(connection))
        done.set()

    _, _, host, port = through(mux, url, serve(TcpServer, handler(end_then_read)))
    with connect(host, port) as client:
        assert read_all(client) == b"hello"
        client.sendall(b"x" * 1_000_000)
        client.shutdown(socket.SHUT_WR)
        assert done.wait(DEADLINE)
    assert got == [b"x" * 1_000_000]


def test_a_reset_of_the_server_reaches_the_client(mux, url, serve):
    def answer_half(connection):
        connection.recv(1)
        connection.sendall(b"half")
        # What was sent is read before the reset is made.
        connection.recv(1)
        reset(connection)

    _, _, host, port = through(mux, url, serve(TcpServer, handler(answer_half)))
    with connect(host, port) as client:
        client.sendall(b"?")
        assert client.recv(4) == b"half"
        client.sendall(b"!")
        with pytest.raises(ConnectionResetError):
            read_all(client)


def test_a_reset_of_the_client_reaches_the_server(mux, url, serve):
    seen = []
    done = threading.Event()

    def read(connection):
        try:
            connection.sendall(b"go")
            seen.append(read_all(connection))
        except ConnectionResetError as error:
            seen.append(error)
        done.set()

    _, _, host, port = through(mux, url, serve(TcpServer, handler(read)))
    client = connect(host, port)
    assert client.recv(2) == b"go"
    reset(client)
    assert done.wait(DEADLINE)
    assert isinstance(seen[0], ConnectionResetError), seen


def test_a_server_that_is_not_there_is_a_reset(mux, url):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = "%s:%d" % unused.getsockname()
    server, client, host, port = through(mux, url, address)
    # The reset may be here before the connection is seen to be.
    with pytest.raises(ConnectionResetError), connect(host, port) as connection:
        read_all(connection)
    assert "cannot connect" in server.end()
    assert "code 2" in client.end()


@pytest.mark.parametrize("which", ["listen", "forward"])
def test_a_killed_process_is_a_reset_on_the_other_side(mux, url, serve, which):
    seen = []
    done = threading.Event()

    def read(connection):
        try:
            connection.sendall(b"go")
            seen.append(read_all(connection))
        except ConnectionResetError as error:
            seen.append(error)
        done.set()

    server, client, host, port = through(mux, url, serve(TcpServer, handler(read)))
    connection = connect(host, port)
    assert connection.recv(2) == b"go"
    if which == "listen":
        server.kill()
        with pytest.raises(ConnectionResetError):
            read_all(connection)
    else:
        client.kill()
        assert done.wait(DEADLINE)
        assert isinstance(seen[0], ConnectionResetError), seen
    connection.close()


def test_a_session_that_died_is_dialed_again(mux, url, serve, place):
    to = serve(TcpServer, handler(lambda connection: connection.sendall(read_all(connection))))
    url, pin = mux.with_certificate(url, place)
    server, dial = mux.listen(url, "--to", to)
    client, host, port = mux.forward(dial + pin)
    server.kill()
    server.wait(timeout=DEADLINE)
    # On the same address as before, also where a killed process left its socket file.
    _, again = mux.listen(dial + url.removeprefix(url.partition("?")[0]), "--to", to)
    assert again == dial
    # QUIC learns of it by silence; until then a connection shares the fate of the session that is dead.
    assert b"over" in client.stderr.readline()
    with connect(host, port) as connection:
        connection.sendall(b"hello again")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b"hello again"


def test_a_label_goes_with_every_connection(mux, url, serve):
    to = serve(TcpServer, handler(lambda connection: connection.sendall(b"hi")))
    server, dial = mux.listen(url, "--to", to, "-v")
    _, host, port = mux.forward(dial, "--label", "web")
    with connect(host, port) as connection:
        assert read_all(connection) == b"hi"
    assert 'label "web"' in server.end()


def test_one_stuck_connection_does_not_hold_the_others(mux, url, serve):
    def flood(connection):
        if connection.recv(1) == b"f":
            try:
                while True:
                    connection.sendall(b"z" * 65536)
            except OSError:
                return
        connection.sendall(b"ok")

    _, _, host, port = through(mux, url, serve(TcpServer, handler(flood)))
    with connect(host, port) as stuck:
        stuck.sendall(b"f")
        time.sleep(0.2)
        for _ in range(20):
            with connect(host, port) as other:
                other.sendall(b"q")
                assert read_all(other) == b"ok"
