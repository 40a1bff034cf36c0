"""Real faults: a disk that fills, a log that vanishes, a clock that jumps, parts that are killed under
load."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.tap.scripted_upstream import Exchange, ScriptedUpstream, greet, text_ids
from tests.tap.small_tokenizer import small_tokenizer
from tests.tap.tap_process import TapProcess

_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, t);
    if (id == CLOCK_REALTIME) {
        char text[32] = {0};
        int file = open(getenv("SHIM_OFFSET"), O_RDONLY);
        if (file >= 0) { if (read(file, text, 31) > 0) t->tv_sec += atol(text); close(file); }
    }
    return result;
}
"""


def _post(tap: TapProcess) -> httpx.Response:
    return httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a"}, timeout=20)


def _until(tap: TapProcess, status: int, code: str = "", seconds: float = 10) -> httpx.Response:
    """Ask until the answer is this one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        response = _post(tap)
        if response.status_code == status:
            assert not code or response.json()["error"]["code"] == code
            return response
        time.sleep(0.05)
    raise AssertionError(f"no {status}, but {response.status_code} {response.text}")


def test_a_disk_that_fills_and_is_freed(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url) as tap:
        assert tap.process is not None
        assert _post(tap).status_code == 200
        entries = sum(path.stat().st_size for path in tap.log.iterdir())
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.prlimit(tap.process.pid, resource.RLIMIT_FSIZE, (entries // 2, hard))
        _until(tap, 503, "log_unavailable")
        assert httpx.get(f"{tap.url}/health").status_code == 503
        forwarded = len(upstream.requests)
        time.sleep(2.5)  # it tries again in vain
        assert _post(tap).status_code == 503
        assert len(upstream.requests) == forwarded
        resource.prlimit(tap.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        _until(tap, 200)
        assert httpx.get(f"{tap.url}/health").status_code == 200
        code, errors = tap.stop()
        assert code == 0
        assert "recovered from log_unavailable" in errors
        assert "Traceback" not in errors
        tap.assert_sound()
        counters = [record.counter for record in tap.records()]
        assert counters == list(range(len(counters)))


def test_a_disk_that_fills_while_nobody_reads_the_error_output(tmp_path: Path) -> None:
    """As with `ullage tap 2>&1 | logger` after the logger has died: it neither goes on nor stays closed."""
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url) as tap:
        assert tap.process is not None
        assert tap.process.stderr is not None
        tap.process.stderr.close()
        assert _post(tap).status_code == 200
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.prlimit(tap.process.pid, resource.RLIMIT_FSIZE, (0, hard))
        _until(tap, 503, "log_unavailable")
        resource.prlimit(tap.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        _until(tap, 200)
        tap.process.terminate()
        tap.process.wait(30)
        tap.assert_sound()


@pytest.mark.parametrize("pace", [{}, {"slot": 0.05, "tokens": 1}])
def test_no_event_leaves_that_the_log_cannot_hold(tmp_path: Path, pace: dict[str, float]) -> None:
    """The disk is full before the second event: its text must not be seen, not even once."""
    go_on = threading.Event()

    async def in_two(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.event(text_ids("first"))
        while not go_on.is_set():
            await asyncio.sleep(0.01)
        await exchange.event(text_ids("second"))  # and more to come: this is not the end's own part
        await exchange.until_closed()

    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, pace=pace) as tap:
        assert tap.process is not None
        process = tap.process.pid
        upstream.behaviour = in_two
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

        def fill() -> None:
            resource.prlimit(process, resource.RLIMIT_FSIZE, (0, hard))
            go_on.set()

        timer = threading.Timer(1.0, fill)
        timer.start()
        body = {"prompt": "a", "stream": True}
        seen = httpx.post(f"{tap.url}/v1/completions", json=body, timeout=20).text
        timer.join()
        known = text_ids("first")[: -1 if pace else None]  # in slots the last token waits for the next
        assert _text_of(seen) == small_tokenizer().decode(known)
        assert "log_unavailable" in seen
        resource.prlimit(process, resource.RLIMIT_FSIZE, (hard, hard))
        upstream.behaviour = greet
        _until(tap, 200)
        assert tap.stop()[0] == 0
        tap.assert_sound()


def _text_of(stream: str) -> str:
    events = [line.removeprefix("data: ") for line in stream.split("\n\n") if line.startswith("data: {")]
    whole = [json.loads(event) for event in events if event.endswith("}")]
    return "".join(event["choices"][0]["text"] for event in whole if event.get("choices"))


def test_a_log_that_vanishes(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url) as tap:
        assert _post(tap).status_code == 200
        shutil.move(tap.log, tmp_path / "elsewhere")
        began = time.monotonic()
        _until(tap, 503, "log_unavailable")
        assert time.monotonic() - began < 2
        time.sleep(2.5)  # a checkpoint has been due
        assert _post(tap).status_code == 503
        assert not tap.log.exists()
        shutil.move(tmp_path / "elsewhere", tap.log)
        _until(tap, 200, seconds=45)  # it tries ever more rarely, at the rarest every 30 s
        code, errors = tap.stop()
        assert code == 0
        assert "the log's files are gone" in errors
        tap.assert_sound()


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that moves a process's wall clock by the seconds in a file."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to build the clock's shim")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(_SHIM)
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "shim.so"), str(folder / "shim.c"), "-ldl"]
    subprocess.run(command, check=True)
    return folder / "shim.so"


@pytest.mark.slow
@pytest.mark.parametrize("jump", ["3600", "-3600"])
def test_a_clock_that_jumps(tmp_path: Path, shim: Path, jump: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offset = tmp_path / "offset"
    offset.write_text("0")
    monkeypatch.setenv("LD_PRELOAD", str(shim))
    monkeypatch.setenv("SHIM_OFFSET", str(offset))
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url) as tap:
        assert _post(tap).status_code == 200
        offset.write_text(jump)
        began = time.monotonic()
        _until(tap, 503, "clock_unsure")
        assert time.monotonic() - began < 1
        _until(tap, 200, seconds=15)
        assert time.monotonic() - began > 4
        code, errors = tap.stop()
        assert code == 0
        assert "clock has jumped" in errors
        tap.assert_sound()


class _Load:
    """Clients that ask without a pause, and keep what they got."""

    def __init__(self, url: str) -> None:
        self.bodies: list[bytes] = []
        self.codes: set[str] = set()
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(20)

    def wait_for(self, answers: int) -> None:
        """Until so many answers are there, however slow the machine is."""
        deadline = time.monotonic() + 30
        while len(self.bodies) < answers and time.monotonic() < deadline:
            time.sleep(0.01)

    def _ask(self) -> None:
        with httpx.Client(timeout=10) as client:
            while not self._stop.is_set():
                try:
                    response = client.post(f"{self._url}/v1/completions", json={"prompt": "a"})
                except httpx.TransportError:
                    continue
                if response.status_code == 200:
                    self.bodies.append(response.content)
                else:
                    self.codes.add(response.json()["error"]["code"])


def _assert_all_recorded(tap: TapProcess, bodies: list[bytes]) -> None:
    known = {record.close.released_digest for record in tap.records() if record.close is not None}
    missing = [body for body in bodies if "sha256:" + hashlib.sha256(body).hexdigest() not in known]
    assert missing == []


def _faults(tmp_path: Path, rounds: int, seed: int) -> None:
    """Kill the tap, or fill its disk, at any moment of a load: nothing was released that is not on record."""
    chance = random.Random(seed)
    bodies: list[bytes] = []
    codes: set[str] = set()
    with ScriptedUpstream() as upstream:
        for _ in range(rounds):
            with TapProcess(tmp_path, upstream.url) as tap:
                assert tap.process is not None
                load = _Load(tap.url)
                with load.running():
                    load.wait_for(2)
                    time.sleep(chance.uniform(0.05, 0.4))
                    if chance.random() < 0.5:
                        entries = max(path.stat().st_size for path in tap.log.iterdir())
                        resource.prlimit(
                            tap.process.pid, resource.RLIMIT_FSIZE, (entries + 2000, resource.RLIM_INFINITY)
                        )
                        time.sleep(chance.uniform(0.05, 0.4))
                    tap.process.kill()
                bodies += load.bodies
                codes |= load.codes
        with TapProcess(tmp_path, upstream.url) as tap:
            tap.stop()
        tap.assert_sound()
        _assert_all_recorded(tap, bodies)
    assert len(bodies) > rounds
    assert codes <= {"log_unavailable"}


def test_kills_and_full_disks_under_load(tmp_path: Path) -> None:
    _faults(tmp_path, 4, 1)


@pytest.mark.slow
def test_a_hundred_kills_and_full_disks_under_load(tmp_path: Path) -> None:
    _faults(tmp_path, 100, 2)
