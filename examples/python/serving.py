"""A server's frame: a thread for each session and for each channel, until Ctrl-C or SIGTERM."""

import signal
import sys
import threading
from typing import Callable

import libmux

NOT_UNDERSTOOD = 1


def serve(url: str, label: bytes, handle: Callable[[libmux.Channel], None]) -> None:
    """Listens on `url`, prints the URL to dial, and calls `handle` for each channel with this label."""

    def serve_channel(channel: libmux.Channel) -> None:
        try:
            with channel:
                if channel.label == label:
                    handle(channel)
                else:
                    channel.abort(NOT_UNDERSTOOD)
        except libmux.Error as error:
            print(f"channel: {error}", file=sys.stderr)

    def serve_session(session: libmux.Session) -> None:
        try:
            with session:
                for channel in session:
                    threading.Thread(target=serve_channel, args=[channel], daemon=True).start()
        except libmux.Error as error:
            print(f"session: {error}", file=sys.stderr)

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with libmux.listen(url) as listener:
            print(listener.url, flush=True)
            for session in listener:
                threading.Thread(target=serve_session, args=[session], daemon=True).start()
    except libmux.Error as error:
        sys.exit(f"{url}: {error}")
    except KeyboardInterrupt:
        pass
