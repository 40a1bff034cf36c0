"""Several taps behind one port, each with a log of its own."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.tap.scripted_upstream import ScriptedUpstream
from tests.tap.tap_process import TapProcess

REQUESTS = 40
SHARED = {"share_port": True}


def _ask(url: str) -> int:
    """Over a connection of its own, since the kernel spreads connections."""
    return httpx.post(f"{url}/v1/completions", json={"prompt": [4, 5], "max_tokens": 8}).status_code


def test_requests_are_on_record_in_one_log_each(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with (
        ScriptedUpstream() as upstream,
        TapProcess(tmp_path / "one", upstream.url, settings=SHARED) as one,
        TapProcess(
            tmp_path / "two", upstream.url, settings=SHARED, listen=one.url.removeprefix("http://")
        ) as two,
    ):
        assert one.url == two.url
        assert {_ask(one.url) for _ in range(REQUESTS)} == {200}
        for tap in (one, two):
            assert tap.stop()[0] == 0
    shares = [len(tap.records()) for tap in (one, two)]
    assert sum(shares) == REQUESTS
    assert min(shares) > 0  # all in one of two: a chance of 2 to the power of -39
    for tap in (one, two):
        tap.assert_sound()


def test_a_port_that_is_not_shared_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    with ScriptedUpstream() as upstream, TapProcess(tmp_path, upstream.url) as one:
        late = TapProcess(
            tmp_path / "two", upstream.url, settings=SHARED, listen=one.url.removeprefix("http://")
        )
        with pytest.raises(AssertionError, match="cannot listen"):
            late.__enter__()
