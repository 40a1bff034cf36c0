"""What long commands say while they work, on a real terminal and without one."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.log.samples import make_keys, make_log
from ullage.cli.parsers import describe, every_command
from ullage.cli.progress import elapsed, rate_words

JOB = """
import time
from ullage.cli.progress import meter
with meter(quiet={quiet}) as progress:
    for stage in ("verifying", "recomputing"):
        for done in range(11):
            progress(stage, done, 10)
            time.sleep(0.05)
print("result")
"""
LONG = (
    "demo", "audit", "calibrate", "replay", "probe", "bench base64", "redteam tokens", "redteam wire",
    "redteam subliminal", "redteam work", "redteam memory", "log verify", "report", "memory erase",
    "memory cycle", "memory hold", "work account", "slowdown", "fleet",
)  # fmt: skip


def on_a_terminal(arguments: list[str], code: int = 0) -> tuple[str, str]:
    """Standard output, and what the terminal showed of standard error."""
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=follower, text=True,
        env=environment,
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(leader)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    return out, shown.decode("utf-8", "replace")


def test_a_terminal_sees_stage_share_rate_and_time_left() -> None:
    out, shown = on_a_terminal(["-c", JOB.format(quiet=False)])
    assert out == "result\n"
    for piece in ("verifying", "recomputing", "100%", "/s", "0:00:0"):
        assert piece in shown


def test_quiet_is_silent_on_a_terminal() -> None:
    assert on_a_terminal(["-c", JOB.format(quiet=True)]) == ("result\n", "")


def test_checking_a_log_shows_how_far_it_is(tmp_path: Path) -> None:
    make_log(tmp_path / "log", make_keys(tmp_path / "keys"))
    command = [
        "-m",
        "ullage",
        "log",
        "verify",
        str(tmp_path / "log"),
        "--key",
        str(tmp_path / "keys/log.pub"),
    ]
    out, shown = on_a_terminal([*command, "--record-keys", str(tmp_path / "keys")])
    assert out.splitlines()[-1].startswith("pass: ")
    assert "verifying the log" in shown
    assert "opening records" in shown
    assert on_a_terminal([*command, "--quiet"])[1] == ""


def test_without_a_terminal_there_is_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", JOB.format(quiet=False)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("result\n", "")


@pytest.mark.parametrize("words", LONG)
def test_every_long_command_can_be_quiet(words: str) -> None:
    table = dict(every_command())
    flags = {flag for one in describe(words, table[words]).parameters for flag in one.flags}
    assert {"--quiet", "--json"} <= flags


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59.9, "59 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")]
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert elapsed(seconds) == words


@pytest.mark.parametrize(
    ("speed", "words"), [(None, ""), (0.0, ""), (1234.5, "1,234/s"), (2.345, "2.3/s"), (0.01, "100 s each")]
)
def test_rates_in_words(speed: float | None, words: str) -> None:
    assert rate_words(speed) == words
