"""The `mux` command as a test sees it: finds the binary, runs it, ends what still runs."""

import os
import pathlib
import select
import signal
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Generous: it is what a loaded machine may take, not what is expected.
DEADLINE = 60
# The schemes whose listeners present a certificate.
ENCRYPTED = ["quic", "h2", "qmux+tls"]


def find_mux():
    binary = pathlib.Path(os.environ.get("MUX_BIN", ROOT / "target" / "debug" / "mux"))
    if not binary.exists():
        pytest.exit(f"{binary} does not exist: build it (cargo build -p mux-cli) or set MUX_BIN", returncode=2)
    return str(binary)


class Process(subprocess.Popen):
    """A running `mux` with its pipes."""

    def first_line(self):
        """The line it prints once it is ready."""
        line = b""
        give_up = time.monotonic() + DEADLINE
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.stdout], [], [], max(0, give_up - time.monotonic()))
            byte = os.read(self.stdout.fileno(), 1) if ready else b""
            if not byte:
                self.kill()
                raise AssertionError(f"no line from {self.args}: {line!r}, stderr {self.stderr.read()!r}")
            line += byte
        return line.decode().rstrip("\n")

    def end(self, number=signal.SIGTERM):
        """Asks it to go; what it said on stderr."""
        if self.poll() is None:
            self.send_signal(number)
        return self.communicate(timeout=DEADLINE)[1].decode()


class Mux:
    """Runs the command; ends what still runs when the test is over."""

    def __init__(self):
        self.binary = find_mux()
        self.running = []

    def run(self, *args, stdin=b"", timeout=DEADLINE):
        """Runs to the end."""
        return subprocess.run([self.binary, *args], input=stdin, capture_output=True, timeout=timeout)

    def start(self, *args, stdin=subprocess.DEVNULL):
        """Starts it and goes on."""
        pipe = subprocess.PIPE
        process = Process([self.binary, *args], stdin=stdin, stdout=pipe, stderr=pipe, bufsize=0)
        self.running.append(process)
        return process

    def listen(self, url, *args, **kwargs):
        """`mux listen`, ready: the process and the URL to dial; where TLS needs a certificate, it makes one."""
        if url.partition(":")[0] in ENCRYPTED and "cert=" not in url and "--self-signed" not in args:
            args = ("--self-signed", *args)
        process = self.start("listen", url, *args, **kwargs)
        return process, process.first_line()

    def with_certificate(self, url, directory):
        """A URL to listen on that presents the same certificate each time, where it needs one; what a dialer adds."""
        if url.partition(":")[0] not in ENCRYPTED:
            return url, ""
        pin = self.run("cert", "--out", str(directory)).stdout.decode().strip()
        joint = "&" if "?" in url else "?"
        return f"{url}{joint}cert={directory}/cert.pem&key={directory}/key.pem", f"?pin={pin}"

    def forward(self, via, *args):
        """`mux forward`, ready: the process, host and port to connect to."""
        process = self.start("forward", "--via", via, "--listen", "127.0.0.1:0", *args)
        host, port = process.first_line().rsplit(":", 1)
        return process, host, int(port)

    def close(self):
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=DEADLINE)


def wait_for(happened):
    """Waits until it has; a test that waits for ever has failed."""
    give_up = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.01)
