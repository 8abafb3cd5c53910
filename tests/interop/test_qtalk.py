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


def test_libmux_listens(qtalk, serving):
    dialed = subprocess.run([qtalk, "dial", "%s:%d" % serving.address], capture_output=True, text=True, timeout=PATIENCE)
    assert (dialed.returncode, dialed.stdout) == (0, "ok\n"), dialed.stderr
    serving.expect("session plain", "greeted 15", f"channel {16 << 20} eof", *["channel 10000 eof"] * 100,
                   "channel 3 eof", "channel 7 eof")
