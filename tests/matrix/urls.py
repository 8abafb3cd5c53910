"""The one place where the URLs of the matrix stand: a name, and a function from a test's directory to a URL to listen
on. A backend joins the matrix with a line here. Each test's directory has a certificate, cert.pem and key.pem; what dials
is given its pin. LIBMUX_MATRIX=h2c,quic runs those alone."""

import hashlib
import os
import re
import ssl
from pathlib import Path

URLS = {
    "qmux+tcp": lambda directory: "qmux+tcp://127.0.0.1:0",
    "qmux+unix": lambda directory: f"qmux+unix://{directory}/m.sock",
    "h2c": lambda directory: "h2c://127.0.0.1:0",
    "h2": lambda directory: f"h2://127.0.0.1:0?cert={directory}/cert.pem&key={directory}/key.pem",
    "quic": lambda directory: f"quic://127.0.0.1:0?cert={directory}/cert.pem&key={directory}/key.pem",
}
if named := os.environ.get("LIBMUX_MATRIX"):
    URLS = {name: URLS[name] for name in named.split(",")}

# For each of them, a URL that nobody listens on.
REFUSING = {
    "qmux+tcp": lambda directory: "qmux+tcp://127.0.0.1:1",
    "qmux+unix": lambda directory: f"qmux+unix://{directory}/nobody.sock",
    "h2c": lambda directory: "h2c://127.0.0.1:1",
    "h2": lambda directory: "h2://127.0.0.1:1",
    "quic": lambda directory: "quic://127.0.0.1:1",
}


def dialled(listened, printed):
    """The URL to dial, of the one that was to be listened on and the one that the listener printed."""
    certificate = re.search(r"[?&]cert=([^&]*)", listened)
    if certificate is None:
        return printed
    der = ssl.PEM_cert_to_DER_cert(Path(certificate[1]).read_text())
    return f"{printed}{'&' if '?' in printed else '?'}pin=sha256:{hashlib.sha256(der).hexdigest()}"
