"""The monitor beside a real tap: a client that draws payloads is alarmed, and refused where so asked."""

from __future__ import annotations

import base64
import random
import socket
import time
from pathlib import Path

import httpx
import pytest

from tests.tap.scripted_upstream import Exchange, ScriptedUpstream, text_ids
from tests.tap.small_tokenizer import EOS
from tests.tap.tap_process import TapProcess
from ullage.errors import UsageError
from ullage.tap.config import read_config
from ullage.tap.explain import explain

_DRAW = random.Random(3)


async def _leak(exchange: Exchange) -> None:
    key = base64.b64encode(_DRAW.randbytes(32)).decode()
    await exchange.answer([*text_ids(f"Your id is {key} today."), EOS])


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _ask(tap: TapProcess, *, stream: bool = False) -> int:
    body = {"prompt": "a", "max_tokens": 100, "stream": stream}
    return httpx.post(f"{tap.url}/v1/completions", json=body, timeout=30).status_code


def _ask_until_refused(tap: TapProcess, most: int) -> int:
    for number in range(most):
        if _ask(tap, stream=bool(number % 2)) == 429:
            return number
        time.sleep(0.05)
    return most


def test_a_client_that_draws_payloads_is_refused_and_others_are_not(tmp_path: Path) -> None:
    port = _free_port()
    with ScriptedUpstream() as upstream, TapProcess(
        tmp_path, upstream.url, monitoring={"blocks": True}, settings={"operations": f"127.0.0.1:{port}"}
    ) as tap:  # fmt: skip
        assert [_ask(tap) for _ in range(30)] == [200] * 30
        upstream.behaviour = _leak
        refused_after = _ask_until_refused(tap, 200)
        assert refused_after < 200
        refusal = httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a"})
        assert refusal.status_code == 429
        assert refusal.json()["error"]["code"] == "budget_exhausted"
        page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert "\nullage_tap_monitor_alarms_total 1\n" in page
        assert "\nullage_tap_monitor_skipped_total 0\n" in page
        code, errors = tap.stop()
        assert code == 0
        (line,) = errors.splitlines()
        assert line.startswith("ullage tap: ALARM: client 127.0.0.1 got ")
        assert "base64/random" in line
        assert line.endswith("; refused for the rest of the day")
        tap.assert_sound()
        assert len(tap.records()) == 30 + refused_after


def test_an_alarm_alone_refuses_nobody(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, TapProcess(
        tmp_path, upstream.url, monitoring={"day_bits": 100}
    ) as tap:  # fmt: skip
        upstream.behaviour = _leak
        assert [_ask(tap) for _ in range(10)] == [200] * 10
        code, errors = tap.stop()
        assert code == 0
        assert len(errors.splitlines()) == 1
        assert not errors.rstrip().endswith("day")


def test_settings_of_the_monitor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    needed = {"log": tmp_path, "keys": tmp_path, "upstream": "http://127.0.0.1:1"}
    assert read_config(needed, None).monitoring is None
    with pytest.raises(UsageError, match="monitor_day_bits goes with monitor"):
        read_config({**needed, "monitor_day_bits": "9"}, None)
    with pytest.raises(UsageError, match="monitor"):
        read_config({**needed, "monitor": "yes"}, None)
    monkeypatch.setenv("ULLAGE_TAP_MONITOR", "block")
    config = read_config({**needed, "monitor_day_bits": "9"}, None)
    assert config.monitoring is not None
    assert config.monitoring.blocks
    text = " ".join(explain(config))
    assert "more than 16 payload bits a message on average, or with 9 bits in a day" in text
    assert "is refused for the rest of the day (429)" in text
