"""The link does what it says, and every wire carries its bytes over one that delays and loses."""

import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from link import ADDRESSES, ROOT, CannotRun, Link

MUX = os.environ.get("MUX_BIN", str(ROOT / "target" / "debug" / "mux"))
DEADLINE = 60
ECHO = """
import socket, sys
server = socket.create_server((sys.argv[1], 0))
print(server.getsockname()[1], flush=True)
conn, _ = server.accept()
while data := conn.recv(65536):
    conn.sendall(data)
"""
ASK = """
import socket, sys, time
conn = socket.create_connection((sys.argv[1], int(sys.argv[2])))
begin = time.monotonic()
conn.sendall(b"x")
conn.recv(1)
print(time.monotonic() - begin)
"""


@pytest.fixture
def link():
    """Opens a link; a machine that does not allow it skips the test with its reason."""
    links = []

    def open_link(**how):
        links.append(Link(**how))
        try:
            links[-1].open()
        except CannotRun as why:
            pytest.skip(str(why))
        return links[-1]

    yield open_link
    for opened in links:
        opened.close()


def test_a_round_trip_takes_no_less_than_it_should(link):
    opened = link(rtt=80)
    with opened.server.start(sys.executable, "-c", ECHO, ADDRESSES["server"], stdout=subprocess.PIPE, text=True) as server:
        port = server.stdout.readline().strip()
        asked = opened.client.run(
            sys.executable, "-c", ASK, ADDRESSES["server"], port, capture_output=True, text=True, timeout=DEADLINE
        )
        server.kill()
    assert float(asked.stdout) >= 0.08


@pytest.mark.parametrize("scheme", ["qmux", "quic", "h2c"])
@pytest.mark.parametrize("how", [{"rtt": 20, "loss": 2, "rate": 200}, {"loss": 2}], ids=["relay", "veth"])
def test_no_byte_is_lost_with_the_packets(link, scheme, how):
    opened = link(**how)
    listen = [MUX, "listen", f"{scheme}://{ADDRESSES['server']}:0", "--echo"]
    listen += ["--self-signed"] if scheme == "quic" else []
    data = random.Random(7).randbytes(1 << 20)
    with opened.server.start(*listen, stdout=subprocess.PIPE, text=True) as server:
        url = server.stdout.readline().strip()
        ended = opened.client.run(MUX, "connect", url, input=data, stdout=subprocess.PIPE, timeout=DEADLINE)
        server.terminate()
    assert ended.stdout == data


# Each way at the receiver's door: what a sender's kernel has not cut into packets yet has no checksum to mend.
NAT = """
flush ruleset
table ip nat {{
chain in {{
type filter hook prerouting priority -300;
ip {side} {old} counter ip {side} set {new}
}}
}}
"""


def translate(space, side, old, new):
    rules = NAT.format(side=side, old=old, new=new)
    space.run("nft", "-f", "-", input=rules, text=True)


def translated(space):
    listed = space.run("nft", "list", "ruleset", capture_output=True, text=True).stdout
    return int(re.search(r"counter packets (\d+)", listed)[1])


def test_a_session_survives_a_nat_that_changes_its_address_in_mid_transfer(link):
    if shutil.which("nft") is None:
        pytest.skip("needs nft; on Debian: apt-get install nftables")
    opened = link(rtt=10, rate=200)
    listen = [MUX, "listen", f"quic://{ADDRESSES['server']}:0", "--echo", "--self-signed"]
    data = random.Random(8).randbytes(12 << 20)
    with opened.server.start(*listen, stdout=subprocess.PIPE, text=True) as server:
        url = server.stdout.readline().strip()
        client = opened.client.start(MUX, "connect", url, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        received = []
        reader = threading.Thread(target=lambda: received.append(client.stdout.read()))
        reader.start()
        third = len(data) // 3
        client.stdin.write(data[:third])
        for number, address in enumerate(["10.77.0.3", "10.77.0.4"], 1):
            translate(opened.client, "daddr", address, ADDRESSES["client"])
            translate(opened.server, "saddr", ADDRESSES["client"], address)
            client.stdin.write(data[number * third : (number + 1) * third])
            client.stdin.flush()
            assert translated(opened.client) > 0 and translated(opened.server) > 0
        client.stdin.close()
        reader.join(DEADLINE)
        client.wait(DEADLINE)
        server.terminate()
    assert received == [data]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind(link, number):
    link(rtt=1).close()
    command = [sys.executable, str(pathlib.Path(__file__).with_name("link.py")), "--rtt", "1", "--", "sleep", "1000"]
    tool = subprocess.Popen(command)
    give_up = time.monotonic() + DEADLINE
    # Two that hold the namespaces, the relay, the command.
    while len(started := children(tool.pid)) < 4:
        assert time.monotonic() < give_up and tool.poll() is None
        time.sleep(0.01)
    tool.send_signal(number)
    tool.wait(timeout=DEADLINE)
    while any(runs(child) for child in started):
        assert time.monotonic() < give_up
        time.sleep(0.01)


def children(pid):
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def runs(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    # An orphan that has ended may wait for whoever adopted it.
    return state != "Z"
