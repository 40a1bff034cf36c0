"""What a day's answers can have carried, and a tap that keeps to what was declared of it."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tap.scripted_upstream import ScriptedUpstream
from tests.tap.tap_process import TapProcess
from tests.tap.test_operations import _free_port
from ullage.enforce.accounting import Ledger as EnforcementLedger
from ullage.enforce.accounting import lateness_bits
from ullage.errors import UsageError
from ullage.log.record import Outcome, Record
from ullage.tap.config import read_config
from ullage.tap.explain import explain
from ullage.tap.failures import RequestRefusedError
from ullage.tap.gateway import Gateway
from ullage.tap.meters import Meters
from ullage.tap.pacing.grid import Pace
from ullage.tap.pacing.ledger import Allowance, Ledger, seen_bits
from ullage.tap.parts import counts_since_start
from ullage.tap.past import Past, past_of
from ullage.tap.residual.capacity import STEPS, Counts, CovertBudget, CovertTerms, Release
from ullage.tap.residual.channels import observed_in

DAY = 86_400 * 10**9
RELEASES: tuple[Release, ...] = ("at-once", "slots", "enforced-slots")


@st.composite
def counts(draw: st.DrawFn) -> Counts:
    """Counts as a tap can have them."""
    messages = draw(st.integers(0, 2_000))
    releases = messages + draw(st.integers(0, 50_000)) if messages else 0
    slots = draw(st.integers(0, 10_000))
    return Counts(
        messages=messages,
        tokens=draw(st.integers(0, 1_000_000)),
        releases=releases,
        exceptions=draw(st.integers(0, min(releases, 300))),
        slots=slots,
        late=draw(st.integers(0, 50)) if slots else 0,
    )


@given(counts(), counts(), st.sampled_from(RELEASES), st.floats(0, 17))
def test_more_traffic_never_carries_less(one: Counts, more: Counts, release: Release, each: float) -> None:
    terms = CovertTerms(1e6, each, release)
    # A hair: the logarithms are differences of large ones.
    assert terms.bits(one) >= 0
    assert terms.bits(one + more) >= terms.bits(one) - 1e-3


@given(counts(), st.sampled_from(RELEASES), st.floats(1, 1e7))
def test_steps_never_say_more_than_is_left(seen: Counts, release: Release, declared: float) -> None:
    budget = CovertBudget(CovertTerms(declared, 0.01, release), lambda: seen, Counts(), 0)
    assert 0 <= budget.left(0) <= declared
    assert 0 <= budget.step(0) <= STEPS
    assert budget.step(0) / STEPS * declared <= budget.left(0) * (1 + 1e-12)


@given(counts(), counts())
def test_counts_add_and_take_away(one: Counts, other: Counts) -> None:
    assert one + other - other == one


def test_each_way_of_release_has_its_formula() -> None:
    seen = Counts(messages=10, tokens=1_000, releases=40, exceptions=3, slots=40, late=2)
    slots = seen_bits(40, 3)
    assert CovertTerms(1, 0.5, "slots").bits(seen) == pytest.approx(500 + slots)
    assert CovertTerms(1, 0.0, "enforced-slots").bits(seen) == pytest.approx(lateness_bits(40, 2))
    at_once = CovertTerms(1, 0.5, "at-once", patience=600.0).bits(seen)
    assert at_once > 500 + 10 * math.log2(600_000)  # a moment each is the least that is counted


def record(
    counter: int, length: int, *, group: int | None = None, stream: bool = True, detail: str = "",
    outcome: Outcome = "complete", closed: int = 10**9,
) -> Record:  # fmt: skip
    """A record with so many tokens."""
    first = counter if group is None else group
    opened = SimpleNamespace(
        group=first, choice=counter - first, stream=stream, time_received=0, counter=counter
    )
    close = SimpleNamespace(
        output_ids=tuple(range(length)), outcome=outcome, detail=detail, time_closed=closed, bytes_to_client=0
    )
    made: Any = SimpleNamespace(open=opened, close=close, counter=counter, chunks=())
    return cast("Record", made)


def test_every_choice_of_a_stream_shows_its_times() -> None:
    """The first is one token long, the other two hundred and fifty-six: all are seen."""
    both = [record(0, 1), record(1, 256, group=0)]
    assert observed_in(both, None).opportunities == 258  # every token, and the end
    assert observed_in(both, Pace(0.1, 32)).opportunities == 8
    assert observed_in(both, Pace(0.1, 32, pad_to=512)).opportunities == 16
    assert observed_in(both, None).messages == 1
    assert observed_in(both, None).longest == 256


def test_an_answer_s_lateness_counts_once_whatever_its_choices() -> None:
    late = "late by 3 slots in 2 steps"
    both = [record(0, 4, detail=f"{late}; 1 exceptions not the server's"), record(1, 4, group=0, detail=late)]
    assert observed_in(both, Pace(0.1)).exceptions == 3


def test_a_restart_forgets_nothing_of_the_allowance() -> None:
    allowance = Allowance(share=0.0, burst=10.0, drip=3600.0)
    hour = 3600 * 10**9
    late = record(0, 4, detail="late by 3 slots in 2 steps", closed=hour)
    failed = record(1, 0, outcome="upstream-failed", closed=2 * hour)
    past = past_of([failed, late], 4 * hour, Pace(0.1), allowance)
    assert past.allowance_left == pytest.approx(10 - 2 + 1 - 1 + 2)
    spent = [record(number, 0, outcome="upstream-failed", closed=hour) for number in range(20)]
    assert past_of(spent, hour, Pace(0.1), allowance).allowance_left == 0
    ledger = Ledger(allowance, lambda: 0.0, lambda: None, 0.0)
    assert not ledger.exception("failed")
    assert past_of([], hour, Pace(0.1)).allowance_left is None


def test_late_slots_of_other_days_are_not_todays() -> None:
    """What enforcement counts goes on over restarts; the day's budget takes what came since."""
    lateness, gateway = EnforcementLedger(100_000, 400), SimpleNamespace()
    counted = replace(lateness)
    gateway.meters = Meters()
    gateway.enforcement = SimpleNamespace(watch=SimpleNamespace(ledger=counted))
    past = Past(lateness=lateness, counts=Counts(slots=100))
    counted.slots += 7
    counted.late += 1
    found = counts_since_start(cast("Gateway", gateway), None, past)
    assert (found.slots, found.late) == (7, 1)


