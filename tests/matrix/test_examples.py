"""The examples: any client talks to any server, and no half of a file ever has the name of the whole."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import CHECKOUT, PATIENCE, Program, compile_c, rust_example
from urls import URLS

LANGUAGES = ["c", "python", "rust"]
NAMES = ["echo_server", "echo_client", "file_server", "file_fetch"]


@pytest.fixture(scope="session")
def examples(library_dir, tmp_path_factory):
    """The command line of an example by language and name."""
    c = tmp_path_factory.mktemp("examples")
    for name in NAMES:
        compile_c(library_dir, CHECKOUT / "examples" / "c" / f"{name}.c", c / name)
    rust = rust_example("echo_server").parent
    python = CHECKOUT / "examples" / "python"
    return {
        **{("c", name): [c / name] for name in NAMES},
        **{("python", name): [sys.executable, python / f"{name}.py"] for name in NAMES},
        **{("rust", name): [rust / name] for name in NAMES},
    }


@pytest.fixture
def serve(examples):
    """Starts a server and returns it with the URL it printed."""
    servers = []

    def start(language, name, *arguments):
        servers.append(Program([*examples[language, name], *arguments]))
        return servers[-1], servers[-1].url()

    yield start
    for server in servers:
        server.end()


@pytest.fixture
def tree(tmp_path):
    """A directory to serve, beside a file that is none of its."""
    directory = tmp_path / "served"
    (directory / "sub").mkdir(parents=True)
    (directory / "sub" / "data.bin").write_bytes(random.Random(5).randbytes(3_000_001))
    (directory / "empty").touch()
    (tmp_path / "secret").write_text("secret")
    (directory / "link").symlink_to(tmp_path / "secret")
    return directory


def call(examples, language, name, *arguments):
    command = [*map(str, examples[language, name]), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.parametrize("server", LANGUAGES)
@pytest.mark.parametrize("client", LANGUAGES)
def test_echo(serve, examples, server, client):
    _, url = serve(server, "echo_server", "qmux://127.0.0.1:0")
    done = call(examples, client, "echo_client", url, "grüße")
    assert (done.stdout, done.returncode) == ("grüße\n", 0), done.stderr


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("server", LANGUAGES)
@pytest.mark.parametrize("client", LANGUAGES)
def test_files(serve, examples, tree, tmp_path, server, client, url):
    _, url = serve(server, "file_server", URLS[url](tmp_path), tree)
    output = tmp_path / "output"
    for path in ("sub/data.bin", "empty"):
        done = call(examples, client, "file_fetch", url, path, output)
        assert done.returncode == 0, done.stderr
        assert output.read_bytes() == (tree / path).read_bytes()
        output.unlink()
    for path in ("nothing", "sub", ".", "../secret", "link", str(tmp_path / "secret"), "x" * 5000):
        done = call(examples, client, "file_fetch", url, path, output)
        assert done.returncode == 1, (path, done.stdout)
        assert done.stderr and "Traceback" not in done.stderr
    assert [name for name in os.listdir(tmp_path) if name.startswith("output")] == []


@pytest.mark.parametrize("client", LANGUAGES)
def test_a_server_that_dies_leaves_no_file(serve, examples, tree, tmp_path, client):
    with (tree / "large").open("wb") as file:
        file.truncate(1 << 40)
    server, url = serve("c", "file_server", "qmux://127.0.0.1:0", tree)
    output = tmp_path / "output"
    fetching = Program([*examples[client, "file_fetch"], url, "large", output])
    try:
        part = tmp_path / "output.part"
        wait_for(lambda: part.exists() and part.stat().st_size > 1 << 20)
        server.kill()
        assert fetching.wait() == 1, fetching.stderr
    finally:
        fetching.end()
    assert not output.exists() and not part.exists()


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("language", ["c", "python"])
def test_servers_end_on_signals(serve, language, signal_name):
    server, _ = serve(language, "echo_server", "qmux://127.0.0.1:0")
    server.process.send_signal(getattr(signal, signal_name))
    assert server.wait() == 0, server.stderr


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
