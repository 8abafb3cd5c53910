"""What nobody closed: finalizers, file descriptors, fork, interpreter exit."""

import gc
import itertools
import os
import subprocess
import sys
import threading

import libmux
import pytest
from conftest import dialled, eventually, url_for


def run(script, *options, status=0):
    command = [sys.executable, *options, "-c", "import libmux\n" + script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == status, done.stderr
    return done


PAIR = """
def pair():
    with libmux.listen("qmux://127.0.0.1:0") as listener:
        dialing = libmux.connect(listener.url)
        return dialing, listener.accept()
"""


def test_a_dropped_channel_is_aborted_with_a_warning(sessions):
    dialing, accepting = sessions
    channel = dialing.open(label=b"dropped")
    channel.sendall(b"half")
    with accepting.accept(timeout=10) as theirs:
        with pytest.warns(ResourceWarning, match="unclosed <libmux.Channel dropped>"):
            del channel
            gc.collect()
        with pytest.raises(ConnectionResetError):
            while theirs.recv(100):
                pass


def test_a_dropped_session_or_listener_is_closed_with_a_warning(url):
    listener = libmux.listen(url)
    dialing = libmux.connect(dialled(listener.url))
    accepting = listener.accept(timeout=10)
    with pytest.warns(ResourceWarning, match="unclosed <libmux.Session"):
        del dialing
    with pytest.raises(ConnectionAbortedError):
        accepting.accept(timeout=10)
    accepting.close()
    with pytest.warns(ResourceWarning, match="unclosed <libmux.Listener"):
        del listener


def test_a_channel_keeps_its_session(connected):
    with libmux.listen("qmux://127.0.0.1:0") as listener:
        channel = libmux.connect(dialled(listener.url)).open()
        with listener.accept(timeout=10) as accepting, accepting.accept(timeout=10) as theirs:
            gc.collect()
            theirs.sendall(b"still here")
            assert channel.recv(100) == b"still here"
            session = channel.session
            channel.close()
            session.close()


def test_channels_in_cycles_are_collected(sessions):
    channel = sessions[0].open()
    cycle = [channel]
    cycle.append(cycle)
    with pytest.warns(ResourceWarning):
        del channel, cycle
        gc.collect()


def test_no_file_descriptor_is_left(transport, tmp_path):
    rounds = itertools.count()

    def open_files():
        return len(os.listdir("/proc/self/fd"))

    def work():
        directory = tmp_path / str(next(rounds))
        directory.mkdir()
        with libmux.listen(url_for(transport, directory)) as listener, libmux.connect(dialled(listener.url)) as dialing:
            with listener.accept(timeout=10) as accepting:
                for _ in range(20):
                    with dialing.open() as ours, accepting.accept(timeout=10) as theirs:
                        ours.sendall(b"x", finish=True)
                        theirs.settimeout(10)
                        while theirs.recv(10):
                            pass
                with pytest.raises(TimeoutError):
                    accepting.accept(timeout=0.01)

    def in_a_thread():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    in_a_thread()
    before = open_files()
    for _ in range(10):
        in_a_thread()
    # The ends of sessions and the finalizers of threads take their time.
    eventually(lambda: gc.collect() >= 0 and open_files() <= before)


def test_objects_of_the_parent_say_so_after_fork():
    run(
        PAIR
        + """
import os
dialing, accepting = pair()
channel = dialing.open()
child = os.fork()
if child == 0:
    for call in (lambda: channel.recv(1), lambda: channel.send(b"x"), dialing.open, dialing.accept, channel.finish,
                 lambda: channel.label, lambda: dialing.capabilities):
        try:
            call()
        except RuntimeError as error:
            assert "fork" in str(error), error
        else:
            os._exit(1)
    channel.close()
    dialing.close()
    # The child makes sessions of its own, and exits as a program does.
    with pair()[0] as own:
        pass
    raise SystemExit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
with accepting.accept(timeout=10) as theirs:
    channel.sendall(b"the parent's connection lives", finish=True)
    assert theirs.recv(100)
channel.close(); dialing.close(); accepting.close()
""",
        "-W",
        "ignore::ResourceWarning",
    )


def test_exit_delivers_what_was_closed():
    """The process ends right after a polite close: nothing of 8 MiB may be lost."""
    server = subprocess.Popen(
        [
            sys.executable,
            "-c",
            """
import libmux
with libmux.listen("qmux://127.0.0.1:0") as listener:
    print(listener.url, flush=True)
    with listener.accept() as session, session.accept() as channel:
        total = 0
        while block := channel.recv(65536):
            total += len(block)
        print(total)
""",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = server.stdout.readline().strip()
        run(
            f"""
with libmux.connect({url!r}) as session, session.open() as channel:
    channel.sendall(bytes(8 << 20))
"""
        )
        assert server.stdout.readline() == f"{8 << 20}\n"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def is_cut_off(listener, script, *options, status=0):
    """Runs a client that ends without closing a channel once it was accepted; checks how that looks from here."""
    accepted = []

    def serve():
        accepted.append(listener.accept(timeout=20))
        accepted.append(accepted[0].accept(timeout=20))
        accepted[1].sendall(b"go")

    serving = threading.Thread(target=serve)
    serving.start()
    done = run(script, *options, status=status)
    serving.join()
    session, channel = accepted
    with session, channel:
        channel.settimeout(20)
        with pytest.raises(ConnectionError):
            while channel.recv(100):
                pass
    return done


def test_exit_with_everything_open_neither_hangs_nor_looks_complete(url):
    with libmux.listen(url) as listener:
        script = f"""
session = libmux.connect({dialled(listener.url)!r})
channel = session.open()
channel.sendall(b"half")
channel.recv(2)
"""
        done = is_cut_off(listener, script, "-X", "dev")
        assert "unclosed <libmux.Channel" in done.stderr and "unclosed <libmux.Session" in done.stderr


def test_exit_with_waiting_daemon_threads_is_quiet():
    done = run(
        PAIR
        + """
import threading, time
dialing, accepting = pair()
channel = dialing.open()
for call in (lambda: channel.recv(1), dialing.accept, accepting.accept):
    threading.Thread(target=call, daemon=True).start()
time.sleep(0.2)
""",
        "-W",
        "ignore::ResourceWarning",
    )
    assert "Fatal" not in done.stderr


def test_a_crash_is_no_clean_end(url):
    with libmux.listen(url) as listener:
        script = f"""
with libmux.connect({dialled(listener.url)!r}) as session, session.open() as channel:
    channel.sendall(b"half")
    channel.recv(2)
    raise SystemExit("crashed")
"""
        is_cut_off(listener, script, status=1)
