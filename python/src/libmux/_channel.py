"""Channels: two byte streams in opposite directions, each ending on its own."""

from __future__ import annotations

import io
import socket
import sys
import time
from typing import IO, TYPE_CHECKING, Any, Callable, Union

from ._errors import WouldBlockError, check_code
from ._handle import Handle, check_timeout
from ._native import ffi, lib
from ._wait import local

if TYPE_CHECKING:
    from types import TracebackType

    from ._session import Session

    Buffer = Union[bytes, bytearray, memoryview]


class Channel(Handle):
    """A channel, used like a connected socket: one thread may receive while another sends.

    As a context manager it is closed politely at the end of the block, but aborted when an exception leaves it, so
    that the peer never takes the work of a writer that crashed for complete.
    """

    __slots__ = ("_session", "_timeout")
    _noun = "channel"

    def __init__(self, native: Any, session: Session) -> None:
        super().__init__(native)
        self._session = session
        self._timeout: float | None = None

    @property
    def session(self) -> Session:
        """The session it belongs to."""
        return self._session

    @property
    def id(self) -> int:
        """The number by which logs and captures know it; unique among the session's live channels."""
        return int.from_bytes(self._info(lib.MUX_INFO_CHANNEL_ID), sys.byteorder)

    @property
    def label(self) -> bytes:
        """The label it was opened with."""
        return self._info(lib.MUX_INFO_LABEL)

    def settimeout(self, timeout: float | None) -> None:
        """Limits later calls that wait: None for no limit, 0 for never waiting (`BlockingIOError`), else seconds."""
        check_timeout(timeout)
        self._timeout = timeout

    def gettimeout(self) -> float | None:
        """The timeout in seconds; None without limit."""
        return self._timeout

    def recv(self, bufsize: int) -> bytes:
        """Receives what is there, at most `bufsize` bytes, waiting for at least one; b"" is the clean end.

        Raises `ResetError` when the sender abandoned the channel: what came before is then not the whole.
        """
        if bufsize <= 0:
            if bufsize < 0:
                raise ValueError("negative bufsize")
            return b""
        scratch = local.take_scratch(bufsize)
        try:
            received = self._read(scratch, min(bufsize, len(scratch)))
            return ffi.buffer(scratch, received)[:]  # type: ignore[no-any-return]
        finally:
            local.scratch = scratch

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0) -> int:
        """Receives into a writable buffer, at most `nbytes` (0: its length); 0 is the clean end."""
        if nbytes < 0:
            raise ValueError("negative nbytes")
        with ffi.from_buffer(buffer, require_writable=True) as target:
            size = min(nbytes, len(target)) if nbytes else len(target)
            return self._read(target, size) if size else 0

    def _read(self, target: Any, size: int) -> int:
        received: int = lib.mux_read(self._native, target, size, 0, 0)
        if received < 0:
            event = lib.MUX_EV_READ
            received = self._do(
                self._receiving, event, self._timeout, lambda: lib.mux_read(self._native, target, size, 0, 0)
            )
        return received

    def send(self, data: Buffer) -> int:
        """Sends some of `data`, waiting until at least one byte is taken; returns how many were."""
        with ffi.from_buffer(data) as source:
            return self._write(source, len(source), 0, self._timeout) if len(source) else 0

    def sendall(self, data: Buffer, *, finish: bool = False) -> None:
        """Sends all of `data`; with `finish`, data and end of this direction travel together.

        The timeout is for the whole. After a failure, some of the data may have been sent.
        """
        flags = lib.MUX_IO_FIN if finish else 0
        deadline = time.monotonic() + self._timeout if self._timeout else None
        with ffi.from_buffer(data) as source:
            size, sent = len(source), 0
            if not size and finish:
                self.finish()
            while sent < size:
                timeout = self._timeout if deadline is None else max(deadline - time.monotonic(), 0.001)
                sent += self._write(source + sent, size - sent, flags, timeout)

    def _write(self, source: Any, size: int, flags: int, timeout: float | None) -> int:
        sent: int = lib.mux_write(self._native, source, size, flags, 0)
        if sent < 0:
            event = lib.MUX_EV_WRITE
            sent = self._do(self._sending, event, timeout, lambda: lib.mux_write(self._native, source, size, flags, 0))
        return sent

    def finish(self) -> None:
        """Ends this direction cleanly: the peer reads everything sent, then the end. Receiving goes on."""
        self._control(lambda: lib.mux_finish(self._native))

    def shutdown(self, how: int) -> None:
        """As a socket's: SHUT_WR finishes, SHUT_RD stops receiving with code 0, SHUT_RDWR does both."""
        if how not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            raise ValueError(f"shutdown({how!r}): SHUT_RD, SHUT_WR or SHUT_RDWR is allowed")
        if how != socket.SHUT_RD:
            self.finish()
        if how != socket.SHUT_WR:
            self.stop(0)

    def reset(self, code: int) -> None:
        """Abandons this direction: unsent data is dropped, and the peer's `recv` fails with `code`."""
        check_code(code)
        self._control(lambda: lib.mux_reset(self._native, code))

    def stop(self, code: int) -> None:
        """Receives no more: what waits is dropped, and the peer's `send` fails with `code`."""
        check_code(code)
        self._control(lambda: lib.mux_stop(self._native, code))

    def _control(self, call: Callable[[], int]) -> None:
        self._check_open()
        status = call()
        if status < 0:
            raise self._fail(status)

    def close(self) -> None:
        """The polite end: what was sent is delivered in the background, receiving stops with code 0."""
        if not self._closed:
            self._end()

    def abort(self, code: int = 0) -> None:
        """The end for error paths: unsent data is dropped, and the peer sees `code` in both directions."""
        check_code(code)
        if not self._closed:
            lib.mux_abort(self._native, code)
            self._end()

    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """A file over the channel, with the arguments of `open()`. Closing the file leaves the channel open."""
        if not set(mode) <= set("rwb") or not set(mode) & set("rw"):
            raise ValueError(f"mode {mode!r}: r, w or rw is allowed, with b for bytes")
        raw = _ChannelIO(self, "r" in mode, "w" in mode)
        if buffering == 0:
            if "b" not in mode:
                raise ValueError("unbuffered files must be binary")
            return raw  # type: ignore[return-value]
        size = io.DEFAULT_BUFFER_SIZE if buffering is None or buffering < 0 else buffering
        buffered: Any
        if raw.readable() and raw.writable():
            buffered = io.BufferedRWPair(raw, raw, size)
        elif raw.readable():
            buffered = io.BufferedReader(raw, size)
        else:
            buffered = io.BufferedWriter(raw, size)
        if "b" in mode:
            return buffered  # type: ignore[no-any-return]
        return io.TextIOWrapper(buffered, encoding, errors, newline)

    def __enter__(self) -> Channel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        self._finalize(self.abort)

    def __repr__(self) -> str:
        return self._named(lib.MUX_INFO_LABEL)


class _ChannelIO(io.RawIOBase):
    """The raw file under `Channel.makefile`."""

    def __init__(self, channel: Channel, readable: bool, writable: bool) -> None:
        self._channel = channel
        self._readable, self._writable = readable, writable

    def readable(self) -> bool:
        return self._readable

    def writable(self) -> bool:
        return self._writable

    def readinto(self, buffer: Any) -> int | None:
        try:
            return self._channel.recv_into(buffer)
        except WouldBlockError:
            return None

    def write(self, data: Any) -> int | None:
        try:
            return self._channel.send(data)
        except WouldBlockError:
            return None
