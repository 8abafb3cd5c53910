"""What can go wrong, and how statuses of the C API become exceptions."""

from __future__ import annotations

import enum
import errno
import io
from typing import Any

from ._native import ffi, lib

# The 256 codes above it are the library's own.
LARGEST_CODE = (1 << 62) - 257


class Status(enum.IntEnum):
    """What kind of failure it is: the statuses of the C API."""

    OK = lib.MUX_OK
    AGAIN = lib.MUX_AGAIN
    TIMEDOUT = lib.MUX_TIMEDOUT
    EINTR = lib.MUX_EINTR
    CANCELED = lib.MUX_CANCELED
    EHANDLE = lib.MUX_EHANDLE
    EKIND = lib.MUX_EKIND
    EINVAL = lib.MUX_EINVAL
    ESTATE = lib.MUX_ESTATE
    EUNSUPPORTED = lib.MUX_EUNSUPPORTED
    EFORKED = lib.MUX_EFORKED
    EREENTRANT = lib.MUX_EREENTRANT
    ENOMEM = lib.MUX_ENOMEM
    ELIMIT = lib.MUX_ELIMIT
    ENOFILE = lib.MUX_ENOFILE
    ETOOBIG = lib.MUX_ETOOBIG
    EURL = lib.MUX_EURL
    EDNS = lib.MUX_EDNS
    EREFUSED = lib.MUX_EREFUSED
    EUNREACH = lib.MUX_EUNREACH
    EADDRINUSE = lib.MUX_EADDRINUSE
    EACCESS = lib.MUX_EACCESS
    ETLS = lib.MUX_ETLS
    ECERT = lib.MUX_ECERT
    EALPN = lib.MUX_EALPN
    ERESET = lib.MUX_ERESET
    ESTOPPED = lib.MUX_ESTOPPED
    EFINISHED = lib.MUX_EFINISHED
    ECLOSED = lib.MUX_ECLOSED
    EGOAWAY = lib.MUX_EGOAWAY
    EIDLE = lib.MUX_EIDLE
    EPROTO = lib.MUX_EPROTO
    EOS = lib.MUX_EOS
    EINTERNAL = lib.MUX_EINTERNAL


class Origin(enum.IntEnum):
    """Who caused a failure."""

    LOCAL = lib.MUX_BY_LOCAL
    PEER = lib.MUX_BY_PEER
    TRANSPORT = lib.MUX_BY_TRANSPORT
    OS = lib.MUX_BY_OS


class Error(OSError):
    """Base of every failure that libmux reports; the subclasses are also the `OSError`s a socket would raise."""

    status: Status | int
    """What kind of failure it is; a plain int where this package is older than the library."""
    origin: Origin | None
    """Who caused it; None where the library did not say."""
    code: int | None
    """The reset, stop, refusal or close code that came with it; None where the library did not say."""
    retry_safe: bool
    """True when the peer is known not to have acted on the failed work."""
    detail: int
    """The transport's own number (TLS alert, QUIC or HTTP/2 code), else 0."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.status, self.origin, self.code, self.retry_safe, self.detail = Status.EINTERNAL, None, None, False, 0


class WouldBlockError(Error, BlockingIOError):
    """A call with timeout 0 would have had to wait."""


class TimedOutError(Error, TimeoutError):
    """The timeout passed; the object is as it was, and the call may be repeated."""


class InvalidArgumentError(Error, ValueError):
    """A value, option, code or length is out of range; the message says what is allowed."""


class URLError(InvalidArgumentError):
    """The URL cannot be used: unknown scheme, unknown option, malformed."""


class UnsupportedError(Error, io.UnsupportedOperation):
    """This session cannot do it: see `Session.capabilities`."""


class RefusedError(Error, ConnectionRefusedError):
    """Refused: by the host (nobody listens) or by the peer (no room for the channel)."""


class AccessError(Error, PermissionError):
    """The operating system forbids it."""


class NotFoundError(Error, FileNotFoundError):
    """A file, a socket's path for example, does not exist."""


class TLSError(Error):
    """The TLS handshake failed: certificate rejected, no common protocol, or worse."""


class ResetError(Error, ConnectionResetError):
    """The sender abandoned this direction, with `code`: what was read is not the whole."""


class StoppedError(Error, BrokenPipeError):
    """The receiver asked to stop, with `code`."""


class FinishedError(Error, BrokenPipeError):
    """This side had already ended this direction."""


class ClosedError(Error, ConnectionAbortedError):
    """The channel, session or listener is over: `origin` says by whom, `code` with which code."""


