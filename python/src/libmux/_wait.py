"""Waiting without blocking inside C: try, arm a one-shot watch, sleep in `select.poll` on the queue's fd.

Python then handles Ctrl-C, other signals, debuggers and other threads as it does for a socket.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
from typing import Any, Callable

from ._errors import check
from ._native import ffi, lib

AGAIN: int = lib.MUX_AGAIN
_DEFAULT_RUNTIME = ffi.new("mux_runtime *")[0]
# poll(2) takes an int of milliseconds; longer waits come round again.
_LONGEST_POLL_MS = 3_600_000
_SCRATCH_BYTES = 256 * 1024


class _Queue:
    """A readiness queue and what goes with it; used by one wait at a time."""

    __slots__ = ("_q", "_poll", "_events", "pid")

    def __init__(self) -> None:
        self._q = ffi.new("mux_queue *")
        self.pid = os.getpid()
        check(lib.mux_queue_new(_DEFAULT_RUNTIME, self._q))
        fd = ffi.new("mux_fd *")
        check(lib.mux_queue_fd(self._q[0], fd))
        self._poll = select.poll()
        self._poll.register(fd[0], select.POLLIN)
        self._events = ffi.new("mux_event[4]")

    def __del__(self) -> None:
        if lib is not None and self._q.h:
            lib.mux_close(self._q.h)

    def watch(self, handle: int, events: int) -> None:
        check(lib.mux_watch(self._q[0], handle, events, lib.MUX_WATCH_ONESHOT, 0))

    def unwatch(self, handle: int) -> None:
        lib.mux_unwatch(self._q[0], handle)

    def sleep(self, seconds: float | None) -> None:
        """Until something happened or the time has passed; it may return early."""
        if seconds is None:
            self._poll.poll()
        else:
            self._poll.poll(min(math.ceil(seconds * 1000), _LONGEST_POLL_MS))
        status = lib.mux_queue_next(self._q[0], self._events, 4, 0)
        if status != AGAIN:
            check(status)

    def wake(self) -> None:
        lib.mux_queue_wake(self._q[0])


class _Local(threading.local):
    """A thread's idle queues. More than one exists only where a signal handler waits while its thread waits."""

    def __init__(self) -> None:
        self.idle: list[_Queue] = []
        self.scratch: Any = None

    def take(self) -> _Queue:
        while self.idle:
            queue = self.idle.pop()
            if queue.pid == os.getpid():
                return queue
        return _Queue()

    def take_scratch(self, size: int) -> Any:
        """A buffer to receive into, to be given back as `scratch`. It is taken, not shared: a signal handler that
        receives in between gets another."""
        scratch, self.scratch = self.scratch, None
        if scratch is None or len(scratch) < min(size, _SCRATCH_BYTES):
            scratch = ffi.new("char[]", min(max(size, 4096), _SCRATCH_BYTES))
        return scratch


local = _Local()


class Side:
    """One direction of waiting on an object: the library keeps one watch for it, so one thread waits at a time."""

    __slots__ = ("_lock", "_queue")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: _Queue | None = None

    def wake(self) -> None:
        """Makes the thread that waits look again."""
        queue = self._queue
        if queue is not None:
            queue.wake()

    def wait(self, handle: int, events: int, timeout: float | None, attempt: Callable[[], int]) -> int:
        """Repeats `attempt` whenever one of `events` happens, until it gives something other than AGAIN.

        Returns AGAIN when the timeout has passed. `attempt` raises when another thread has closed the object.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._lock.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)):
            return AGAIN
        try:
            queue = local.take()
            try:
                # From here on close() finds the queue and wakes it; what it closed before is seen by the attempt.
                self._queue = queue
                while (result := attempt()) == AGAIN:
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        break
                    queue.watch(handle, events)
                    queue.sleep(left)
                return result
            finally:
                self._queue = None
                queue.unwatch(handle)
                local.idle.append(queue)
        finally:
            self._lock.release()
