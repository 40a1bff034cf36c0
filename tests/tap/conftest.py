"""One scripted upstream and one tap for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tap.scripted_upstream import ScriptedUpstream, greet
from tests.tap.tap_process import TapProcess


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def tap(shared_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TapProcess]:
    """A tap with short patience; at the end it must stop cleanly and leave a sound log."""
    timeouts = {"connect": 3.0, "first_byte": 2.0, "between": 2.0, "total": 4.0}
    limits = {"body_seconds": 1.5, "head_seconds": 1.5}
    folder = tmp_path_factory.mktemp("tap")
    with TapProcess(folder, shared_upstream.url, timeouts=timeouts, limits=limits) as process:
        yield process
        code, errors = process.stop()
        assert (code, errors) == (0, "")
        process.assert_sound()


@pytest.fixture
def upstream(shared_upstream: ScriptedUpstream) -> ScriptedUpstream:
    shared_upstream.behaviour = greet
    return shared_upstream
