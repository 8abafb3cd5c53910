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

    __slots__ = ("_events", "_poll", "_q", "pid")

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
    """The threads that wait on one side of an object, for which the library keeps a single watch.

    The first of them, the leader, owns the watch, for the events of all. It leaves when it has what it waited for, and
    wakes the next, which looks for itself and takes over the watch.
    """

    __slots__ = ("_lock", "_waiting")

    def __init__(self) -> None:
        # Reentrant, for signal handlers that wait on the very object their thread waits on.
        self._lock = threading.RLock()
        self._waiting: list[tuple[_Queue, int]] = []

    def wake(self) -> None:
        """Makes every thread that waits look again."""
        with self._lock:
            for queue, _ in self._waiting:
                queue.wake()

    def wait(self, handle: int, events: int, timeout: float | None, attempt: Callable[[], int]) -> int:
        """Repeats `attempt` whenever one of `events` happens, until it gives something other than AGAIN.

        Returns AGAIN when the timeout has passed. `attempt` raises when another thread has closed the object.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        queue = local.take()
        me = (queue, events)
        try:
            # From here on close() finds the queue and wakes it; what it closed before is seen by the attempt.
            self._join(me)
            while (result := attempt()) == AGAIN:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    break
                if wanted := self._wanted(me):
                    queue.watch(handle, wanted)
                queue.sleep(left)
            return result
        finally:
            self._leave(me)
            queue.unwatch(handle)
            local.idle.append(queue)

    def _join(self, me: tuple[_Queue, int]) -> None:
        with self._lock:
            self._waiting.append(me)
            leader, watched = self._waiting[0]
            if me[1] & ~watched:
                # Its watch has to grow.
                leader.wake()

    def _wanted(self, me: tuple[_Queue, int]) -> int:
        """What to watch for: the events of all for the leader, nothing for the others."""
        with self._lock:
            if self._waiting[0] is not me:
                return 0
            wanted = me[1]
            for queue, events in self._waiting:
                if events != me[1]:
                    # What woke the leader may have been meant for this one.
                    queue.wake()
                wanted |= events
            return wanted

    def _leave(self, me: tuple[_Queue, int]) -> None:
        with self._lock:
            if me in self._waiting:
                self._waiting.remove(me)
            if self._waiting:
                self._waiting[0][0].wake()
