"""Where an output ends is found twice, by enforcer and tap: nothing is released where they differ."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ullage.enforce.protocol import FinishReason
from ullage.tap.choices.enforced import _agree
from ullage.tap.choices.enforcement import EnforcerError

REASONS: tuple[FinishReason | None, ...] = (None, "stop", "length")


@pytest.mark.parametrize("said", REASONS)
@pytest.mark.parametrize("found", REASONS)
def test_enforcer_and_tap_agree_on_every_end(said: FinishReason | None, found: FinishReason | None) -> None:
    choice: Any = SimpleNamespace(transcript=SimpleNamespace(finish_reason=found))
    if said == found:
        _agree(said, choice)
        return
    with pytest.raises(EnforcerError, match="where the output ends"):
        _agree(said, choice)
