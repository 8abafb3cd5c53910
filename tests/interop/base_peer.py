"""A peer that speaks the base protocol of qmux and nothing else, over a socket (docs/qmux.md, section 2)."""

import socket
import struct
import threading

OPEN, CONFIRM, FAILURE, ADJUST, DATA, EOF, CLOSE = range(100, 107)
FIELDS = {OPEN: 3, CONFIRM: 4, FAILURE: 1, ADJUST: 2, DATA: 2, EOF: 1, CLOSE: 1}
ANNOUNCEMENT = (OPEN, 0xFFFFFFFF, 0x6C6D7531, 0)
WINDOW, PACKET = 2 * 1024 * 1024, 32 * 1024


class BasePeer:
    """Messages in and out, and a record of every rule the other side broke."""

    def __init__(self, sock):
        sock.settimeout(60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.input = sock.makefile("rb")
        self.closed_by_them = set()
        self.lock = threading.Lock()

    def send(self, kind, *fields, body=b""):
        with self.lock:
            self.sock.sendall(struct.pack(f">B{len(fields)}I", kind, *fields) + body)

    def receive(self):
        """The next message as (kind, fields..., body for DATA); None at the end of the connection."""
        kind = self.input.read(1)
        if not kind:
            return None
        kind = kind[0]
        assert kind in FIELDS, f"message {kind} is not of the base protocol"
        fields = struct.unpack(f">{FIELDS[kind]}I", self.input.read(4 * FIELDS[kind]))
        if kind in (ADJUST, DATA, EOF, CLOSE):
            assert fields[0] not in self.closed_by_them, f"message {kind} about channel {fields[0]} after its CLOSE"
        if kind == CLOSE:
            self.closed_by_them.add(fields[0])
        if kind == DATA:
            assert fields[1] <= PACKET, f"a packet of {fields[1]} bytes"
            return (kind, fields[0], self.input.read(fields[1]))
        return (kind, *fields)

    def expect(self, *message):
        """The next message but credit, which must be this one."""
        while True:
            got = self.receive()
            if got is None or got[0] != ADJUST:
                assert got == message, f"{got} instead of {message}"
                return

    def close(self):
        self.sock.close()


class EchoPeer(BasePeer):
    """Echoes every channel, refuses probes, and opens one channel that it closes without EOF."""

    def __init__(self, sock):
        super().__init__(sock)
        self.theirs = {}
        self.credit = {}
        self.waiting = {}
        self.ending = set()
        self.next = 1000
        self.failure = None

    def run(self):
        try:
            self.send(OPEN, 7, WINDOW, PACKET)
            while (message := self.receive()) is not None:
                self.handle(*message)
        except Exception as error:  # the test thread reports it
            self.failure = error
        finally:
            self.close()

    def handle(self, kind, number, *rest):
        if kind == OPEN and rest[1] < 9:
            self.send(FAILURE, number)
        elif kind == OPEN:
            ours, self.next = self.next, self.next + 1
            self.theirs[ours], self.credit[ours], self.waiting[ours] = number, rest[0], b""
            self.send(CONFIRM, number, ours, WINDOW, PACKET)
        elif kind == CONFIRM:
            assert number == 7
            text = b"from the peer"
            self.send(DATA, rest[0], len(text), body=text)
            self.send(CLOSE, rest[0])
        elif kind == CLOSE and number == 7:
            self.closed_by_them.discard(7)
        elif kind == DATA:
            self.send(ADJUST, self.theirs[number], len(rest[0]))
            self.waiting[number] += rest[0]
            self.flush(number)
        elif kind == ADJUST:
            self.credit[number] += rest[0]
            self.flush(number)
        elif kind == EOF:
            self.ending.add(number)
            self.flush(number)
        elif kind == CLOSE:
            self.send(CLOSE, self.theirs.pop(number))

    def flush(self, ours):
        if ours not in self.theirs:
            return
        while self.waiting[ours] and self.credit[ours]:
            size = min(len(self.waiting[ours]), self.credit[ours], PACKET)
            body, self.waiting[ours] = self.waiting[ours][:size], self.waiting[ours][size:]
            self.credit[ours] -= size
            self.send(DATA, self.theirs[ours], size, body=body)
        if ours in self.ending and not self.waiting[ours]:
            self.ending.discard(ours)
            self.send(EOF, self.theirs[ours])
