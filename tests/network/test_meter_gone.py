"""A tap that rests on a meter releases nothing without it: killed, stopped, or never there."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.network import lab
from tests.network.isolated_tap import ENVIRONMENT, ULLAGE, Tap, isolated_tap
from ullage.network.sign_of_life import LifeWatch, SignOfLife

ALARM_SECONDS = 1.0
SLACK_SECONDS = 1.0  # of a busy machine, for the request that finds it out


def code_of(tap: Tap) -> str:
    """`ok`, or the code of the error."""
    connection = HTTPConnection(*tap.address, timeout=30)
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "In the", "max_tokens": 4}))
    body = json.loads(connection.getresponse().read())
    connection.close()
    return str(body["error"]["code"]) if "error" in body else "ok"


def wait_for(tap: Tap, code: str, seconds: float) -> float:
    """Seconds until requests get this."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if code_of(tap) == code:
            return time.monotonic() - begun
        threading.Event().wait(0.05)
    raise AssertionError(f"no {code} in {seconds} s")


@contextlib.contextmanager
def meter(tap: Tap, alive: Path) -> Iterator[subprocess.Popen[str]]:
    keys = tap.folder / "keys"
    command = [*ULLAGE, "wire", "meter", "--namespace", tap.namespace, "--alive", str(alive), "--json"]
    command += ["--journal", str(tap.folder / "wire.journal"), "--log", str(tap.folder / "log")]
    command += ["--keys", str(keys)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@lab.needs_namespaces
def test_nothing_is_released_while_the_meter_is_silent(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    with isolated_tap(tmp_path, "--meter", str(alive)) as tap:
        assert code_of(tap) == "meter_unavailable"
        with meter(tap, alive) as running:
            wait_for(tap, "ok", 20)
            running.send_signal(signal.SIGSTOP)
            assert wait_for(tap, "meter_unavailable", 5) <= ALARM_SECONDS + SLACK_SECONDS
            running.send_signal(signal.SIGCONT)
            wait_for(tap, "ok", 20)
            running.kill()
            assert wait_for(tap, "meter_unavailable", 5) <= ALARM_SECONDS + SLACK_SECONDS
        with meter(tap, alive):
            wait_for(tap, "ok", 20)
        said = tap.stop()
    assert said.count("recovered from meter_unavailable") == 3


def test_only_a_change_is_a_sign_of_life(tmp_path: Path) -> None:
    now = 100.0
    path = tmp_path / "alive"
    watch = LifeWatch(path, 0.7, lambda: now)
    assert not watch.alive()
    sign = SignOfLife(path)
    sign.beat(0.0)
    assert watch.alive()
    now += 0.6
    sign.beat(0.05)  # too soon to count
    assert watch.alive()
    now += 0.2
    assert not watch.alive()
    sign.beat(0.2)
    assert watch.alive()
    sign.close()
    follower = LifeWatch(path, 0.7, lambda: now)
    assert not follower.alive()  # what was there before it looked says nothing
    again = SignOfLife(path)
    again.beat(0.0)
    assert follower.alive()
    again.close()


@pytest.mark.parametrize("content", [b"", b"short", b"longer than a number"])
def test_a_file_of_something_else_is_silence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "alive"
    path.write_bytes(content)
    watch = LifeWatch(path, 0.7)
    assert not watch.alive()
    assert not watch.alive()


def test_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    sign = SignOfLife(target)
    (tmp_path / "alive").symlink_to(target)
    watch = LifeWatch(tmp_path / "alive", 0.7)
    sign.beat(0.0)
    assert not watch.alive()
    sign.close()
