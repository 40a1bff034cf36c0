"""What strangers wrote reaches a terminal as signs that it prints."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.work.test_account import FULL
from ullage.claims import Bound, Claim, Evidence, Trust
from ullage.cli.main import _say
from ullage.cli.work import _window_line
from ullage.errors import MalformedError
from ullage.terminal import plain, plain_line

EVIL = "a\x1b[2Jb\x9b31mc\u202ed\r\x07"


@given(st.text())
def test_only_what_is_printed_is_left(text: str) -> None:
    for made in (plain(text), plain_line(text)):
        assert len(made) == len(text)
        assert all(sign.isprintable() or sign == "\n" for sign in made)
    assert "\n" not in plain_line(text)
    kept = "".join(sign for sign in text if sign.isprintable() or sign == "\n")
    assert plain(text, "") == kept


def test_what_is_printed_anyway_stays() -> None:
    text = "Grüße, 世界: 1 ≤ 2\nund weiter"
    assert plain(text) == text
    assert plain(EVIL) == "a·[2Jb·31mc·d··"


def test_errors_claims_and_findings_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    _say(str(MalformedError(f"The server said {EVIL}")))
    claim = Claim(
        name="a.b", value=1.0, unit="bits", bound=Bound.UPPER, confidence=None, evidence=Evidence.MEASURED,
        assumptions=(), trusts=(Trust.VERIFIER,), subject="s", method=EVIL,
    )  # fmt: skip
    shown = claim.render() + _window_line(replace(FULL, findings=(f"slot 0 said {EVIL}",)))
    shown += capsys.readouterr().err
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert "\u202e" not in shown
    assert shown.count("·[2J") >= 2
