"""The Python agent of the language matrix; see ../README.md."""

import contextlib
import hashlib
import random
import sys
import threading

import libmux

WAIT = 60
BLOCK = 65536
CODES = [0, 7, 2**32 - 1, 2**61]


def read_away(channel):
    total = 0
    while block := channel.recv(BLOCK):
        total += len(block)
    return total


def write_until_failure(channel):
    while True:
        channel.sendall(b"x" * BLOCK)


# ---- the serving end ----


def serve_channel(channel):
    channel.settimeout(WAIT)
    label = channel.label
    what, _, code = label.partition(b":")
    with channel:
        if label in (b"", b"echo", b"many"):
            while block := channel.recv(BLOCK):
                channel.sendall(block)
        elif label == b"hello":
            channel.sendall(b"hello", finish=True)
            read_away(channel)
        elif what == b"label":
            channel.sendall(label, finish=True)
            read_away(channel)
        elif label == b"halfclose":
            channel.sendall(str(read_away(channel)).encode(), finish=True)
        elif label == b"sink":
            channel.finish()
            read_away(channel)
        elif what == b"reset":
            channel.sendall(b"partial")
            channel.reset(int(code))
            with contextlib.suppress(libmux.ResetError):
                read_away(channel)
        elif label == b"seereset":
            try:
                read_away(channel)
                answer = "end"
            except libmux.ResetError as error:
                answer = f"reset {error.code}"
            channel.sendall(answer.encode(), finish=True)
        elif what == b"stop":
            # In this order: a peer that sees the stop may end the channel before anything else is said here.
            channel.finish()
            channel.stop(int(code))
        elif label == b"seestop":
            try:
                write_until_failure(channel)
            except libmux.StoppedError as error:
                channel.stop(error.code)
        elif label == b"endless":
            write_until_failure(channel)
        else:
            channel.abort(404)


def serve(session):
    with session:
        for channel in session:
            threading.Thread(target=serve_channel, args=[channel], daemon=True).start()
        cause = session.cause
        print(f"closed code={cause.code} by={cause.origin.name.lower()}", flush=True)


# ---- the driving end ----


def opened(session, label, **options):
    channel = session.open(label=label, timeout=WAIT, **options)
    channel.settimeout(WAIT)
    return channel


def expect(channel, want):
    got = b"".join(iter(lambda: channel.recv(BLOCK), b""))
    assert got == want, f"got {got[:100]!r}, not {want[:100]!r}"
    assert channel.recv(1) == b"", "the end did not stay the end"


def drive_echo(session):
    data = random.Random(1).randbytes(64 << 20)
    with opened(session, b"echo") as channel:
        writer = threading.Thread(target=lambda: channel.sendall(data, finish=True))
        writer.start()
        received, hashed = 0, hashlib.sha256()
        buffer = bytearray(BLOCK)
        while n := channel.recv_into(buffer):
            hashed.update(memoryview(buffer)[:n])
            received += n
        writer.join()
    assert received == len(data), f"{received} bytes came back"
    assert hashed.digest() == hashlib.sha256(data).digest(), "the hash differs"


def drive_line(session, label, **options):
    with opened(session, label, **options) as channel:
        channel.sendall(b"a line")
        channel.shutdown(libmux.SHUT_WR)
        expect(channel, b"a line")


def drive_nolabel(session):
    drive_line(session, b"")


def drive_urgency(session):
    drive_line(session, b"echo", urgency=0)


def drive_many(session):
    channels = [opened(session, b"many") for _ in range(64)]
    for i, channel in reversed(list(enumerate(channels))):
        channel.sendall(f"channel {i}".encode(), finish=True)
    for i, channel in enumerate(channels):
        with channel:
            expect(channel, f"channel {i}".encode())


def drive_hello(session):
    with opened(session, b"hello") as channel:
        expect(channel, b"hello")


def drive_label(session):
    label = b"label:" + bytes(i % 256 for i in range(6, 1024))
    with opened(session, label) as channel:
        expect(channel, label)


def drive_halfclose(session):
    with opened(session, b"halfclose") as channel:
        channel.sendall(b"x" * 10000)
        channel.finish()
        try:
            channel.send(b"x")
            raise AssertionError("a write after finish was taken")
        except libmux.FinishedError:
            pass
        expect(channel, b"10000")


def drive_sink(session):
    with opened(session, b"sink") as channel:
        expect(channel, b"")
        for _ in range(32):
            channel.sendall(b"x" * BLOCK)
        channel.finish()


def ends_with(kind, code, call, channel):
    try:
        end = call(channel)
    except kind as error:
        assert error.code == code, f"code {error.code}, not {code}"
        assert error.origin is libmux.Origin.PEER
    else:
        raise AssertionError(f"ended with {end}, not {kind.__name__}")


def drive_reset(session):
    for code in CODES:
        with opened(session, b"reset:%d" % code) as channel:
            ends_with(libmux.ResetError, code, read_away, channel)


def drive_seereset(session):
    for code in CODES:
        with opened(session, b"seereset") as channel:
            channel.sendall(b"partial")
            channel.reset(code)
            expect(channel, b"reset %d" % code)


def drive_stop(session):
    for code in CODES:
        with opened(session, b"stop:%d" % code) as channel:
            ends_with(libmux.StoppedError, code, write_until_failure, channel)


def drive_seestop(session):
    for code in CODES:
        with opened(session, b"seestop") as channel:
            channel.recv(1)
            channel.stop(code)
            ends_with(libmux.StoppedError, code, write_until_failure, channel)


def drive_endless(session):
    channel = opened(session, b"endless")
    channel.recv(1)
    print("reading", flush=True)
    try:
        print(f"ended {read_away(channel)}")
    except libmux.Error as error:
        print(f"ended {int(error.status)}")
    channel.close()


def drive_handles(session):
    channel = opened(session, b"echo")
    channel.close()
    channel.close()
    for call in (lambda: channel.recv(1), lambda: channel.send(b"x"), channel.finish, lambda: channel.label):
        try:
            call()
        except libmux.ClosedError:
            continue
        raise AssertionError("a closed channel was used")
    drive_line(session, b"echo")


NAMED_ONLY = ("endless", "handles")


def drive(session, names):
    for key, run in list(globals().items()):
        name = key[len("drive_") :]
        if not key.startswith("drive_") or name == "line":
            continue
        if name not in names and (names or name in NAMED_ONLY):
            continue
        try:
            run(session)
        except Exception as error:
            print(f"FAIL {name}: {error!r}", flush=True)
            raise
        print(f"ok {name}", flush=True)
    session.close(5, "bye")


def main():
    side, url, role, *names = sys.argv[1:]
    try:
        if side == "listen":
            with libmux.listen(url) as listener:
                print(listener.url, flush=True)
                session = listener.accept(timeout=WAIT)
        else:
            session = libmux.connect(url)
    except libmux.Error as error:
        print(f"error {error.status.name} {error.strerror}")
        sys.exit(3)
    if role == "serve":
        serve(session)
    else:
        drive(session, names)


if __name__ == "__main__":
    main()
