"""Stream multiplexing: sessions and channels over any wire, chosen by a URL.

    import libmux

    with libmux.connect("qmux://127.0.0.1:4000") as session:
        with session.open(label=b"echo") as channel:
            channel.sendall(b"hello", finish=True)
            print(channel.recv(100))

A session is opened and accepted on from both sides. Everything here blocks like a socket does: Ctrl-C, timeouts and
other threads work. Failures are `libmux.Error`s and, where one fits, the `OSError` subclass a socket would raise.
"""

from __future__ import annotations

import atexit
from socket import SHUT_RD, SHUT_RDWR, SHUT_WR

from ._channel import Channel
from ._config import TLS, ClientAuth, Config
from ._errors import (
    AccessError,
    ClosedError,
    Error,
    FinishedError,
    ForkedError,
    InvalidArgumentError,
    NotFoundError,
    Origin,
    RefusedError,
    ResetError,
    Status,
    StoppedError,
    TimedOutError,
    TLSError,
    UnsupportedError,
    URLError,
    WouldBlockError,
)
from ._native import ffi, lib
from ._session import Capability, Listener, Session, SessionInfo, connect, listen, scheme_capabilities

__all__ = [
    "SHUT_RD",
    "SHUT_RDWR",
    "SHUT_WR",
    "TLS",
    "AccessError",
    "Capability",
    "Channel",
    "ClientAuth",
    "ClosedError",
    "Config",
    "Error",
    "FinishedError",
    "ForkedError",
    "InvalidArgumentError",
    "Listener",
    "NotFoundError",
    "Origin",
    "RefusedError",
    "ResetError",
    "Session",
    "SessionInfo",
    "Status",
    "StoppedError",
    "TLSError",
    "TimedOutError",
    "URLError",
    "UnsupportedError",
    "WouldBlockError",
    "connect",
    "listen",
    "scheme_capabilities",
]

_version = lib.mux_version()
__version__ = f"{_version >> 16}.{_version >> 8 & 0xFF}.{_version & 0xFF}"

_EXIT_MS = 10_000


def _at_exit() -> None:
    """Gives what was closed politely the time to reach the peer; what was left open is aborted by the library."""
    while lib.mux_runtime_shutdown(ffi.new("mux_runtime *")[0], _EXIT_MS) == lib.MUX_EINTR:
        pass


atexit.register(_at_exit)
