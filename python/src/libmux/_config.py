"""Configuration of sessions and listeners."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ._errors import InvalidArgumentError, check, invalid, new_detail
from ._native import ffi, lib


class ClientAuth(enum.IntEnum):
    """Whether a listener asks its clients for a certificate."""

    NONE = 0
    REQUEST = 1
    REQUIRE = 2


@dataclass(frozen=True)
class TLS:
    """What we present and what we demand in a TLS handshake. `str` and `Path` are file names, `bytes` are PEM."""

    ca: str | os.PathLike[str] | bytes | None = None
    """Authorities to trust instead of the platform's."""
    cert: str | os.PathLike[str] | bytes | None = None
    """Our certificate chain; goes with `key`."""
    key: str | os.PathLike[str] | bytes | None = None
    """Our private key."""
    server_name: str | None = None
    """The name to verify instead of the URL's host."""
    pins: Sequence[bytes] = ()
    """SHA-256 hashes (32 bytes) of leaf certificates accepted instead of chain and name."""
    alpn: Sequence[str] = ()
    """Application protocols to offer instead of the backend's own."""
    client_auth: ClientAuth = ClientAuth.NONE
    """What a listener asks of its clients."""
    insecure: bool = False
    """Skip verification. The library logs a warning."""


def _key(number: int, scale: int = 1) -> Any:
    return field(default=None, metadata={"key": number, "scale": scale})


@dataclass(frozen=True)
class Config:
    """Limits and times; what is None keeps the library's default. Durations are seconds, sizes bytes."""

    connect_timeout: float | None = _key(lib.MUX_CFG_CONNECT_MS, 1000)
    """How long a dial may take, name lookup and handshakes included."""
    keepalive: float | None = _key(lib.MUX_CFG_KEEPALIVE_MS, 1000)
    """How often a silent peer is probed; 0 never."""
    idle: float | None = _key(lib.MUX_CFG_IDLE_MS, 1000)
    """A session without traffic for this long is ended; 0 never."""
    linger: float | None = _key(lib.MUX_CFG_LINGER_MS, 1000)
    """How long a closed channel or session may go on flushing in the background."""
    max_channels: int | None = _key(lib.MUX_CFG_MAX_CHANNELS_IN)
    """Channels that the peer may have open at once."""
    window: int | None = _key(lib.MUX_CFG_CHANNEL_WINDOW)
    """Bytes a channel may receive unread."""
    budget: int | None = _key(lib.MUX_CFG_SESSION_WINDOW)
    """Bytes the peer may make a session hold."""
    send_buffer: int | None = _key(lib.MUX_CFG_SEND_BUFFER)
    """Bytes a channel accepts for sending before the transport takes them."""
    frame_size: int | None = _key(lib.MUX_CFG_FRAME_SIZE)
    """The largest frame body to send."""
    channel_backlog: int | None = _key(lib.MUX_CFG_CHANNEL_BACKLOG)
    """Channels that wait for accept(); an open beyond it is refused, safe to retry."""
    session_backlog: int | None = _key(lib.MUX_CFG_SESSION_BACKLOG)
    """Sessions that wait for a listener's accept()."""
    max_label: int | None = _key(lib.MUX_CFG_MAX_LABEL)
    """The longest label accepted."""
    max_sessions: int | None = _key(lib.MUX_CFG_MAX_SESSIONS)
    """Sessions a listener serves at once."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Options by the names that URLs use, those of a single backend for example."""


def native_config(config: Config | None, tls: TLS | None, timeout: float | None) -> Any:
    """An owned `mux_config *`, to be closed by the caller; its handle is 0 where everything is default."""
    out = ffi.new("mux_config *")
    if config is None and tls is None and timeout is None:
        return out
    check(lib.mux_config_new(out))
    try:
        if config is not None:
            _apply_config(out[0], config)
        if tls is not None:
            _apply_tls(out[0], tls)
        if timeout is not None:
            _set(out[0], "timeout", lib.MUX_CFG_CONNECT_MS, timeout * 1000)
    except BaseException:
        lib.mux_close(out.h)
        raise
    return out


def _set(native: Any, name: str, key: int, value: float) -> None:
    try:
        check(lib.mux_config_set_u64(native, key, int(value)))
    except (InvalidArgumentError, OverflowError) as error:
        raise invalid(f"{name} is out of range") from error


def _apply_config(native: Any, config: Config) -> None:
    for item in fields(config):
        value = getattr(config, item.name)
        if value is not None and "key" in item.metadata:
            _set(native, item.name, item.metadata["key"], value * item.metadata["scale"])
    for name, text in config.options.items():
        if lib.mux_config_set_option(native, name.encode(), text.encode()) < 0:
            raise invalid(f"option {name}={text}: unknown name or value out of range")


def _apply_tls(native: Any, tls: TLS) -> None:
    detail = new_detail()
    if tls.ca is not None:
        pem = _pem(tls.ca)
        check(lib.mux_config_tls_ca(native, pem, len(pem), detail), detail)
    if (tls.cert is None) != (tls.key is None):
        raise invalid("cert and key go together: give both, or neither")
    if tls.cert is not None and tls.key is not None:
        cert, key = _pem(tls.cert), _pem(tls.key)
        check(lib.mux_config_tls_identity(native, cert, len(cert), key, len(key), detail), detail)
    if tls.server_name is not None:
        check(lib.mux_config_tls_server_name(native, tls.server_name.encode()))
    for pin in tls.pins:
        check(lib.mux_config_tls_pin_sha256(native, pin, len(pin)))
    if tls.alpn:
        check(lib.mux_config_alpn(native, ",".join(tls.alpn).encode()))
    _set(native, "client_auth", lib.MUX_CFG_CLIENT_AUTH, tls.client_auth)
    _set(native, "insecure", lib.MUX_CFG_TLS_INSECURE, tls.insecure)


def _pem(source: str | os.PathLike[str] | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    with open(source, "rb") as file:
        return file.read()
