"""echo_client.py URL [TEXT]: sends TEXT on a channel labelled "echo" and prints what comes back."""

import sys

import libmux


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(f"usage: {sys.argv[0]} URL [TEXT]")
    text = sys.argv[2] if len(sys.argv) == 3 else "hello"
    try:
        with libmux.connect(sys.argv[1]) as session, session.open(label=b"echo") as channel:
            # Data and end travel together. A text larger than both ends' buffers would need a second thread to read.
            channel.sendall(text.encode(), finish=True)
            with channel.makefile("rb") as answer:
                sys.stdout.write(answer.read().decode() + "\n")
    except libmux.Error as error:
        sys.exit(f"{sys.argv[1]}: {error}")


if __name__ == "__main__":
    main()
