"""Ctrl-C ends every call that waits, and loses nothing."""

import signal
import subprocess
import sys
import time

import pytest

SETUP = """
import libmux, signal, socket, sys, threading

# What a shell runs in the background it starts with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def pair(config=None):
    with libmux.listen("qmux://127.0.0.1:0", config=config) as listener:
        dialing = libmux.connect(listener.url)
        return dialing, listener.accept()

def pair_of_channels():
    dialing, accepting = pair()
    return dialing.open(), accepting.accept()

def waiting(call, *args, **options):
    print("waiting", flush=True)
    try:
        call(*args, **options)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    else:
        print("returned", flush=True)
"""

CALLS = {
    "connect": """
mute = socket.socket(); mute.bind(("127.0.0.1", 0)); mute.listen(0)
held = []
for _ in range(4):
    one = socket.socket(); one.setblocking(False); one.connect_ex(mute.getsockname()); held.append(one)
waiting(libmux.connect, "qmux://127.0.0.1:%d" % mute.getsockname()[1])
""",
    "listener.accept": """
listener = libmux.listen("qmux://127.0.0.1:0")
waiting(listener.accept)
late = libmux.connect(listener.url)
listener.accept(timeout=10).close()
listener.close()
""",
    "session.accept": """
dialing, accepting = pair()
waiting(accepting.accept)
dialing.open(label=b"late").close()
with accepting.accept(timeout=10) as channel: assert channel.label == b"late"
""",
    "session.accept with timeout": """
dialing, accepting = pair()
waiting(accepting.accept, timeout=1000)
""",
    "session.wait_closed": """
dialing, accepting = pair()
waiting(dialing.wait_closed)
""",
    "recv": """
ours, theirs = pair_of_channels()
waiting(ours.recv, 1)
theirs.sendall(b"late")
ours.settimeout(10)
assert ours.recv(100) == b"late"
""",
    "recv_into": """
ours, theirs = pair_of_channels()
waiting(ours.recv_into, bytearray(10))
""",
    "send": """
ours, theirs = pair_of_channels()
def fill():
    while True: ours.send(b"x" * 65536)
waiting(fill)
""",
    "sendall": """
ours, theirs = pair_of_channels()
waiting(ours.sendall, b"x" * (64 << 20))
""",
    "makefile.read": """
ours, theirs = pair_of_channels()
waiting(ours.makefile("rb").read, 1)
""",
    "makefile.write": """
ours, theirs = pair_of_channels()
file = ours.makefile("wb", buffering=0)
def fill():
    while True: file.write(b"x" * 65536)
waiting(fill)
""",
    "two receivers": """
ours, theirs = pair_of_channels()
threading.Thread(target=lambda: ours.recv(1), daemon=True).start()
import time; time.sleep(0.2)
waiting(ours.recv, 1)
theirs.sendall(b"x")
""",
}


@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c_ends(call):
    # Objects that the interrupted script leaves open are no subject here.
    command = [sys.executable, "-W", "ignore::ResourceWarning", "-c", SETUP + CALLS[call]]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "waiting\n", process.communicate(timeout=10)
        # Time to get from the print into the wait; Ctrl-C must end either.
        time.sleep(0.3)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
        assert (output, process.returncode) == ("interrupted\n", 0), errors
        assert time.monotonic() - started < 5
    finally:
        process.kill()
        process.communicate()


def test_a_signal_handler_may_wait_on_other_channels_while_the_thread_waits():
    script = SETUP + """
import os, signal
ours, theirs = pair_of_channels()
other, far = pair_of_channels()

def handler(*_):
    threading.Timer(0.3, lambda: far.sendall(b"inner")).start()
    assert other.recv(100) == b"inner"
    theirs.sendall(b"outer")

signal.signal(signal.SIGUSR1, handler)
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
ours.settimeout(10)
assert ours.recv(100) == b"outer"
print("both")
"""
    command = [sys.executable, "-W", "ignore::ResourceWarning", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.returncode) == ("both\n", 0), done.stderr


def test_ctrl_c_ends_the_wait_at_exit():
    """A program that exits gives what it closed the time to be delivered; a peer that does not read could hold it."""
    deaf = SETUP + """
import time
with libmux.listen("qmux://127.0.0.1:0") as listener:
    print(listener.url, flush=True)
    session = listener.accept()
    time.sleep(60)
"""
    client = """
with libmux.connect({url!r}) as session, session.open() as channel:
    channel.settimeout(0.2)
    try:
        channel.sendall(b"x" * (64 << 20))
    except TimeoutError:
        pass
print("waiting", flush=True)
"""
    options = [sys.executable, "-W", "ignore::ResourceWarning", "-c"]
    server = subprocess.Popen([*options, deaf], stdout=subprocess.PIPE, text=True)
    url = server.stdout.readline().strip()
    process = subprocess.Popen(
        [*options, SETUP + client.format(url=url)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "waiting\n", process.communicate(timeout=10)
        time.sleep(0.5)
        assert process.poll() is None, "there was nothing to wait for"
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        process.communicate(timeout=20)
        assert time.monotonic() - started < 5
    finally:
        for each in (process, server):
            each.kill()
            each.communicate()