def test_a_new_day_gives_a_new_budget_and_a_clock_that_goes_back_none() -> None:
    total = Counts(tokens=90)
    budget = CovertBudget(CovertTerms(100, 1.0, "slots"), lambda: total, Counts(tokens=10), 5)
    assert budget.left(6) == 0
    with pytest.raises(RequestRefusedError):
        budget.admit(6)
    assert budget.left(DAY + 1) == 100
    budget.admit(DAY + 1)
    total = Counts(tokens=190)
    assert budget.left(DAY + 2) == 0
    assert budget.left(7) == 0


def test_what_came_around_midnight_is_of_the_new_day() -> None:
    """Answers in flight go on when nobody asks; they were not in what the old day was refused by."""
    total = Counts()
    budget = CovertBudget(CovertTerms(100, 1.0, "slots"), lambda: total, Counts(), 5)
    total = Counts(tokens=40)
    assert budget.left(6) == 60
    total = Counts(tokens=70)
    assert budget.left(DAY + 1) == 70
    assert budget.left(DAY + 2) == 70


def test_a_tap_refuses_when_the_day_is_spent_and_after_a_restart(tmp_path: Path) -> None:
    port = _free_port()
    options: dict[str, Any] = {
        "covert": {"budget": 50.0, "bits_per_token": 0.5, "release": "at-once"},
        "settings": {"operations": f"127.0.0.1:{port}"},
    }
    asked = {"prompt": "a"}
    with ScriptedUpstream() as upstream:
        with TapProcess(tmp_path, upstream.url, **options) as tap:
            codes = []
            for _ in range(4):  # 19 bits for the moment of each, and half a bit a token
                codes.append(httpx.post(f"{tap.url}/v1/completions", json=asked, timeout=30).status_code)
                time.sleep(0.11)
            page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
            tap.stop()
        with TapProcess(tmp_path, upstream.url, **options) as tap:
            again = httpx.post(f"{tap.url}/v1/completions", json=asked, timeout=30)
            tap.stop()
    assert codes[0] == 200
    assert codes[-1] == 429
    assert sorted(codes) == codes
    assert again.json()["error"]["code"] == "budget_exhausted"
    assert "ullage_tap_covert_budget_bits 50\n" in page
    assert "ullage_tap_covert_left_bits 0\n" in page


def test_the_configuration_says_what_is_declared(tmp_path: Path) -> None:
    given = {"upstream": "http://127.0.0.1:1", "log": tmp_path / "log", "keys": tmp_path / "keys"}
    both = given | {"covert_day_bits": 1e5, "covert_bits_per_token": 0.002, "slot": "250ms"}
    config = read_config(both, None)
    assert config.covert_terms == CovertTerms(1e5, 0.002, "slots", 600.0)
    assert any("100,000 covert bits a day, 0.002 a token" in line for line in explain(config))
    assert read_config(given, None).covert_terms is None
    enforced = given | {"covert_day_bits": 5e3, "enforce": tmp_path / "socket", "slot": "500ms"}
    assert read_config(enforced, None).covert_terms == CovertTerms(5e3, 0.0, "enforced-slots", 600.0)
    for wrong in (given | {"covert_day_bits": 1e5}, enforced | {"covert_bits_per_token": 0.1}):
        with pytest.raises(UsageError, match="covert_bits_per_token"):
            read_config(wrong, None)
