"""libmux over QUIC and quic-go, in both roles: plain streams, and qtalk's rules."""

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import PATIENCE, Server

HERE = Path(__file__).resolve().parent / "quicgo"

pytestmark = pytest.mark.skipif(not shutil.which("go"), reason="needs the Go toolchain for the Go peer")

protocols = pytest.mark.parametrize("protocol", ["qtalk-quic", "plain-echo"])


@pytest.fixture(scope="session")
def quicgo(tmp_path_factory):
    program = tmp_path_factory.mktemp("quicgo") / "quicgo"
    subprocess.run(["go", "build", "-o", program, "."], cwd=HERE, check=True)
    return program


@pytest.fixture(scope="session")
def certificate(quicgo, tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificate")
    subprocess.run([quicgo, "cert", directory], check=True)
    return directory


@protocols
def test_libmux_dials(quicgo, agent, certificate, protocol):
    peer = Server([quicgo, "listen", protocol, certificate])
    try:
        url = f"quic://{peer.line()}?alpn={protocol}&ca={certificate}/cert.pem"
        done = subprocess.run([agent, "streams", url], capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    finally:
        peer.stop()


@protocols
def test_libmux_listens(quicgo, agent, certificate, protocol):
    url = f"quic://127.0.0.1:0?alpn=libmux/1,{protocol}&cert={certificate}/cert.pem&key={certificate}/key.pem"
    server = Server([agent, "serve", url])
    try:
        address = server.line().split("//")[1]
        dialed = subprocess.run([quicgo, "dial", address, protocol], capture_output=True, text=True, timeout=PATIENCE)
        assert (dialed.returncode, dialed.stdout) == (0, "ok\n"), dialed.stderr
        server.expect("session extended", "greeted 15", f"channel {16 << 20} eof", *["channel 10000 eof"] * 100)
    finally:
        server.stop()
