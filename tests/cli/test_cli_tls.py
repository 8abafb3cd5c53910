"""Certificates from the command line: made by `mux listen --self-signed` or `mux cert`, trusted by their pin."""

import re
import stat
import subprocess

import pytest

from mux_command import ENCRYPTED

PIN = re.compile(r"sha256:[0-9a-f]{64}")


@pytest.fixture(params=ENCRYPTED)
def scheme(request):
    """A scheme that uses TLS."""
    return request.param


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_self_signed_prints_a_url_that_is_all_a_dialer_needs(mux, scheme, host):
    _, dial = mux.listen(f"{scheme}://{host}:0", "--echo", "--self-signed")
    assert PIN.fullmatch(dial.partition("?pin=")[2]), dial
    ended = mux.run("connect", dial, stdin=b"hello")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"hello", b"")


def test_a_wrong_pin_names_what_was_presented(mux, scheme):
    _, dial = mux.listen(f"{scheme}://127.0.0.1:0", "--echo", "--self-signed")
    url, _, pin = dial.partition("?pin=")
    ended = mux.run("connect", f"{url}?pin=sha256:{'0' * 64}", stdin=b"hello")
    assert ended.returncode == 1 and ended.stdout == b""
    assert b"pin mismatch" in ended.stderr and pin.encode() in ended.stderr, ended.stderr


def test_a_certificate_that_nobody_vouches_for_is_rejected(mux, scheme):
    _, dial = mux.listen(f"{scheme}://127.0.0.1:0", "--echo", "--self-signed")
    ended = mux.run("connect", dial.partition("?")[0], stdin=b"hello")
    assert ended.returncode == 1 and b"certificate was rejected" in ended.stderr and b"pin=" in ended.stderr, ended.stderr


def test_files_of_mux_cert_serve_and_are_trusted_by_pin_or_as_authority(mux, scheme, place):
    made = mux.run("cert", "--out", str(place), "localhost", "127.0.0.1")
    pin = made.stdout.decode().strip()
    assert made.returncode == 0 and PIN.fullmatch(pin), made
    assert stat.S_IMODE((place / "key.pem").stat().st_mode) == 0o600
    _, dial = mux.listen(f"{scheme}://127.0.0.1:0?cert={place}/cert.pem&key={place}/key.pem", "--echo")
    assert "?" not in dial, "what the listener keeps to itself is not printed"
    port = dial.rpartition(":")[2]
    for url in (f"{dial}?pin={pin}", f"{dial}?ca={place}/cert.pem", f"{scheme}://localhost:{port}?ca={place}/cert.pem"):
        ended = mux.run("connect", url, stdin=b"hello")
        assert (ended.returncode, ended.stdout) == (0, b"hello"), (url, ended.stderr)


def test_a_name_that_the_certificate_does_not_have_is_rejected(mux, scheme, place):
    assert mux.run("cert", "--out", str(place), "mux.example").returncode == 0
    _, dial = mux.listen(f"{scheme}://127.0.0.1:0?cert={place}/cert.pem&key={place}/key.pem", "--echo")
    ended = mux.run("connect", f"{dial}?ca={place}/cert.pem", stdin=b"hello")
    assert ended.returncode == 1 and b"127.0.0.1" in ended.stderr, ended.stderr
    ended = mux.run("connect", f"{dial}?ca={place}/cert.pem&server_name=mux.example", stdin=b"hello")
    assert (ended.returncode, ended.stdout) == (0, b"hello"), ended.stderr


def test_mux_cert_overwrites_nothing(mux, place):
    assert mux.run("cert", "--out", str(place)).returncode == 0
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    assert sorted(before) == ["cert.pem", "key.pem"]
    ended = mux.run("cert", "--out", str(place))
    assert ended.returncode == 1 and b"not overwritten" in ended.stderr and ended.stdout == b"", ended
    assert before == {path.name: path.read_bytes() for path in place.iterdir()}
    (place / "cert.pem").unlink()
    assert mux.run("cert", "--out", str(place)).returncode == 1
    assert [path.name for path in place.iterdir()] == ["key.pem"], "a certificate without its key is not left"


def test_mux_cert_says_what_it_cannot_do(mux, place):
    (place / "file").touch()
    ended = mux.run("cert", "--out", f"{place}/file/none")
    assert ended.returncode == 1 and b"file/none" in ended.stderr, ended.stderr
    ended = mux.run("cert", "--out", f"{place}/none", "\u00fc")
    assert ended.returncode == 2 and b"names" in ended.stderr, ended.stderr
    assert [path.name for path in place.iterdir()] == ["file"]


def test_mux_cert_makes_the_directory(mux, place):
    assert mux.run("cert", "--out", f"{place}/new/certs").returncode == 0
    assert sorted(path.name for path in (place / "new" / "certs").iterdir()) == ["cert.pem", "key.pem"]


def test_openssl_reads_what_mux_cert_writes(mux, place):
    pin = mux.run("cert", "--out", str(place), "mux.example", "192.0.2.7").stdout.decode().strip()
    openssl = ["openssl", "x509", "-in", f"{place}/cert.pem", "-noout", "-fingerprint", "-sha256", "-ext", "subjectAltName"]
    said = subprocess.run(openssl, capture_output=True, check=True).stdout.decode()
    fingerprint = re.search(r"Fingerprint=([0-9A-F:]+)", said).group(1)
    assert fingerprint.replace(":", "").lower() == pin.removeprefix("sha256:")
    assert "mux.example" in said and "192.0.2.7" in said, said


@pytest.mark.parametrize(
    ("url", "args", "said"),
    [
        ("quic://127.0.0.1:0", [], ["--self-signed", "cert=PATH", "mux cert"]),
        ("h2://127.0.0.1:0", [], ["--self-signed", "cert=PATH", "mux cert"]),
        ("h2://127.0.0.1:0?cert=c.pem", [], ["key"]),
        ("qmux://127.0.0.1:0", ["--self-signed"], ["qmux", "TLS"]),
        ("quic://127.0.0.1:0?cert=c.pem&key=k.pem", ["--self-signed"], ["leave one out"]),
        ("quic://127.0.0.1:0", ["--self-signed", "--no-url"], ["--no-url"]),
        ("nosuch://127.0.0.1:0", ["--self-signed"], ["nosuch", "quic"]),
        ("quic://127.0.0.1", ["--self-signed"], ["port"]),
        ("quic://:0", ["--self-signed"], ["host"]),
    ],
)
def test_a_listener_without_the_one_certificate_it_needs_is_a_mistake(mux, url, args, said):
    ended = mux.run("listen", url, "--echo", *args) if "--no-url" not in args else mux.run("listen", url, *args)
    assert ended.returncode == 2 and ended.stdout == b"", ended
    for word in said:
        assert word in ended.stderr.decode(), ended.stderr


def test_files_that_do_not_exist_are_named(mux, scheme):
    ended = mux.run("listen", f"{scheme}://127.0.0.1:0?cert=/nosuch/c.pem&key=/nosuch/k.pem", "--echo")
    assert ended.returncode == 1 and b"/nosuch/c.pem" in ended.stderr, ended.stderr
