"""A server that speaks to readers of the log's public part: by which of two answers it brings first.

With slots an answer is recorded by the slot and not when it came, so that the order says nothing.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.tap.scripted_upstream import Exchange, ScriptedUpstream, text_ids
from tests.tap.small_tokenizer import EOS
from tests.tap.tap_process import TapProcess
from ullage.log.entries import CloseEntry

SLOT = 0.1
PAYLOAD = [0, 1, 1, 0, 1, 0, 0, 1]


def _closes(tap: TapProcess) -> list[int]:
    """The counters in the order of their closes: what everybody can read."""
    return [entry.counter for entry in tap.reader().entries() if isinstance(entry, CloseEntry)]


def _play(tap: TapProcess, upstream: ScriptedUpstream, *, stream: bool) -> list[int]:
    """Send the payload, a pair of requests a bit; the bits that a reader of the log makes of it."""
    asked = 0
    bit = 0

    async def later_first(exchange: Exchange) -> None:
        nonlocal asked
        mine, asked = asked % 2, asked + 1
        await asyncio.sleep(0.01 if mine == bit else 0.08)
        await exchange.answer([*text_ids("as long as the other"), EOS])

    upstream.behaviour = later_first
    for bit in PAYLOAD:  # noqa: B007 - the server reads it
        threads = [threading.Thread(target=_ask, args=(tap, stream)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert tap.stop()[0] == 0
    tap.assert_sound()
    order = _closes(tap)
    return [int(first > second) for first, second in zip(order[::2], order[1::2], strict=True)]


def _ask(tap: TapProcess, stream: bool) -> None:
    body: dict[str, Any] = {"prompt": [4, 5], "max_tokens": 40, "stream": stream}
    assert httpx.post(f"{tap.url}/v1/completions", json=body, timeout=30).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_slots_hide_what_came_first(tmp_path: Path, *, stream: bool) -> None:
    pace = {"slot": SLOT, "tokens": 64, "lead": 3}
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, pace=pace, link="whole") as tap:
        read = _play(tap, upstream, stream=stream)
    # Requests of a pair may fall into two slots: then arrival decides, which is not the server's.
    assert read == [0] * len(PAYLOAD)


def test_without_slots_the_log_tells(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, link="whole") as tap:
        read = _play(tap, upstream, stream=False)
    assert sum(one == other for one, other in zip(read, PAYLOAD, strict=True)) >= len(PAYLOAD) - 1
