"""`mux bench` measures and says so in the agreed form; what it measures is no test's business."""

import json
import os
import pathlib
import signal

import pytest

from mux_command import DEADLINE, wait_for

NUMBERS = ["value", "min", "max", "ratio", "cpu_client_s", "cpu_server_s", "rss_client", "rss_server"]
NUMBERS += ["budget_client", "budget_server"]
SCENARIOS = ["bulk1", "bulk100", "small", "pingpong", "rr64", "churn", "churn64", "idle", "unread", "loaded-ping"]
# Single calls of the C API.
CALLS = ["c-read", "c-write", "c-write-more", "c-event", "c-open"]
# All of them, with few channels where their number varies.
SMALL = [{"idle": "idle:100", "unread": "unread:8"}.get(scenario, scenario) for scenario in SCENARIOS]


def bench(mux, *args):
    return mux.run("bench", "--seconds", "0.2", "--runs", "1", *args, timeout=300)


BARE = {
    "qmux": "tcp",
    "qmux+tls": "tls",
    "qmux+unix": "unix",
    "quic": "raw-quinn",
    "h2c": "raw-h2",
    "h2": "raw-h2-tls",
}


@pytest.mark.parametrize("backend", BARE)
def test_every_scenario_gives_a_line_beside_the_bare_transport(mux, backend, tmp_path):
    path = tmp_path / "bench.jsonl"
    ended = bench(mux, "--backend", backend, "--scenario", ",".join(SMALL), "--json", str(path))
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    bare = BARE[backend]
    assert [(row["scenario"], row["backend"]) for row in rows] == [(s, b) for s in SCENARIOS for b in (bare, backend)]
    for row in rows:
        assert (row["api"], row["baseline"], row["runs"]) == ("rust", bare, 1)
        assert isinstance(row["unit"], str)
        for name in NUMBERS:
            assert isinstance(row[name], (int, float)) and row[name] >= 0, (name, row)
        timed = row["scenario"] in ("pingpong", "rr64", "churn", "churn64", "loaded-ping")
        assert ("p50_us" in row, "p99_us" in row) == (timed, timed), row
        twice = row["scenario"] in ("unread", "loaded-ping")
        assert ("alone" in row, "of_alone" in row) == (twice, twice), row
        assert row["less_is_better"] == (row["scenario"] in ("pingpong", "idle", "loaded-ping"))
        if row["backend"] == bare:
            assert row["ratio"] == 1
        if row["scenario"] == "loaded-ping":
            assert row["unit"] == "us p99" and row["value"] == row["p99_us"] and row["alone"] == row["alone_p99_us"]
        if row["scenario"] == "pingpong":
            assert row["unit"] == "us" and row["value"] == row["p50_us"]
    assert b"ratio" in ended.stdout and backend.encode() in ended.stdout


def test_the_ratios_can_be_seen(mux, tmp_path):
    ended = bench(mux, "--backend", "qmux", "--scenario", "pingpong,bulk1", "--html", str(tmp_path / "bench.html"))
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "bench.html").read_text().count("<rect") == 2


def test_json_on_stdout_is_nothing_but_json(mux):
    ended = bench(mux, "--scenario", "pingpong", "--json", "-")
    assert ended.returncode == 0, ended.stderr
    beside = [name for backend in ("qmux", "quic", "h2c", "h2") for name in (BARE[backend], backend)]
    assert [json.loads(line)["backend"] for line in ended.stdout.splitlines()] == beside, "all of them unless told"
    assert b"ratio" in ended.stderr, "the table is there all the same"


def test_bare_tls_is_measured_too(mux):
    ended = bench(mux, "--backend", "tls", "--scenario", ",".join(SMALL), "--json", "-")
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [(row["scenario"], row["baseline"]) for row in rows] == [(scenario, "tls") for scenario in SCENARIOS]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_the_server_may_be_at_the_other_end_of_a_link(mux, host):
    there = mux.start("bench", "--serve", f"{host}:0").first_line()
    args = ["--connect", there, "--warm-up", "0.1", "--backend", "qmux,quic,h2c,h2,tls", "--json", "-"]
    ended = bench(mux, *args, "--scenario", "pingpong,loaded-ping")
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(rows) == 2 * 9 and all(row["value"] > 0 for row in rows), rows


def test_a_link_that_leads_nowhere_is_a_failure(mux):
    ended = bench(mux, "--connect", "127.0.0.1:1", "--backend", "tcp", "--scenario", "pingpong", "--json", "-")
    row = json.loads(ended.stdout)
    assert ended.returncode == 1 and "127.0.0.1:1" in row["error"], row


def test_a_unix_socket_is_on_no_link(mux):
    ended = bench(mux, "--connect", "127.0.0.1:1", "--backend", "qmux+unix")
    assert ended.returncode == 2 and b"qmux+unix" in ended.stderr


@pytest.mark.parametrize("backend", ["tcp", "tls"])
def test_what_the_machine_cannot_do_is_said_and_no_failure(mux, backend):
    ended = bench(mux, "--backend", backend, "--scenario", "idle:1000000", "--json", "-")
    row = json.loads(ended.stdout)
    assert ended.returncode == 0 and row["value"] is None and "descriptors" in row["skipped"], row


def test_a_result_that_cannot_be_written_is_known_before_the_first_run(mux, tmp_path):
    ended = bench(mux, "--json", str(tmp_path / "no" / "such" / "file"))
    assert ended.returncode == 1 and b"cannot write" in ended.stderr


@pytest.mark.parametrize("backend", ["qmux", "h2"])
def test_the_c_api_is_measured_beside_rust(mux, backend, tmp_path):
    path = tmp_path / "bench.jsonl"
    scenarios = ["bulk1", "pingpong", "churn", "c-read"]
    ended = bench(mux, "--api", "c", "--backend", backend, "--scenario", ",".join(scenarios), "--json", str(path))
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["scenario"], row["api"]) for row in rows] == [(s, api) for s in scenarios for api in ("rust", "c")]
    for row in rows:
        # Calls are the C API's alone, and measured without TLS.
        measured = row["scenario"] in SCENARIOS or (row["api"] == "c" and backend == "qmux")
        assert (row["backend"], row["runs"], "skipped" in row) == (backend, int(measured), not measured)


def test_the_scenarios_are_listed(mux):
    ended = mux.run("bench", "--list")
    assert ended.returncode == 0
    assert [line.split()[0] for line in ended.stdout.decode().splitlines()] == SCENARIOS + CALLS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_end_in_mid_run_leaves_nothing_behind(mux, place, number):
    os.environ["TMPDIR"] = str(place)
    try:
        process = mux.start("bench", "--backend", "unix", "--scenario", "bulk1", "--seconds", "600")
    finally:
        del os.environ["TMPDIR"]
    wait_for(lambda: len(children(process.pid)) == 2 and list(place.iterdir()))
    workers = children(process.pid)
    process.send_signal(number)
    process.wait(timeout=DEADLINE)
    wait_for(lambda: not any(runs(worker) for worker in workers))
    if number != signal.SIGKILL:
        assert list(place.iterdir()) == []


def children(pid):
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def runs(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    # An orphan that has ended may wait for whoever adopted it.
    return state != "Z"
