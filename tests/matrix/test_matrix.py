"""Every pair of languages, over every URL, each end opening channels to the other; see README.md."""

import hashlib
import random
import shutil
import subprocess

import pytest
from conftest import Program
from urls import URLS

PAIRS = [
    ("c", "c"),
    ("c", "python"),
    ("python", "c"),
    ("python", "rust"),
    ("rust", "python"),
    ("rust", "c"),
    ("c", "rust"),
]
# What a peer that only echoes can answer, and the rest.
ECHO_CHECKS = ["echo", "nolabel", "urgency", "many"]
CHECKS = [*ECHO_CHECKS, "hello", "label", "halfclose", "sink", "reset", "seereset", "stop", "seestop"]

both_urls = pytest.mark.parametrize("url", URLS)


@both_urls
@pytest.mark.parametrize("driver", ["dialer", "listener"])
@pytest.mark.parametrize("listener, dialer", PAIRS, ids=lambda name: name)
def test_agents_agree(run, tmp_path, url, listener, dialer, driver):
    listening = run(listener, "listen", URLS[url](tmp_path), "drive" if driver == "listener" else "serve")
    dialing = run(dialer, "dial", listening.url(), "drive" if driver == "dialer" else "serve")
    driving, serving = (listening, dialing) if driver == "listener" else (dialing, listening)
    said = driving.succeed()
    assert [line for line in said if line.startswith("ok ")] == [f"ok {name}" for name in CHECKS]
    assert serving.succeed()[-1] == "closed code=5 by=peer"


@both_urls
def test_the_command_echoes_for_the_c_agent(run, tmp_path, url):
    command = run("cli", "listen", URLS[url](tmp_path), "--echo")
    agent = run("c", "dial", command.url(), "drive", *ECHO_CHECKS)
    assert sorted(agent.succeed()) == sorted(f"ok {name}" for name in ECHO_CHECKS)


@both_urls
def test_the_c_agent_echoes_for_the_command(run, programs, tmp_path, url):
    agent = run("c", "listen", URLS[url](tmp_path), "serve")
    data = random.Random(3).randbytes(64 << 20)
    command = [*programs["cli"], "connect", agent.url(), "--label", "echo"]
    done = subprocess.run(command, input=data, stdout=subprocess.PIPE, timeout=90, check=True)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    assert agent.succeed()[-1] == "closed code=0 by=peer"


@both_urls
def test_the_command_does_not_take_a_reset_for_an_end(run, programs, tmp_path, url):
    agent = run("c", "listen", URLS[url](tmp_path), "serve")
    command = [*programs["cli"], "connect", agent.url(), "--label", "reset:77"]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=90)
    assert done.returncode != 0
    assert b"77" in done.stderr


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_the_c_agents_are_clean_under_valgrind(programs):
    # Not the 64 MiB, which prove nothing here and take their time.
    names = [name for name in CHECKS if name != "echo"]
    memcheck = ["valgrind", "--quiet", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect"]
    memcheck += ["--error-exitcode=9", *programs["c"]]
    serving = Program([*memcheck, "listen", "qmux://127.0.0.1:0", "serve"])
    try:
        driving = Program([*memcheck, "dial", serving.url(), "drive", *names])
        try:
            assert driving.succeed() == [f"ok {name}" for name in names]
            serving.succeed()
        finally:
            driving.end()
    finally:
        serving.end()
