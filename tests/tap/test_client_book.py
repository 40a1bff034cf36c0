"""What each client had today outlives the tap, and names nobody."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tap.scripted_upstream import ScriptedUpstream
from tests.tap.tap_process import TapProcess
from ullage.errors import MalformedError
from ullage.log.journal.segments import CLIENT_BYTES
from ullage.log.upkeep.fsck import check_log
from ullage.tap.clients.book import ClientBook
from ullage.tap.clients.budgets import Budgets
from ullage.tap.failures import RequestRefusedError

DAY = 86_400 * 10**9


def _ask(tap: TapProcess) -> httpx.Response:
    return httpx.post(f"{tap.url}/v1/completions", json={"prompt": "a"}, timeout=30)


def test_the_budget_of_a_client_goes_on_after_a_restart(tmp_path: Path) -> None:
    options: dict[str, Any] = {"settings": {"client_day_bytes": 500}}
    with ScriptedUpstream() as upstream:
        with TapProcess(tmp_path, upstream.url, **options) as tap:
            assert [_ask(tap).status_code for _ in range(3)] == [200, 200, 429]
            assert tap.process is not None
            tap.process.kill()
            tap.process.wait()
        with TapProcess(tmp_path, upstream.url, **options) as tap:
            assert _ask(tap).status_code == 429
            assert tap.stop() == (0, "")
    assert b"127.0.0.1" not in (tap.log / "sealed" / CLIENT_BYTES).read_bytes()
    assert all(trouble.code != "stray" for trouble in check_log(tap.log).troubles)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 200), st.integers(0, 2)), max_size=12))
def test_a_book_of_clients_says_what_the_budgets_knew(charges: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CLIENT_BYTES
        budgets, day = Budgets(a_client=100, book=ClientBook(path, bytes(32))), 0
        budgets.restore(0, 0)
        for client, size, days in charges:
            day += days
            budgets.charge(client, size, day * DAY)
        with path.open("ab") as file:
            file.write(b"torn by a cra")
        again = Budgets(a_client=100, book=ClientBook(path, bytes(32)))
        again.restore(0, day * DAY)
        for client in "abc":
            assert _is_admitted(again, client, day * DAY) == _is_admitted(budgets, client, day * DAY)
        again.restore(0, (day + 1) * DAY)
        assert all(_is_admitted(again, client, (day + 1) * DAY) for client in "abc")


def _is_admitted(budgets: Budgets, client: str, time_ns: int) -> bool:
    try:
        budgets.admit(client, time_ns)
    except RequestRefusedError:
        return False
    return True


def test_a_book_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / CLIENT_BYTES
    path.write_bytes(b"day 0\nsomebody 5\n")
    with pytest.raises(MalformedError, match="Line 2"):
        ClientBook(path, bytes(32)).restore(0)
