"""What sessions, listeners and channels have in common: a handle that is closed once, and waiting on it."""

from __future__ import annotations

import errno
import os
import warnings
from typing import Any, Callable

from ._errors import ClosedError, Origin, Status, error_from, new_detail
from ._native import ffi, lib
from ._wait import AGAIN, Side

_INFO_BYTES = 256


class Handle:
    """Owns one handle of the C API. Its number is never reused within a process, so late calls are harmless."""

    __slots__ = ("__weakref__", "_closed", "_h", "_native", "_pid", "_receiving", "_sending")
    _noun = "object"

    def __init__(self, native: Any) -> None:
        self._native = native[0]
        self._h: int = native.h
        self._closed = False
        self._receiving = Side()
        self._sending = Side()
        self._pid = os.getpid()

    @property
    def closed(self) -> bool:
        """Whether this side has closed it."""
        return self._closed

    def _end(self) -> None:
        """Closes the handle, once, and sends the threads that wait on it away."""
        self._closed = True
        lib.mux_close(self._h)
        self._receiving.wake()
        self._sending.wake()

    def _check_open(self) -> None:
        if self._closed:
            if self._pid != os.getpid():
                raise error_from(lib.MUX_EFORKED)
            error = ClosedError(errno.EBADF, f"this {self._noun} was closed by this side")
            error.status, error.origin = Status.ECLOSED, Origin.LOCAL
            raise error

    def _fail(self, status: int) -> Exception:
        """The exception for a failed call; the library keeps the details with the object."""
        detail = new_detail()
        lib.mux_cause(self._h, detail)
        return error_from(status, detail)

    def _do(self, side: Side, events: int, timeout: float | None, call: Callable[[], int]) -> int:
        """Makes a nonblocking call until it is done, for at most `timeout` seconds; raises its failures."""
        self._check_open()
        result = call()
        if result == AGAIN and timeout != 0:

            def attempt() -> int:
                self._check_open()
                return call()

            result = side.wait(self._h, events, timeout, attempt)
            if result == AGAIN:
                raise error_from(lib.MUX_TIMEDOUT)
        if result < 0:
            if self._closed:
                self._check_open()
            raise self._fail(result)
        return result

    def _info(self, key: int) -> bytes:
        """A fact about the object, empty where it does not apply."""
        size = _INFO_BYTES
        while True:
            buffer = ffi.new("char[]", size)
            length = lib.mux_info(self._h, key, buffer, size)
            if length < 0:
                if length in (lib.MUX_EFORKED, lib.MUX_EHANDLE):
                    self._check_open()
                    raise error_from(length)
                return b""
            if length <= size:
                return bytes(ffi.buffer(buffer, length))
            size = length

    def _named(self, key: int) -> str:
        """For `__repr__`, which may be called on anything, at any time."""
        kind = f"libmux.{type(self).__name__}"
        if self._closed:
            return f"<{kind} closed>"
        try:
            return f"<{kind} {self._info(key).decode('utf-8', 'backslashreplace')}>"
        except (OSError, RuntimeError):
            return f"<{kind} ended>"

    def _finalize(self, end: Callable[[], None]) -> None:
        """For `__del__`: warns about an object nobody closed, and ends it."""
        # Nothing is left to do for what was closed, half made, inherited over fork(), or met at interpreter exit.
        if lib is None or getattr(self, "_closed", True) or self._pid != os.getpid():
            return
        try:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=3, source=self)
        finally:
            end()


def check_timeout(timeout: float | None) -> None:
    """Refuses what cannot be a timeout."""
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout {timeout!r}: None (no limit) or a number of seconds from 0 is allowed")

