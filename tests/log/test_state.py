"""The rules among entries, one at a time: what the whole-log tests reach only through other checks."""

from __future__ import annotations

import pytest

from tests.log.samples import NAME, header
from ullage.log.entries import ChunkEntry, CloseEntry, KeyEntry, OpenEntry, hand_over
from ullage.log.notes.signed_note import NoteSigner
from ullage.log.state import LogState, Rule

FIRST, SECOND, THIRD = (NoteSigner(NAME, bytes([number]) * 32) for number in range(3))


def begun() -> LogState:
    state = LogState()
    state.accept(header())
    return state


def rule_of(state: LogState, entry: OpenEntry | ChunkEntry | CloseEntry | KeyEntry) -> Rule | None:
    breach = state.check(entry)
    return None if breach is None else breach.rule


def handover(state: LogState, old: NoteSigner, new: NoteSigner) -> KeyEntry:
    assert state.header is not None
    return hand_over(old, new.verifier, state.header.log_id, state.entries)


def test_only_the_key_of_the_last_handover_can_hand_over() -> None:
    """Whoever steals a key after it was retired cannot take the log back with it."""
    state = begun()
    first = handover(state, FIRST, SECOND)
    assert rule_of(state, first) is None
    state.accept(first)
    assert rule_of(state, handover(state, FIRST, THIRD)) is Rule.KEY_HANDOVER
    assert rule_of(state, handover(state, THIRD, FIRST)) is Rule.KEY_HANDOVER
    assert rule_of(state, handover(state, SECOND, THIRD)) is None


def test_a_handover_is_good_at_its_place_of_its_log_only() -> None:
    state = begun()
    assert state.header is not None
    for log_id, index in ((state.header.log_id, 2), (f"{state.header.log_id}/other", 1)):
        entry = hand_over(FIRST, SECOND.verifier, log_id, index)
        assert rule_of(state, entry) is Rule.KEY_HANDOVER
    forged = handover(state, THIRD, SECOND)
    assert rule_of(state, forged._replace(old_key=str(FIRST.verifier))) is Rule.KEY_HANDOVER


@pytest.mark.parametrize("stream", [False, True])
def test_a_counter_is_used_once(stream: bool) -> None:
    state = begun()
    opened = OpenEntry("", 0, 1, stream, 0)
    assert rule_of(state, opened._replace(counter=1)) is Rule.COUNTER_GAP
    assert rule_of(state, CloseEntry("", 0, "complete", 1, 0)) is Rule.PART_WITHOUT_OPEN
    assert rule_of(state, opened) is None
    state.accept(opened)
    assert rule_of(state, opened) is Rule.COUNTER_REPEATED
    assert rule_of(state, ChunkEntry("", 0, 0)) is (None if stream else Rule.CHUNK_UNEXPECTED)
    assert rule_of(state, ChunkEntry("", 0, 1)) is (Rule.CHUNK_ORDER if stream else Rule.CHUNK_UNEXPECTED)
    closed = CloseEntry("", 0, "aborted", 1, 0)
    assert rule_of(state, closed) is None
    state.accept(closed)
    assert (state.closed, state.aborted) == (1, 1)
    assert rule_of(state, closed) is Rule.PART_AFTER_CLOSE
    assert rule_of(state, opened) is Rule.COUNTER_REPEATED
