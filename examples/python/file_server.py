"""file_server.py URL DIRECTORY: serves the files below DIRECTORY (see examples/README.md)."""

import sys
from pathlib import Path

import libmux
from serving import NOT_UNDERSTOOD, serve

NO_SUCH_FILE, READ_FAILED = 2, 3
LONGEST_PATH = 4096


def read_request(channel: libmux.Channel) -> str:
    """The path that the client asks for; ValueError when it is none."""
    channel.settimeout(30)
    request = b""
    while block := channel.recv(LONGEST_PATH + 1):
        request += block
        if len(request) > LONGEST_PATH:
            raise ValueError("the path is too long")
    channel.settimeout(None)
    if not request or b"\0" in request:
        raise ValueError("not a path")
    return request.decode()


def send_file(root: Path, channel: libmux.Channel) -> None:
    try:
        request = read_request(channel)
    except ValueError:
        return channel.abort(NOT_UNDERSTOOD)
    # Where the path leads to, links resolved, decides whether it is inside.
    path = (root / request).resolve()
    if root not in path.parents or not path.is_file():
        return channel.abort(NO_SUCH_FILE)
    try:
        file = path.open("rb")
    except OSError:
        return channel.abort(NO_SUCH_FILE)
    with file:
        while True:
            try:
                block = file.read(65536)
            except OSError:
                return channel.abort(READ_FAILED)
            if not block:
                return None
            channel.sendall(block)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} URL DIRECTORY")
    directory = Path(sys.argv[2]).resolve(strict=True)
    serve(sys.argv[1], b"file", lambda channel: send_file(directory, channel))
