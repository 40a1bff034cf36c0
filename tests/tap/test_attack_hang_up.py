"""Attack: a server that answers or not, and a client in league that leaves at the slot when it has not.

Nothing was late and nothing failed, as far as any record of an answer says; each such request carried a bit.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.tap.scripted_upstream import Exchange, ScriptedUpstream
from tests.tap.tap_process import TapProcess
from ullage.tap.pacing.grid import Pace
from ullage.tap.residual.channels import observed_in

SLOT = 0.05
PACE: dict[str, Any] = {"slot": SLOT, "tokens": 8, "lead": 2, "pad_to": 0, "chunk_bytes": 512}
TIMES = 4


async def never(exchange: Exchange) -> None:
    await exchange.until_closed()


def hang_up(url: str, after: float, *, stream: bool) -> None:
    """Ask, wait for so many seconds, and leave."""
    place = urlsplit(url)
    body = b'{"prompt": "a", "max_tokens": 8, "stream": %s}' % (b"true" if stream else b"false")
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: tap\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    assert place.hostname is not None
    with socket.create_connection((place.hostname, place.port or 80)) as connection:
        connection.sendall(head.encode() + body)
        time.sleep(after)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_what_a_client_learns_by_leaving_is_counted(tmp_path: Path, stream: bool) -> None:
    # No allowance: that a client leaves must not close the tap for others.
    allowance = {"share": 0.0, "burst": 0.0, "drip": 0.0}
    with (
        ScriptedUpstream() as upstream,
        TapProcess(tmp_path, upstream.url, pace=PACE, allowance=allowance) as tap,
    ):
        upstream.behaviour = never
        for number in range(TIMES):
            hang_up(tap.url, 6 * SLOT, stream=stream)
            assert tap.closed(number).close is not None
        assert tap.stop() == (0, "")
        tap.assert_sound()
        records = tap.records()
    assert {record.close.outcome for record in records if record.close} == {"client-gone"}
    seen = observed_in(records, Pace(**PACE))
    assert seen.exceptions >= TIMES
    assert seen.opportunities >= TIMES


def test_who_leaves_before_anything_was_due_has_learnt_nothing(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, pace={**PACE, "lead": 40}) as tap:
        upstream.behaviour = never
        hang_up(tap.url, 2 * SLOT, stream=False)
        record = tap.closed(0)
        assert tap.stop() == (0, "")
    assert record.close is not None
    assert record.close.detail == ""
