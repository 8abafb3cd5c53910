"""Threads on one object: each byte and each channel goes to exactly one, and a close sends the waiting ones away."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import libmux
import pytest


@pytest.fixture
def pool():
    with ThreadPoolExecutor(16) as pool:
        yield pool


def test_one_thread_reads_while_another_writes(channels, pool):
    ours, theirs = channels
    size = 16 << 20

    def echo():
        while block := theirs.recv(65536):
            theirs.sendall(block)
        theirs.finish()

    echoing = pool.submit(echo)
    writing = pool.submit(lambda: ours.sendall(bytes(size), finish=True))
    received = 0
    while block := ours.recv(65536):
        received += len(block)
    assert received == size
    echoing.result(10)
    writing.result(10)


def test_bytes_go_to_exactly_one_of_many_readers(channels, pool):
    ours, theirs = channels
    readers = [pool.submit(lambda: b"".join(iter(lambda: theirs.recv(7), b""))) for _ in range(8)]
    for i in range(2000):
        ours.sendall(i.to_bytes(2, "big"))
        if i % 100 == 0:
            time.sleep(0.001)
    ours.finish()
    received = [reader.result(20) for reader in readers]
    assert sum(map(len, received)) == 4000


def test_writers_lose_nothing(channels, pool):
    ours, theirs = channels
    writers = [pool.submit(lambda i=i: [ours.send(bytes([i])) for _ in range(500)]) for i in range(8)]
    reader = pool.submit(lambda: b"".join(iter(lambda: theirs.recv(100), b"")))
    for writer in writers:
        writer.result(20)
    ours.finish()
    data = reader.result(20)
    assert [data.count(i) for i in range(8)] == [500] * 8


def test_channels_go_to_exactly_one_of_many_accepting_threads(sessions, pool):
    dialing, accepting = sessions

    def accept():
        labels = []
        while True:
            with accepting.accept(timeout=20) as channel:
                if channel.label == b"stop":
                    return labels
                labels.append(channel.label)

    acceptors = [pool.submit(accept) for _ in range(4)]
    for i in range(100):
        dialing.open(label=b"%d" % i).close()
    for _ in acceptors:
        dialing.open(label=b"stop").close()
    labels = [label for acceptor in acceptors for label in acceptor.result(20)]
    assert sorted(map(int, labels)) == list(range(100))


@pytest.mark.parametrize("how", ["close", "abort"])
def test_closing_a_channel_sends_the_waiting_threads_away(channels, pool, how):
    ours, _ = channels
    with pytest.raises(TimeoutError):
        ours.settimeout(0.2)
        ours.sendall(b"x" * (64 << 20))
    ours.settimeout(None)
    waiting = [pool.submit(ours.recv, 1) for _ in range(3)] + [pool.submit(ours.send, b"x")]
    time.sleep(0.2)
    getattr(ours, how)()
    for future in waiting:
        assert isinstance(future.exception(10), libmux.ClosedError)


def test_closing_sessions_and_listeners_sends_the_waiting_threads_away(connected, url, pool):
    dialing, accepting = connected()
    waiting = [pool.submit(dialing.accept), pool.submit(dialing.wait_closed)]
    time.sleep(0.1)
    dialing.close()
    assert isinstance(waiting[0].exception(10), libmux.ClosedError)
    assert isinstance(waiting[1].result(10), libmux.ClosedError)
    accepting.close()
    listener = libmux.listen(url)
    future = pool.submit(listener.accept)
    time.sleep(0.1)
    listener.close()
    assert isinstance(future.exception(10), libmux.ClosedError)


def test_a_second_waiter_keeps_its_own_timeout(channels, pool):
    ours, theirs = channels
    first = pool.submit(ours.recv, 1)
    time.sleep(0.1)
    ours.settimeout(0.1)
    with pytest.raises(TimeoutError):
        ours.recv(1)
    theirs.sendall(b"x")
    assert first.result(10) == b"x"


def test_a_waiting_thread_leaves_the_others_running(channels):
    ours, theirs = channels
    waiter = threading.Thread(target=lambda: ours.recv(1))
    waiter.start()
    counter = 0
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        counter += 1
    assert counter > 1000
    theirs.sendall(b"x")
    waiter.join(10)
    assert not waiter.is_alive()
