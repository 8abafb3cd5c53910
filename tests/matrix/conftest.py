"""Builds or finds the agents and the command, and runs them.

Each default can be replaced: LIBMUX_DIR (directory of libmux.so), MUX_AGENT_C, MUX_AGENT_RUST, MUX_BIN (files). The
Python agent runs under the interpreter that runs pytest, with the `libmux` package installed there.
"""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from urls import dialled

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
PATIENCE = 90
# What a shell runs in the background it starts with Ctrl-C ignored, and so would be what is started here.
signal.signal(signal.SIGINT, signal.default_int_handler)


def cargo_build(name, *arguments):
    """Builds one thing with cargo; the file of this name that it made."""
    command = ["cargo", "build", *arguments, "--message-format=json-render-diagnostics"]
    built = subprocess.run(command, cwd=CHECKOUT, check=True, stdout=subprocess.PIPE, text=True)
    for line in reversed(built.stdout.splitlines()):
        for file in json.loads(line).get("filenames", []):
            if Path(file).name == name:
                return Path(file)
    raise RuntimeError(f"{' '.join(command)} made no {name}")


def rust_example(name):
    """A Rust example's file; built with the whole workspace, so that what `cargo test` has built is used again."""
    return cargo_build(name, "--workspace", "--examples")


@pytest.fixture(scope="session")
def library_dir():
    """Where libmux.so is."""
    if given := os.environ.get("LIBMUX_DIR"):
        return Path(given)
    subprocess.run(["make", "--silent", "lib"], cwd=CHECKOUT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", CHECKOUT / "target")).resolve() / "dist"


def compile_c(library_dir, source, program):
    """Compiles a C program against the checkout's header."""
    flags = ["-std=c11", "-O1", "-g", "-pthread", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    link = [f"-L{library_dir}", f"-Wl,-rpath,{library_dir}", "-lmux"]
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, *flags, f"-I{CHECKOUT / 'include'}", "-o", program, source, *link], check=True)


@pytest.fixture(scope="session")
def programs(library_dir, tmp_path_factory):
    """The command line of each language's agent, and of the `mux` command as `cli`."""
    c_agent = os.environ.get("MUX_AGENT_C")
    if not c_agent:
        c_agent = tmp_path_factory.mktemp("agents") / "agent"
        compile_c(library_dir, HERE / "agents" / "agent.c", c_agent)
    return {
        "c": [c_agent],
        "python": [sys.executable, "-u", "-W", "error::ResourceWarning", HERE / "agents" / "agent.py"],
        "rust": [os.environ.get("MUX_AGENT_RUST") or rust_example("matrix_agent")],
        "cli": [os.environ.get("MUX_BIN") or cargo_build("mux", "-p", "mux-cli")],
    }


@pytest.fixture(scope="session")
def certificate(programs, tmp_path_factory):
    """The directory of the session's one certificate."""
    directory = tmp_path_factory.mktemp("certificate")
    subprocess.run([*programs["cli"], "cert", "--out", directory], check=True, stdout=subprocess.DEVNULL)
    return directory


@pytest.fixture
def tmp_path(tmp_path, certificate):
    """A test's directory, with the certificate that its URLs name."""
    for name in ("cert.pem", "key.pem"):
        shutil.copy(certificate / name, tmp_path)
    return tmp_path


class Program:
    """A running process whose output is read line by line, so that no pipe fills up and no read waits for ever."""

    def __init__(self, command, stdin=subprocess.DEVNULL):
        self.command = [str(part) for part in command]
        self.process = subprocess.Popen(
            self.command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines, self.stderr = [], ""
        self._queue = queue.Queue()
        self._threads = [threading.Thread(target=self._read_stdout), threading.Thread(target=self._read_stderr)]
        for thread in self._threads:
            thread.start()

    def _read_stdout(self):
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def _read_stderr(self):
        self.stderr = self.process.stderr.read()

    def line(self):
        """The next line of output; fails when none comes."""
        try:
            line = self._queue.get(timeout=PATIENCE)
        except queue.Empty:
            line = "(nothing in time)"
            self.kill()
        if line is None or line == "(nothing in time)":
            pytest.fail(f"{self}: wanted a line, got {line}; before it {self.lines}; {self.stderr}")
        self.lines.append(line)
        return line

    def url(self):
        """The URL to dial, of a program that listens and prints it first."""
        listened = next(part for part in self.command if "://" in part)
        return dialled(listened, self.line())

    def wait(self):
        """All further lines, and the exit status."""
        deadline = time.monotonic() + PATIENCE
        while (line := self._get(deadline)) is not None:
            self.lines.append(line)
        status = self.process.wait()
        for thread in self._threads:
            thread.join()
        return status

    def _get(self, deadline):
        try:
            return self._queue.get(timeout=max(0, deadline - time.monotonic()))
        except queue.Empty:
            self.kill()
            pytest.fail(f"{self} did not end in time; it said {self.lines}; {self.stderr}")

    def succeed(self):
        """Waits for exit status 0; the lines."""
        status = self.wait()
        assert status == 0, f"{self} ended with {status}; it said {self.lines}; {self.stderr}"
        return self.lines

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        """Leaves nothing behind, whatever state it is in."""
        if self.process.poll() is None:
            self.kill()
        for thread in self._threads:
            thread.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def __str__(self):
        return " ".join(self.command)


@pytest.fixture
def run(programs):
    """Starts a program by language and arguments; whatever still runs at the end of the test is killed."""
    started = []

    def start(language, *arguments, **options):
        started.append(Program([*programs[language], *arguments], **options))
        return started[-1]

    yield start
    for program in started:
        program.end()
