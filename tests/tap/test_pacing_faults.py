"""Paced answers that fail, end apart, or are given up: every record is closed and holds every token."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.tap.scripted_upstream import Exchange, ScriptedUpstream, text_ids
from tests.tap.small_tokenizer import EOS
from tests.tap.tap_process import TapProcess
from ullage.tap.pacing.grid import Pace
from ullage.tap.pacing.schedule import read_sentence
from ullage.tap.residual.channels import observed_in

PACE: dict[str, Any] = {"slot": 0.02, "tokens": 8, "lead": 2, "pad_to": 0, "chunk_bytes": 512}


def _ask(tap: TapProcess, **fields: Any) -> httpx.Response:
    return httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a", **fields}, timeout=20)


def test_choices_of_a_stream_that_end_apart_keep_their_ends(tmp_path: Path) -> None:
    """A slot at which a choice has tokens but no text, as its EOS alone, is part of its record."""
    outputs = [[*text_ids("x" * 29), EOS], [*text_ids("y" * 8), EOS], [EOS]]

    async def apart(exchange: Exchange) -> None:
        await exchange.answer(outputs[len(upstream.requests) - 1])

    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, pace=PACE) as tap:
        upstream.behaviour = apart
        response = _ask(tap, stream=True, n=3)
        assert response.text.rstrip().endswith("data: [DONE]")
        assert tap.stop() == (0, "")
        tap.assert_sound()
        recorded = [list(record.output_ids) for record in tap.records()]
    assert sorted(recorded) == sorted(outputs)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_too_late_for_its_length_has_failed(tmp_path: Path, stream: bool) -> None:
    """A short answer is beyond its last late slot while a longer one could still have come."""

    async def late(exchange: Exchange) -> None:
        await asyncio.sleep(1.6)  # due at slot 2; the last late slot is 65, for 256 tokens 96
        await exchange.answer([*text_ids("x"), EOS])

    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, pace=PACE) as tap:
        upstream.behaviour = late
        response = _ask(tap, stream=stream, max_tokens=256)
        assert response.status_code == 502
        close = tap.closed().close
        assert close is not None
        assert close.outcome == "upstream-failed"
        assert close.detail.endswith("later than the last slot")
        assert tap.stop() == (0, "")
        tap.assert_sound()


@pytest.mark.parametrize("leaves", ["client", "tap"])
def test_a_record_is_closed_though_nobody_waits_for_its_failure(tmp_path: Path, leaves: str) -> None:
    """The server fails at once; the client, or the tap, goes before the slot at which that is told."""

    async def breaks(exchange: Exchange) -> None:
        exchange.writer.transport.abort()

    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, pace=PACE, grace=1) as tap:
        upstream.behaviour = breaks
        if leaves == "client":
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a", "max_tokens": 500}, timeout=0.5)
            assert tap.closed().close is not None
        else:
            asking = threading.Thread(target=lambda: _ask(tap, max_tokens=500))
            asking.start()
            deadline = time.monotonic() + 10
            while not upstream.requests:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert tap.stop()[0] == 0
        if leaves == "tap":
            asking.join()
        tap.assert_sound()
        close = tap.closed().close
        assert close is not None
        assert close.outcome == {"client": "client-gone", "tap": "aborted"}[leaves]


@pytest.mark.parametrize(("ends", "exceptions"), [("server", 2), ("client", 1)])
def test_lateness_counts_whatever_becomes_of_the_answer(tmp_path: Path, ends: str, exceptions: int) -> None:
    """A stream that begins late says so to its client, even if it then breaks or is left."""

    begun = threading.Event()

    async def late_and_no_end(exchange: Exchange) -> None:
        await asyncio.sleep(0.3)
        await exchange.begin()
        for token in text_ids("x" * 9):
            await exchange.event([token])
        if ends == "client":
            await exchange.until_closed()
        await asyncio.to_thread(begun.wait, 20)
        exchange.writer.transport.abort()

    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, pace=PACE) as tap:
        upstream.behaviour = late_and_no_end
        request = {"prompt": "a", "stream": True, "max_tokens": 16}
        with httpx.stream("POST", f"{tap.url}/v1/completions", json=request, timeout=20) as response:
            pieces = response.iter_raw()
            next(pieces)
            begun.set()
            if ends == "server":
                assert "upstream_failed" in "".join(piece.decode() for piece in pieces)
        tap.closed()
        assert tap.stop() == (0, "")
        tap.assert_sound()
        (record,) = tap.records()
    assert record.close is not None
    assert record.close.outcome == {"server": "upstream-failed", "client": "client-gone"}[ends]
    seen = observed_in([record], Pace(**PACE))
    _, own = read_sentence(record.close.detail)  # what a busy machine adds
    assert seen.exceptions - own == exceptions
    assert seen.opportunities == 2  # one group, and the failure or what the client has not waited for


def test_a_client_that_does_not_read_uses_up_nobodys_allowance(tmp_path: Path) -> None:
    """A stream that nobody takes is still in time: else one client could close the tap for all."""

    async def long(exchange: Exchange) -> None:
        await exchange.answer([*text_ids("x" * 255), EOS])

    pace = {**PACE, "slot": 0.05, "chunk_bytes": 1 << 18}
    allowance = {"share": 0.0, "burst": 1.0, "drip": 0.0}
    options: dict[str, Any] = {"pace": pace, "allowance": allowance, "link": "whole"}
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, **options) as tap:
        upstream.behaviour = long
        host, _, port = tap.url.removeprefix("http://").rpartition(":")
        body = json.dumps({"prompt": "a", "stream": True, "max_tokens": 256}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(20)
            client.connect((host, int(port)))
            client.sendall(head.encode() + body)
            record = tap.closed()  # 8 MiB have left, and nothing was taken
            taken = 0
            while piece := client.recv(1 << 20):
                taken += len(piece)
        assert tap.stop() == (0, "")
        tap.assert_sound()
    assert record.close is not None
    assert record.close.outcome == "complete"
    steps, _ = read_sentence(record.close.detail)
    assert steps <= 1  # one if the machine was too busy to read the server's answer in time
    assert record.close.bytes_to_client == 32 << 18
    assert taken > 32 << 18
