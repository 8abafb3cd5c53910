"""Sessions and listeners."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._channel import Channel
from ._config import TLS, Config, native_config
from ._errors import (
    ClosedError,
    InvalidArgumentError,
    Origin,
    Status,
    check,
    check_code,
    error_from,
    invalid,
    new_detail,
)
from ._handle import Handle, check_timeout
from ._native import ffi, lib

if TYPE_CHECKING:
    from types import TracebackType


class Capability(enum.IntFlag):
    """What a session can do."""

    HALF_CLOSE = lib.MUX_CAP_HALF_CLOSE
    RESET_CODE = lib.MUX_CAP_RESET_CODE
    STOP = lib.MUX_CAP_STOP
    RESET_VISIBLE = lib.MUX_CAP_RESET_VISIBLE
    PRIORITY = lib.MUX_CAP_PRIORITY
    LABEL = lib.MUX_CAP_LABEL
    OPENED = lib.MUX_CAP_OPENED
    DATAGRAM = lib.MUX_CAP_DATAGRAM
    NO_HOL = lib.MUX_CAP_NO_HOL
    MIGRATION = lib.MUX_CAP_MIGRATION
    GOAWAY = lib.MUX_CAP_GOAWAY
    ACKED = lib.MUX_CAP_ACKED
    SERVER_OPEN = lib.MUX_CAP_SERVER_OPEN


@dataclass(frozen=True)
class SessionInfo:
    """Facts that are fixed once a session is up; empty where they do not apply."""

    url: str
    local_addr: str
    peer_addr: str
    alpn: str
    tls: str
    peer_cert_der: bytes


class Session(Handle):
    """Many channels over one connection, opened and accepted by either side.

    As a context manager it is closed politely at the end of the block; when an exception leaves it, channels that
    were not closed are seen by the peer as reset, never as ended.
    """

    __slots__ = ()
    _noun = "session"

    def open(
        self,
        *,
        label: bytes = b"",
        urgency: int | None = None,
        incremental: bool = True,
        timeout: float | None = None,
    ) -> Channel:
        """Opens a channel, which the peer's `accept` sees even if nothing is sent.

        `label` is what the peer sees before any data; `urgency` is 0 (first) to 7 (last), a hint. Waits only while
        the peer allows no further channel.
        """
        check_timeout(timeout)
        options = ffi.new("mux_open_opts *")
        options.struct_size = ffi.sizeof("mux_open_opts")
        held = ffi.from_buffer(label)
        options.label, options.label_len = held, len(label)
        if urgency is not None:
            if not 0 <= urgency <= 7:
                raise invalid(f"urgency {urgency}: 0 (most urgent) to 7 is allowed")
            options.urgency, options.incremental = urgency + 1, incremental
        out = ffi.new("mux_channel *")
        try:
            self._do(
                self._sending, lib.MUX_EV_OPEN, timeout, lambda: lib.mux_channel_open(self._native, options, 0, out)
            )
        except InvalidArgumentError as error:
            if error.status is Status.ETOOBIG:
                raise invalid(f"label of {len(label)} bytes: at most 1024 are allowed, or what is configured") from None
            raise
        return Channel(out, self)

    def accept(self, timeout: float | None = None) -> Channel:
        """Waits for the next channel that the peer opened. Raises why the session ended, once it has."""
        check_timeout(timeout)
        out = ffi.new("mux_channel *")
        self._do(self._receiving, lib.MUX_EV_ACCEPT, timeout, lambda: lib.mux_channel_accept(self._native, 0, out))
        return Channel(out, self)

    def __iter__(self) -> Iterator[Channel]:
        """The channels that the peer opens, until one of the sides closes the session; raises if it broke."""
        while True:
            try:
                channel = self.accept()
            except ClosedError as error:
                if error.origin in (Origin.LOCAL, Origin.PEER):
                    return
                raise
            yield channel

    @property
    def capabilities(self) -> Capability:
        """What this session can do, as negotiated with this peer."""
        self._check_open()
        out = ffi.new("uint64_t *")
        check(lib.mux_session_caps(self._native, out))
        return Capability(out[0])

    @property
    def info(self) -> SessionInfo:
        """Who the peer is and how we are connected."""
        return SessionInfo(
            url=self._info(lib.MUX_INFO_URL).decode(),
            local_addr=self._info(lib.MUX_INFO_LOCAL_ADDR).decode(),
            peer_addr=self._info(lib.MUX_INFO_PEER_ADDR).decode(),
            alpn=self._info(lib.MUX_INFO_ALPN).decode(),
            tls=self._info(lib.MUX_INFO_TLS).decode(),
            peer_cert_der=self._info(lib.MUX_INFO_PEER_CERT_DER),
        )

    @property
    def cause(self) -> Exception | None:
        """Why the session ended: an exception to look at or to raise. None while it lives."""
        detail = new_detail()
        status = lib.mux_cause(self._h, detail)
        return error_from(status, detail) if status < 0 else None

    def drain(self) -> None:
        """Refuses new channels from now on, safe to retry elsewhere, and lets the old ones finish."""
        self._check_open()
        check(lib.mux_session_drain(self._native))

    def close(self, code: int = 0, reason: str = "") -> None:
        """The polite end: finished channels are delivered in the background, unfinished ones reset, then the peer is
        told `code` and `reason`."""
        check_code(code)
        text = reason.encode()
        if len(text) > 1024 or b"\0" in text:
            raise invalid(f"a reason of {len(text)} bytes: at most 1024 are allowed, and no NUL")
        if not self._closed:
            # A session that is over already has its cause; then there is nobody left to tell.
            lib.mux_shutdown(self._h, code, text)
            self._end()

    def wait_closed(self, timeout: float | None = None) -> Exception:
        """Waits until the session has ended and its connection is released; returns why."""
        check_timeout(timeout)

        def call() -> int:
            ready = ffi.new("uint32_t *")
            return lib.mux_wait(self._h, lib.MUX_EV_CLOSED, 0, ready)  # type: ignore[no-any-return]

        try:
            self._do(self._sending, lib.MUX_EV_CLOSED, timeout, call)
        except ClosedError as error:
            # By another thread of ours, meanwhile.
            return error
        return self.cause or error_from(lib.MUX_ECLOSED)

    def _connected(self) -> None:
        """Waits until the handshake is over; raises why it failed."""
        ready = ffi.new("uint32_t *")
        event = lib.MUX_EV_CONNECTED
        self._do(self._sending, event, None, lambda: lib.mux_wait(self._h, event, 0, ready))
        if cause := self.cause:
            raise cause

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self._finalize(self.close)

    def __repr__(self) -> str:
        return self._named(lib.MUX_INFO_URL)


class Listener(Handle):
    """A bound address that yields sessions."""

    __slots__ = ()
    _noun = "listener"

    @property
    def url(self) -> str:
        """The URL to dial, with the real port where the URL listened on said 0."""
        return self._info(lib.MUX_INFO_URL).decode()

    def accept(self, timeout: float | None = None) -> Session:
        """Waits for the next session. Its peer can be looked at and turned away before any channel is accepted."""
        check_timeout(timeout)
        out = ffi.new("mux_session *")
        self._do(self._receiving, lib.MUX_EV_ACCEPT, timeout, lambda: lib.mux_accept(self._native, 0, out, ffi.NULL))
        return Session(out)

    def __iter__(self) -> Iterator[Session]:
        """The sessions that arrive, until the listener is closed."""
        while not self._closed:
            try:
                session = self.accept()
            except ClosedError as error:
                if error.origin is Origin.LOCAL:
                    return
                raise
            yield session

    def close(self) -> None:
        """Stops listening; the sessions it gave out live on."""
        self._end()

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self._finalize(self.close)

    def __repr__(self) -> str:
        return self._named(lib.MUX_INFO_URL)


def connect(
    url: str, *, timeout: float | None = None, config: Config | None = None, tls: TLS | None = None
) -> Session:
    """Connects to `url`. `timeout` in seconds goes before the configuration's connect timeout."""
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout {timeout!r}: None (as configured) or a number of seconds above 0 is allowed")
    native = native_config(config, tls, timeout)
    detail = new_detail()
    out = ffi.new("mux_session *")
    try:
        status = lib.mux_dial(url.encode(), native[0], 0, out, detail)
    finally:
        lib.mux_close(native.h)
    if status < 0:
        raise error_from(status, detail)
    session = Session(out)
    try:
        session._connected()
    except BaseException:
        session.close()
        raise
    return session


def listen(
    url: str, *, timeout: float | None = None, config: Config | None = None, tls: TLS | None = None
) -> Listener:
    """Listens on `url`; port 0 lets the system choose, see `Listener.url`. Only a name lookup takes time."""
    check_timeout(timeout)
    native = native_config(config, tls, None)
    detail = new_detail()
    out = ffi.new("mux_listener *")
    milliseconds = -1 if timeout is None else int(timeout * 1000)
    try:
        # The one call that may wait in C: a signal ends it with EINTR, and Python's handlers run before it is repeated.
        while (status := lib.mux_listen(url.encode(), native[0], milliseconds, out, detail)) == lib.MUX_EINTR:
            pass
    finally:
        lib.mux_close(native.h)
    if status < 0:
        raise error_from(status, detail)
    return Listener(out)


def scheme_capabilities(scheme: str) -> Capability:
    """What sessions of a scheme (`qmux`, `qmux+unix`) can do with a libmux peer."""
    out = ffi.new("uint64_t *")
    check(lib.mux_scheme_caps(scheme.encode(), out))
    return Capability(out[0])
