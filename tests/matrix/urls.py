"""The one place where the URLs of the matrix stand: a name, and a function from a test's directory to a URL to listen
on. A backend joins the matrix with a line here. Each test's directory has a certificate, cert.pem and key.pem; what dials
is given its pin.

The qmux wires are the foundation's and always run. The others run when they are named: LIBMUX_MATRIX=h2c,h2,quic. They
join for good with the issue that completes them: on h2c `seestop` has once seen a connection reset instead of the stop, and
on quic a reset right after an open takes the label with it (`seereset`)."""

import hashlib
import os
import re
import ssl
from pathlib import Path

URLS = {
    "qmux+tcp": lambda directory: "qmux+tcp://127.0.0.1:0",
    "qmux+unix": lambda directory: f"qmux+unix://{directory}/m.sock",
}

# For each of them, a URL that nobody listens on.
REFUSING = {
    "qmux+tcp": lambda directory: "qmux+tcp://127.0.0.1:1",
    "qmux+unix": lambda directory: f"qmux+unix://{directory}/nobody.sock",
    "h2c": lambda directory: "h2c://127.0.0.1:1",
    "h2": lambda directory: "h2://127.0.0.1:1",
    "quic": lambda directory: "quic://127.0.0.1:1",
}

OTHERS = {
    "h2c": lambda directory: "h2c://127.0.0.1:0",
    "h2": lambda directory: f"h2://127.0.0.1:0?cert={directory}/cert.pem&key={directory}/key.pem",
    "quic": lambda directory: f"quic://127.0.0.1:0?cert={directory}/cert.pem&key={directory}/key.pem",
}
URLS.update({name: OTHERS[name] for name in os.environ.get("LIBMUX_MATRIX", "").split(",") if name})


def dialled(listened, printed):
    """The URL to dial, of the one that was to be listened on and the one that the listener printed."""
    certificate = re.search(r"[?&]cert=([^&]*)", listened)
    if certificate is None:
        return printed
    der = ssl.PEM_cert_to_DER_cert(Path(certificate[1]).read_text())
    return f"{printed}{'&' if '?' in printed else '?'}pin=sha256:{hashlib.sha256(der).hexdigest()}"
