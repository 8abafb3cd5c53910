"""file_fetch.py URL PATH OUTPUT: fetches a file from a file_server (see examples/README.md)."""

import os
import sys

import libmux

NO_SUCH_FILE = 2


def fetch(session: libmux.Session, path: str, output: str) -> None:
    if libmux.Capability.RESET_VISIBLE not in session.capabilities:
        sys.exit("this session cannot tell an aborted transfer from a complete one")
    # Written under another name: only what is complete gets the name of the whole.
    part = output + ".part"
    try:
        with session.open(label=b"file") as channel, open(part, "wb") as file:
            channel.settimeout(30)
            channel.sendall(path.encode(), finish=True)
            while block := channel.recv(65536):
                file.write(block)
        os.replace(part, output)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(f"usage: {sys.argv[0]} URL PATH OUTPUT")
    url, path, output = sys.argv[1:]
    try:
        with libmux.connect(url) as session:
            fetch(session, path, output)
    except libmux.ResetError as error:
        sys.exit(f"{path}: " + ("no such file" if error.code == NO_SUCH_FILE else str(error)))
    except OSError as error:
        sys.exit(f"{path}: {error}")


if __name__ == "__main__":
    main()
