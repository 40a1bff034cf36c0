"""Telemetry past the tap: declared fields alone, few values, fixed times, a budget."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pydantic_core
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tap.tap_process import TapProcess
from ullage.errors import UsageError
from ullage.tap.gate import Gate
from ullage.tap.operations.telemetry import Declaration, Sampler, read_declaration
from ullage.tap.operations.telemetry_door import TelemetryDoor
from ullage.tap.upstream.connections import Address, Timeouts, Upstream

DECLARED = """
version = 1
interval_seconds = 1
bits_per_day_budget = 400000
path = "/telemetry"

[[field]]
kind = "enumeration"
name = "state"
values = ["unknown", "serving", "idle"]

[[field]]
kind = "counter"
name = "errors"
quantum = 10
levels = 4
"""


def _declaration(**changes: Any) -> Declaration:
    fields = [
        {"kind": "enumeration", "name": "state", "values": ["unknown", "serving", "idle"]},
        {"kind": "counter", "name": "errors", "quantum": 10, "levels": 4},
    ]
    usual = {"version": 1, "interval_seconds": 60, "bits_per_day_budget": 1e5, "field": fields}
    return Declaration.model_validate({**usual, **changes})


@pytest.mark.parametrize(
    "body",
    [
        b"1" + b"0" * 400, b"-1" + b"0" * 400, b"1e308", b"-1e308", b"NaN", b"Infinity", b"-0.0", b"true",
        b"null", b"[]", b"{}", b'"7"', b"9007199254740993",
    ],
)  # fmt: skip
def test_no_number_of_the_servers_is_an_error(body: bytes) -> None:
    """One that no float holds ended the door for good: a way to stop telemetry that nobody had counted."""
    sampler = Sampler(_declaration())
    value = pydantic_core.from_json(b'{"errors": ' + body + b"}")
    for number in range(1, 4):
        shown = sampler.sample(value)["errors"]
        assert shown in (0, 30 * number)


def test_bits_of_a_declaration() -> None:
    declaration = _declaration()
    assert declaration.bits_per_sample == pytest.approx(math.log2(3) + 2)
    assert declaration.bits_per_day == pytest.approx(declaration.bits_per_sample * 1440)
    with pytest.raises(ValueError, match="an interval of 310 s fits"):
        _declaration(bits_per_day_budget=1000)


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.sampled_from(["state", "errors", "secret"]), _anything), max_size=12))
@settings(deadline=None)
def test_whatever_a_server_says_few_values_leave(said: list[dict[str, Any]]) -> None:
    sampler = Sampler(_declaration())
    before = 0
    for values in said:
        sample = sampler.sample(values)
        assert list(sample) == ["state", "errors"]
        assert sample["state"] in ("unknown", "serving", "idle")
        errors = sample["errors"]
        assert isinstance(errors, int)
        assert errors % 10 == 0
        assert 0 <= errors - before <= 30  # at most three quanta a sample
        before = errors


def test_a_counter_catches_up() -> None:
    sampler = Sampler(_declaration())
    shown = [sampler.sample({"errors": 95, "state": "idle"})["errors"] for _ in range(4)]
    assert shown == [30, 60, 90, 90]
    assert sampler.sample({"errors": 0})["errors"] == 90


@pytest.mark.parametrize(
    "text",
    ["", "version = 2", DECLARED.replace('"state"', '"errors"'), DECLARED.replace("levels = 4", "levels = 1"),
     DECLARED + "\nfree_text = true\n", DECLARED.replace("400000", "4"), "no toml ["],
)  # fmt: skip
def test_declarations_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "telemetry.toml").write_text(text)
    with pytest.raises(UsageError, match=r"telemetry\.toml"):
        read_declaration(tmp_path / "telemetry.toml")


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"state": "serving", "errors": 25, "secret": "x" * 100}).encode()
        self.send_response(200, "SECRET")
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """A server that would say more than is declared; its address."""
    running = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


class _Time:
    """A clock that only sleeping moves, each time a little less or more than asked."""

    def __init__(self, errors: Sequence[float]) -> None:
        self.now = 1_700_000_007.0
        self.enough = asyncio.Event()
        self._errors = itertools.cycle(errors)
        self._left = 40

    async def sleep(self, seconds: float) -> None:
        self._left -= 1
        if not self._left:
            self.enough.set()
            await asyncio.Event().wait()
        self.now += max(0.0, seconds + next(self._errors))


@pytest.mark.parametrize("errors", [(0.0,), (-0.001,), (0.4, -0.001, 0.0)])
def test_samples_leave_at_fixed_times(tmp_path: Path, server: str, errors: Sequence[float]) -> None:
    written: list[tuple[float, dict[str, Any]]] = []
    hours = Declaration.model_validate(tomllib.loads(DECLARED) | {"interval_seconds": 60})

    class Door(TelemetryDoor):
        def _write(self, due: int, sample: dict[str, str | int]) -> None:
            super()._write(due, sample)
            written.append((clock.now, json.loads((tmp_path / "out").read_text().splitlines()[-1])))

    async def run() -> None:
        upstream = Upstream(Address.parse(server), Timeouts())
        out = tmp_path / "out"
        door = Door(Sampler(hours), upstream, Gate(), out, clock=lambda: clock.now, sleep=clock.sleep)
        running = asyncio.ensure_future(door.run())
        await clock.enough.wait()
        running.cancel()
        upstream.close()

    clock = _Time(errors)
    asyncio.run(run())
    assert len(written) >= 19
    first = written[0][1]["time"]
    assert first == (1_700_000_007 // 60 + 1) * 60
    for number, (moment, line) in enumerate(written):
        assert line == {"time": first + 60 * number, "state": "serving", "errors": 20}
        assert abs(moment - line["time"]) < 0.5


def test_a_tap_lets_declared_telemetry_out(tmp_path: Path, server: str) -> None:
    (tmp_path / "telemetry.toml").write_text(DECLARED)
    out = tmp_path / "samples.jsonl"
    paths = {"telemetry": str(tmp_path / "telemetry.toml"), "telemetry_out": str(out)}
    with TapProcess(tmp_path, server, paths=paths) as tap:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (out.exists() and '"serving"' in out.read_text()):
            time.sleep(0.1)
        assert tap.stop() == (0, "")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines[-1] == {"time": lines[-1]["time"], "state": "serving", "errors": 20}
    # A machine under load may miss a time, or the server's answer; no sample is early, twice, or says more.
    times = [line["time"] for line in lines]
    assert times == sorted(set(times))
    assert all(set(line) == {"time", "state", "errors"} for line in lines)
    assert {line["state"] for line in lines} <= {"unknown", "serving"}
    assert {line["errors"] for line in lines} <= {0, 20}
