"""Builds and runs the libmux side. MUX_AGENT_INTEROP replaces its file."""

import json
import os
import queue
import subprocess
import threading
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 120


@pytest.fixture(scope="session")
def agent():
    given = os.environ.get("MUX_AGENT_INTEROP")
    if given:
        return given
    command = ["cargo", "build", "--example", "interop_agent", "--message-format=json-render-diagnostics"]
    built = subprocess.run(command, cwd=CHECKOUT, check=True, stdout=subprocess.PIPE, text=True)
    made = [json.loads(line).get("executable") for line in built.stdout.splitlines()]
    return next(file for file in reversed(made) if file)


class Server:
    """A process whose lines are read as they come."""

    def __init__(self, command, cwd=None):
        self.process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.strip())

    def line(self):
        return self.lines.get(timeout=PATIENCE)

    def expect(self, *lines):
        """These lines come next, in any order; the end of a session may come between them."""
        got = []
        while len(got) < len(lines):
            line = self.line()
            if not line.startswith("over "):
                got.append(line)
        assert sorted(got) == sorted(lines)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.thread.join()
        self.process.stdout.close()


@pytest.fixture
def serving(agent):
    """The agent as a listener; its first line, the URL, as `url` and `address`."""
    server = Server([agent, "serve"])
    server.url = server.line()
    host, port = server.url.split("//")[1].split(":")
    server.address = (host, int(port))
    yield server
    server.stop()


@pytest.fixture
def check(agent):
    """Runs every client check against the address of a peer that echoes."""

    def run(host, port):
        url = f"qmux://{host}:{port}"
        done = subprocess.run([agent, "check", url], capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"

    return run
