"""The manual pages are well formed, and every function has one."""

import os
import subprocess

import header
from conftest import run


def test_every_page_is_without_warnings_and_found_by_apropos(prefix):
    section = prefix / "share/man/man3"
    pages = {page.name for page in section.iterdir()}
    assert {f"{name}.3" for name in header.read().names()} | {"libmux.3"} <= pages
    env = {**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": ""}
    for page in sorted(pages):
        # From the directory that links to other pages begin at.
        command = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", f"man3/{page}"]
        said = subprocess.run(command, capture_output=True, text=True, env=env, cwd=section.parent)
        assert said.returncode == 0 and said.stderr == "", f"{page}: {said.stderr}"
        if not (section / page).read_text().startswith(".so"):
            assert "parse failed" not in run("lexgrog", section / page)


def test_a_page_shows_prototypes_comments_and_types(prefix):
    shown = run("man", "-l", prefix / "share/man/man3/mux_queue.3", env={**os.environ, "MANWIDTH": "100", "LC_ALL": "C.UTF-8"})
    assert "int64_t mux_queue_next(mux_queue q, mux_event *out, int32_t max, int32_t timeout_ms);" in " ".join(shown.split())
    assert "Readiness may be spurious, it is never missed." in " ".join(shown.split())
    assert "MUX_WATCH_LEVEL = 1," in shown
