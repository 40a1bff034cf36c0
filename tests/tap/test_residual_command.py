"""`ullage residual` on logs that real taps wrote."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.tap.scripted_upstream import Exchange, ScriptedUpstream, greet
from tests.tap.tap_process import TapProcess
from ullage.claims import Evidence, read_claims
from ullage.enforce.accounting import Ledger
from ullage.tap.residual.channels import Observed, enforced_channels
from ullage.tap.residual.of_log import left_without_slots

SLOT = 0.05


def residual(tap: TapProcess, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ullage", "residual", str(tap.log), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def ask(tap: TapProcess, **fields: Any) -> int:
    body = {"prompt": [4, 5], "max_tokens": 40, **fields}
    return httpx.post(f"{tap.url}/v1/completions", json=body, timeout=30).status_code


def test_late_and_failed_answers_are_all_that_slots_leave(tmp_path: Path) -> None:
    async def late(exchange: Exchange) -> None:
        await asyncio.sleep(6 * SLOT)
        await greet(exchange)

    async def refuses(exchange: Exchange) -> None:
        await exchange.raw(b"HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n")

    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url, pace={"slot": SLOT}) as tap:
        assert [ask(tap, stream=number % 2 == 0) for number in range(6)] == [200] * 6
        upstream.behaviour = late
        assert ask(tap) == 200
        upstream.behaviour = refuses
        assert ask(tap) == 502
        assert tap.stop()[0] == 0
    found = residual(tap, "--keys", str(tap.keys), "--slot", f"{SLOT}s", "--json")
    assert found.returncode == 0, found.stderr
    document = json.loads(found.stdout)
    assert document["messages"] == 8
    assert document["exceptions"] >= 2  # a busy machine makes more
    [claim] = document["claims"]
    assert claim["name"] == "channel.residual"
    assert claim["value"] == pytest.approx(sum(one["bits"] for one in document["channels"]))
    assert claim["subject"] == tap.reader().header.log_id
    assert any("as its operator says" in one for one in claim["assumptions"])
    assert document["by_allowance"]["bits"] > 0


def test_without_slots_time_is_open_and_the_claim_says_so(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url) as tap:
        assert ask(tap) == 200
        assert tap.stop()[0] == 0
    out = tmp_path / "residual.json"
    found = residual(tap, "--keys", str(tap.keys), "--out", str(out))
    assert found.returncode == 0, found.stderr
    [claim] = read_claims(out)
    assert claim.evidence is Evidence.PROVEN
    assert claim.value is not None
    assert claim.value > 19  # any millisecond of ten minutes


def test_records_that_cannot_be_read_may_have_been_late(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url) as tap:
        assert [ask(tap) for _ in range(2)] == [200, 200]
        assert tap.stop()[0] == 0
    opened = tmp_path / "opened.json"
    command = [sys.executable, "-m", "ullage", "log", "open", str(tap.log), "0"]
    subprocess.run([*command, "--keys", str(tap.keys), "--out", str(opened)], check=True, timeout=60)
    found = residual(tap, "--record-keys", str(opened))
    assert found.returncode == 3
    assert "1 records" in found.stderr
    found = residual(tap)
    assert found.returncode == 2
    assert "sealed" in found.stderr


@pytest.mark.parametrize("detail", ["enforced: 8 drafted, 0 replaced, 0 decoded alone", ""])
def test_what_left_without_slots_is_open_whatever_is_said_of_slots(detail: str) -> None:
    """The reference's tokens at once: its records name no slots, so that any moment may have been chosen."""
    slotted = "enforced: 8 drafted, 0 replaced, 0 decoded alone; 0 late in 2 slots"
    assert not left_without_slots([slotted, slotted])
    assert left_without_slots([slotted, detail]) == bool(detail)


def test_enforced_slots_carry_the_bits_of_their_lateness() -> None:
    observed, lateness = Observed(100, 400, 0), Ledger(400, 3)
    channels = enforced_channels(observed, lateness)
    assert sum(one.bits for one in channels) == pytest.approx(lateness.bits / 100)
    assert 0 < lateness.bits / 100 < 1
