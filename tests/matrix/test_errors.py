"""What goes wrong is said, the same way in each language, and nothing is taken for complete that is not."""

import pytest
from urls import REFUSING, URLS

LANGUAGES = ["c", "python", "rust"]
# How each agent writes a status.
REFUSED = {"c": "-50", "python": "EREFUSED", "rust": "Refused"}
NOT_FOUND = {"c": "-80", "python": "EOS", "rust": "Io"}
BAD_URL = {"c": "-48", "python": "EURL", "rust": "Url"}


def error_of(run, language, *arguments):
    """The status and message with which an agent gives up."""
    agent = run(language, *arguments)
    assert agent.wait() == 3, f"{agent.lines} {agent.stderr}"
    word, status, message = agent.lines[-1].split(" ", 2)
    assert word == "error"
    return status, message


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("url", REFUSING)
def test_nobody_listens(run, tmp_path, language, url):
    target = REFUSING[url](tmp_path)
    status, message = error_of(run, language, "dial", target, "serve")
    assert status in (REFUSED[language], NOT_FOUND[language]), message
    assert target.partition("://")[2] in message


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("side", ["dial", "listen"])
def test_an_unknown_scheme_lists_what_exists(run, language, side):
    status, message = error_of(run, language, side, "nosuch://127.0.0.1:1", "serve")
    assert status == BAD_URL[language]
    assert "nosuch" in message and "qmux" in message


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("side", ["dial", "listen"])
def test_an_unknown_option_lists_what_exists(run, language, side):
    status, message = error_of(run, language, side, "qmux://127.0.0.1:0?windw=4096", "serve")
    assert status == BAD_URL[language]
    assert "windw" in message and "window" in message


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("url", URLS)
def test_a_killed_peer_never_looks_complete(run, tmp_path, language, url):
    server = run("c", "listen", URLS[url](tmp_path), "serve")
    dialled = server.url()
    # Over UDP nobody says that a process was killed: its silence does, soon.
    silence = f"{'&' if '?' in dialled else '?'}keepalive=1s" if url == "quic" else ""
    agent = run(language, "dial", dialled + silence, "drive", "endless")
    assert agent.line() == "reading"
    server.kill()
    ended = agent.line()
    assert ended.startswith("ended ")
    # A reset, a broken connection or silence; never 0, which is the clean end.
    assert ended.split()[1] in {"-64", "-67", "Reset", "Closed"} | ({"-69", "Idle"} if url == "quic" else set()), ended


@pytest.mark.parametrize("language", ["c", "python"])
@pytest.mark.parametrize("url", URLS)
def test_handles_that_are_stale_zero_or_of_the_wrong_kind(run, tmp_path, language, url):
    server = run("c", "listen", URLS[url](tmp_path), "serve")
    agent = run(language, "dial", server.url(), "drive", "handles")
    assert agent.succeed() == ["ok handles"]
