"""Stop strings that arrive in pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ullage.server.stop_strings import StopStrings


@given(
    pieces=st.lists(st.text("ab", max_size=4), max_size=12),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_pieces_do_not_matter(pieces: list[str], stops: list[str]) -> None:
    """What is released is the text before the stop string that is complete first."""
    whole = "".join(pieces)
    matcher = StopStrings(stops)
    released, met = "", False
    for piece in pieces:
        text, met = matcher.push(piece)
        released += text
        if met:
            break
        assert whole.startswith(released)
        assert not any(stop in released for stop in stops)
    if not met:
        released += matcher.finish()
    assert met == any(stop in whole for stop in stops)
    assert whole.startswith(released)
    if met:
        assert not any(stop in released for stop in stops)
        assert any(whole[len(released) :].startswith(stop) for stop in stops)
    else:
        assert released == whole


def test_nothing_is_held_without_stops() -> None:
    matcher = StopStrings([])
    assert matcher.push("abc") == ("abc", False)
    assert matcher.finish() == ""


def test_only_what_may_become_a_stop_is_held() -> None:
    matcher = StopStrings(["END"])
    assert matcher.push("the E") == ("the ", False)
    assert matcher.push("N") == ("", False)
    assert matcher.push("E") == ("EN", False)
    assert matcher.push("ND of it") == ("", True)
