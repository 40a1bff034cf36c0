"""The dashboard and the alert rules ask for figures that a tap and the live page really serve."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
import yaml

from tests.docs.printed import ROOT
from tests.report.samples import claim, four_claims
from ullage.claims import Claim, Evidence, Reading
from ullage.report.claim_metrics import NAMES, claim_metrics
from ullage.report.exposition import parse_exposition
from ullage.report.fractions import MEASURES, fractions
from ullage.report.live_page import STANDING
from ullage.tap.operations.metrics import DECLARATION, Left, MetricsPage
from ullage.tap.residual.capacity import STEPS

EXAMPLES = ROOT / "examples"
DASHBOARD = json.loads((EXAMPLES / "grafana" / "ullage.json").read_text("utf-8"))
RULES = yaml.safe_load((EXAMPLES / "prometheus" / "ullage-alerts.yml").read_text("utf-8"))
_METRIC = re.compile(r"\bullage_[a-z0-9_]+")
_CLAIM = re.compile(r'ullage_claim\{name="([^"]+)"')


def tap_names() -> set[str]:
    """As the tap's page spells them, from a page that it made."""
    figures = {counter.name: 0.0 for counter in DECLARATION.field}
    left = Left(1_000.0, lambda: STEPS)
    page = MetricsPage(lambda: figures, lambda: 0.0, left).page().decode()
    return {line.split()[0] for line in page.splitlines() if not line.startswith("#")}


def dashboard_queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def alert_queries() -> list[str]:
    return [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("query", [*dashboard_queries(), *alert_queries()])
def test_every_query_asks_for_a_figure_that_is_served(query: str) -> None:
    names = set(_METRIC.findall(query))
    assert names or "up{" in query
    assert names <= tap_names() | set(NAMES)
    assert query.count("(") == query.count(")")
    assert set(_CLAIM.findall(query)) <= {name for name, _ in STANDING}


def test_every_figure_of_the_tap_is_on_the_dashboard() -> None:
    shown = {name for query in dashboard_queries() for name in _METRIC.findall(query)}
    assert tap_names() <= shown


def test_every_alarm_of_the_tap_has_a_rule() -> None:
    alarms = {name for name in tap_names() if "_alarm_" in name}
    assert alarms <= {name for query in alert_queries() for name in _METRIC.findall(query)}


def test_rules_have_what_prometheus_demands() -> None:
    rules = [rule for group in RULES["groups"] for rule in group["rules"]]
    names = [rule["alert"] for rule in rules]
    assert len(set(names)) == len(names)
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"[1-9][0-9]*[mh]", rule.get("for", "1m"))
        assert rule["labels"]["severity"] in ("page", "warn")
        assert rule["annotations"]["summary"]


def test_the_dashboard_is_written_by_its_script_and_nothing_overlaps() -> None:
    script = [sys.executable, str(ROOT / "tools" / "grafana_dashboard.py"), "--check"]
    assert subprocess.run(script, check=False, timeout=60).returncode == 0
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for at in places
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert all(one < other for one, other in pairwise(panel["id"] for panel in DASHBOARD["panels"]))


def series(claims: list[Claim], ready: bool | None = True) -> dict[str, float]:
    """Every line of the page that is no comment; each only once."""
    lines = [line for line in claim_metrics(claims, ready).splitlines() if not line.startswith("#")]
    pairs = [line.rsplit(" ", 1) for line in lines]
    assert len({name for name, _ in pairs}) == len(pairs)
    return {name: float(value) for name, value in pairs}


def test_fractions_are_those_of_the_page() -> None:
    found = series(four_claims())
    for reading in Reading:
        for one in fractions(four_claims(), reading):
            name = f'ullage_unaccounted_fraction{{fraction="{one.measure.key}",reading="{reading.value}"}}'
            assert found.get(name) == one.high
    for measure in MEASURES:
        assert found[f'ullage_unaccounted_bar{{fraction="{measure.key}"}}'] == measure.bar


def test_of_two_claims_the_one_that_constrains_least_is_told() -> None:
    found = series([claim("token.covert_fraction", 0.1), claim("token.covert_fraction", 0.3)])
    assert [value for name, value in found.items() if name.startswith("ullage_claim{")] == [0.3]


def test_one_claim_that_says_nothing_silences_its_series() -> None:
    """It constrains least of all: a figure beside it would flatter."""
    said = claim("token.covert_fraction", 0.1)
    silent = said.model_copy(update={"value": None, "evidence": Evidence.NOT_COVERED})
    for order in ([said, silent], [silent, said], [said, silent, said]):
        assert not [name for name in series(order) if name.startswith("ullage_claim{")]


def test_claims_that_are_left_out_or_cannot_be_read_are_counted() -> None:
    few = [claim("token.covert_fraction", 0.1)]
    assert series(few)["ullage_claims_left_out"] == series(few)["ullage_claims_unreadable"] == 0
    many = [few[0].model_copy(update={"subject": f"machine {number}"}) for number in range(1_003)]
    found = series(many)
    assert found["ullage_claims_left_out"] == 3
    assert sum(name.startswith("ullage_claim{") for name in found) == 1_000
    assert "ullage_claims_unreadable 2.0\n" in claim_metrics(few, True, 2)


@pytest.mark.parametrize(("ready", "value"), [(True, 1.0), (False, 0.0), (None, 0.0)])
def test_a_tap_that_does_not_answer_is_not_ready(ready: bool | None, value: float) -> None:
    assert series([], ready)["ullage_tap_ready"] == value


def test_a_label_cannot_break_out() -> None:
    hostile: Any = claim("token.covert_fraction", 0.1).model_copy(update={"subject": 'x"} 1\nup 0\\'})
    page = claim_metrics([hostile], True)
    assert "\nup 0" not in page
    assert parse_exposition(page)["ullage_tap_ready".removeprefix("ullage_tap_")] == 1.0
