"""echo_server.py URL: sends back what arrives on channels labelled "echo"."""

import sys

import libmux
from serving import serve


def echo(channel: libmux.Channel) -> None:
    while block := channel.recv(65536):
        channel.sendall(block)
    # The end of the caller's `with` closes the channel: what was sent arrives, then the end.


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} URL")
    serve(sys.argv[1], b"echo", echo)
