"""The end of a tap waits for the records of the requests that it cut short, and closes all that was open."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tap.scripted_upstream import ScriptedUpstream
from tests.tap.small_tokenizer import small_tokenizer
from tests.tap.test_crash import count_slowly
from ullage.errors import FaultError
from ullage.log.keys import Role, create_keys, load_tap_keys
from ullage.log.record import Record
from ullage.log.sealed.openers import load_opener
from ullage.log.store import LogReader
from ullage.tap import run as tap_run
from ullage.tap.clients.request import parse_request
from ullage.tap.gate import Gate
from ullage.tap.gateway import Gateway, Names
from ullage.tap.recorder import Recorder
from ullage.tap.run import Declaration, open_log
from ullage.tap.upstream.connections import Address, Timeouts, Upstream


class _Client:
    """A client that takes what comes; `begun` once something has."""

    def __init__(self) -> None:
        self.started = False
        self.gone = False
        self.begun = asyncio.Event()

    async def send(self, status: int, body: bytes) -> None:
        self.begun.set()

    def put(self, data: bytes) -> None:
        self.started = True
        self.begun.set()

    async def write(self, data: bytes) -> None:
        self.put(data)

    async def finish(self, data: bytes) -> None:
        self.begun.set()


def test_a_request_cut_short_is_closed_before_the_end(tmp_path: Path) -> None:
    """uvicorn cancels what is in flight and ends; the task has not even had its turn when `drain` begins."""
    create_keys(tmp_path / "keys", Role.TAP)
    keys = load_tap_keys(tmp_path / "keys")
    tokenizer = small_tokenizer()
    log = open_log(tmp_path / "log", keys, Declaration("sha256:" + "0" * 64, "murmur3-gumbel/f64", "float32"))
    request = parse_request("completions", b'{"prompt": "a", "stream": true}', "small", tokenizer)

    async def cut_short(upstream_url: str) -> Record:
        upstream = Upstream(Address.parse(upstream_url), Timeouts())
        gateway = Gateway(Recorder(log, keys.seed), upstream, tokenizer, Names("small", None))
        client = _Client()
        task = asyncio.ensure_future(gateway.answer(request, 10, client))
        await client.begun.wait()
        task.cancel()
        await gateway.drain()
        reader = LogReader.open(tmp_path / "log", opener=load_opener(tmp_path / "keys"))
        (record,) = reader.records(include_uncovered=True)
        upstream.close()
        return record

    with ScriptedUpstream() as scripted:
        scripted.behaviour = count_slowly
        record = asyncio.run(cut_short(scripted.url))
    log.close()
    assert record.close is not None
    assert record.close.outcome == "aborted"


def test_the_first_close_that_fails_keeps_no_other_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the wire journal's disk is full at the end: monitor and enforcer are closed all the same."""
    closed: list[str] = []

    class Server:
        def __init__(self, config: object) -> None:
            pass

        async def serve(self, sockets: object) -> None:
            await asyncio.sleep(0)  # what runs beside it begins

    async def drain() -> None:
        closed.append("drained")

    def close_upstream() -> None:
        closed.append("upstream")
        raise FaultError("the disk is full")

    async def close_enforcer() -> None:
        closed.append("enforcer")

    async def answers(patience: float) -> bool:
        return True

    supervisor = SimpleNamespace(look_at_meter=lambda: None, run=lambda: asyncio.sleep(60))
    enforcement = SimpleNamespace(client=SimpleNamespace(close=close_enforcer, answers=answers))
    parts: Any = SimpleNamespace(
        gateway=SimpleNamespace(gate=Gate(), drain=drain, enforcement=enforcement),
        supervisor=supervisor,
        telemetry=None,
        upstream=SimpleNamespace(close=close_upstream),
        watch=SimpleNamespace(close=lambda patience: closed.append("monitor")),
    )
    nothing: Any = None
    monkeypatch.setattr(tap_run, "_Server", Server)
    with pytest.raises(FaultError, match="the disk is full"):
        asyncio.run(tap_run._serve(nothing, nothing, None, parts))
    assert closed == ["drained", "upstream", "monitor", "enforcer"]
