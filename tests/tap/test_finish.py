"""Where outputs end, against a definition that looks at the whole text after every token."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tap.small_tokenizer import EOS, VOCABULARY, small_tokenizer
from ullage.tap.choices.finish import Transcript
from ullage.tap.failures import UpstreamError

TOKENIZER = small_tokenizer()
A, B, C = TOKENIZER.encode("abc")
EURO = TOKENIZER.encode("€")


def expected(ids: list[int], stop: list[str], limit: int) -> tuple[str, str | None, int]:
    """Text, reason and number of tokens of an output, by trying every prefix."""
    for count in range(1, len(ids) + 1):
        text = TOKENIZER.decode(ids[:count])
        found = [text.find(one) for one in stop if one in text]
        if found:
            return text[: min(found)], "stop", count
        if ids[count - 1] == EOS:
            return text, "stop", count
        if count == limit:
            return text, "length", count
    return TOKENIZER.decode(ids), None, len(ids)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([A, B, C, EOS]), max_size=30),
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    st.integers(1, 25),
    st.data(),
)
def test_end_text_and_reason(ids: list[int], stop: list[str], limit: int, data: st.DataObject) -> None:
    text, reason, count = expected(ids, stop, limit)
    transcript = Transcript(TOKENIZER, stop, limit)
    released, fed = "", 0
    while fed < count:
        step = data.draw(st.integers(1, count - fed))
        released += transcript.feed(ids[fed : fed + step])
        fed += step
        assert text.startswith(released)  # what has left is never taken back
    assert transcript.finish_reason == reason
    assert transcript.ids == ids[:count]
    if reason is not None:
        assert released == text
        if count < len(ids):
            with pytest.raises(UpstreamError, match="after the end"):
                transcript.feed(ids[count:])


def test_half_characters_are_held() -> None:
    transcript = Transcript(TOKENIZER, (), 10)
    assert [transcript.feed([token]) for token in EURO] == ["", "", "€"]
    assert transcript.feed(EURO[:2]) == ""
    assert transcript.feed([EOS]) == "\ufffd"


def test_beginnings_of_stop_strings_are_held() -> None:
    transcript = Transcript(TOKENIZER, ("abc",), 10)
    assert transcript.feed([A]) == ""
    assert transcript.feed([B]) == ""
    assert transcript.feed([A]) == "ab"
    assert transcript.feed([EOS]) == "a"


def test_stop_string_of_several_bytes_a_character() -> None:
    transcript = Transcript(TOKENIZER, ("€",), 10)
    assert transcript.feed([A, *EURO]) == "a"
    assert transcript.finish_reason == "stop"


@pytest.mark.parametrize("token", [-1, VOCABULARY, 2**40])
def test_ids_outside_the_vocabulary(token: int) -> None:
    with pytest.raises(UpstreamError, match="vocabulary"):
        Transcript(TOKENIZER, (), 10).feed([token])


def test_an_id_that_names_no_token_has_no_text() -> None:
    transcript = Transcript(TOKENIZER, (), 10)
    assert transcript.feed([A, VOCABULARY - 1, B, EOS]) == "ab"
