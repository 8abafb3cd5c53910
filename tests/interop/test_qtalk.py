"""libmux and github.com/progrium/qtalk-go/mux, in both roles."""

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import PATIENCE, Server

HERE = Path(__file__).resolve().parent / "qtalk"

pytestmark = pytest.mark.skipif(not shutil.which("go"), reason="needs the Go toolchain for the Go peer")


@pytest.fixture(scope="session")
def qtalk(tmp_path_factory):
    program = tmp_path_factory.mktemp("qtalk") / "qtalk"
    subprocess.run(["go", "build", "-o", program, "."], cwd=HERE, check=True)
    return program


@pytest.mark.parametrize("mode", [(), ("late",)], ids=["prompt", "accepts late"])
def test_libmux_dials(qtalk, check, mode):
    peer = Server([qtalk, "listen", *mode])
    try:
        check(*peer.line().split(":"))
    finally:
        peer.stop()


def test_a_peer_that_never_accepts_is_not_dead(qtalk, agent):
    peer = Server([qtalk, "listen", "never"])
    try:
        done = subprocess.run([agent, "unaccepted", f"qmux://{peer.line()}?keepalive=200ms"], capture_output=True,
                              text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    finally:
        peer.stop()


@pytest.mark.parametrize("mode", [(), ("late",)], ids=["prompt", "accepts late"])
def test_libmux_listens(qtalk, agent, mode):
    serving = Server([agent, "serve", "qmux://127.0.0.1:0?keepalive=200ms"])
    try:
        address = serving.line().split("//")[1]
        command = [qtalk, "dial", address.split("?")[0], *mode]
        dialed = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert (dialed.returncode, dialed.stdout) == (0, "ok\n"), dialed.stderr
        serving.expect("session plain", "greeted 15", f"channel {16 << 20} eof", *["channel 10000 eof"] * 100,
                       "channel 3 eof", "channel 7 eof")
    finally:
        serving.stop()