class ForkedError(RuntimeError):
    """The object was made before fork(); the child must make sessions of its own."""


_KINDS = {
    Status.AGAIN: (WouldBlockError, errno.EAGAIN),
    Status.TIMEDOUT: (TimedOutError, errno.ETIMEDOUT),
    Status.EINTR: (Error, errno.EINTR),
    Status.CANCELED: (Error, errno.ECANCELED),
    Status.EHANDLE: (ClosedError, errno.EBADF),
    Status.EKIND: (ClosedError, errno.EBADF),
    Status.EINVAL: (InvalidArgumentError, errno.EINVAL),
    Status.ESTATE: (Error, errno.EINVAL),
    Status.EREENTRANT: (Error, errno.EDEADLK),
    Status.EUNSUPPORTED: (UnsupportedError, errno.EOPNOTSUPP),
    Status.ENOMEM: (Error, errno.ENOMEM),
    Status.ELIMIT: (Error, errno.ENOBUFS),
    Status.ENOFILE: (Error, errno.EMFILE),
    Status.ETOOBIG: (InvalidArgumentError, errno.EMSGSIZE),
    Status.EURL: (URLError, errno.EINVAL),
    Status.EDNS: (Error, errno.EHOSTUNREACH),
    Status.EREFUSED: (RefusedError, errno.ECONNREFUSED),
    Status.EUNREACH: (Error, errno.EHOSTUNREACH),
    Status.EADDRINUSE: (Error, errno.EADDRINUSE),
    Status.EACCESS: (AccessError, errno.EACCES),
    Status.ETLS: (TLSError, errno.EPROTO),
    Status.ECERT: (TLSError, errno.EPROTO),
    Status.EALPN: (TLSError, errno.EPROTO),
    Status.ERESET: (ResetError, errno.ECONNRESET),
    Status.ESTOPPED: (StoppedError, errno.EPIPE),
    Status.EFINISHED: (FinishedError, errno.EPIPE),
    Status.ECLOSED: (ClosedError, errno.ECONNABORTED),
    Status.EGOAWAY: (ClosedError, errno.ECONNABORTED),
    # Not TimeoutError: the session is dead, and nobody should try the call again.
    Status.EIDLE: (ClosedError, errno.ECONNABORTED),
    Status.EPROTO: (ClosedError, errno.EPROTO),
    Status.EOS: (Error, errno.EIO),
    Status.EINTERNAL: (Error, errno.EIO),
}


def new_detail() -> Any:
    """A `mux_error` for the library to fill in."""
    detail = ffi.new("mux_error *")
    detail.struct_size = ffi.sizeof("mux_error")
    return detail


def text_of(status: int) -> str:
    """The library's sentence for a status."""
    return str(ffi.string(lib.mux_status_text(status)).decode())


def error_from(status: int, detail: Any = None) -> Exception:
    """The exception for a status, with what a `mux_error` of the same status adds."""
    if status == lib.MUX_EFORKED:
        return ForkedError(
            "this libmux object was made before fork(): the connection belongs to the parent process; "
            "connect or listen again in the child"
        )
    known: Status | int
    try:
        known = Status(status)
        kind, number = _KINDS[known]
    except (ValueError, KeyError):
        known, kind, number = status, Error, errno.EIO
    if detail is None or detail.status != status:
        error = kind(number, text_of(status))
        # Nothing was begun, so nothing can have been done.
        error.retry_safe = known in (Status.EREFUSED, Status.EGOAWAY)
    else:
        number = detail.os_errno or number
        if known is Status.EOS and number == errno.ENOENT:
            kind = NotFoundError
        error = kind(number, ffi.string(detail.message).decode("utf-8", "replace") or text_of(status))
        error.code, error.detail, error.retry_safe = detail.code, detail.detail, bool(detail.retry_safe)
        error.origin = Origin(detail.origin) if detail.origin in Origin._value2member_map_ else None
    error.status = known
    return error


def invalid(message: str) -> InvalidArgumentError:
    """The exception for an argument that is not allowed; the message says what is."""
    error = InvalidArgumentError(errno.EINVAL, message)
    error.status, error.origin = Status.EINVAL, Origin.LOCAL
    return error


def check_code(code: int) -> None:
    """Refuses what no reset, stop or close can carry."""
    if not 0 <= code <= LARGEST_CODE:
        raise invalid(f"code {code}: 0 to 2^62-257 is allowed, portably 0 to 2^32-1")


def check(status: int, detail: Any = None) -> int:
    """Passes a status that is no failure through; raises the others."""
    if status < 0:
        raise error_from(status, detail)
    return status
