"""The game beside the tokens: its decoder, its estimate, and two channels through real taps."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.errors import UsageError
from ullage.redteam.channels.game import decode, entropy, mutual_information, noise, symbols_of, upper_bound
from ullage.redteam.channels.registry import channel_named, channels
from ullage.redteam.channels.suite import BAR, QUICK, Game, claims_of, play, table
from ullage.tap.pacing.grid import Pace
from ullage.tap.pacing.ledger import Allowance

END = 0  # of the built-in model
SHORT = Game(60, 12, Pace(0.03, pad_to=64), Allowance(0.02, 2, 3600))


def test_a_clean_channel_is_read_whole() -> None:
    sent = [index % 4 for index in range(400)]
    pairs = decode(sent, [(float(symbol) + 0.1, 5.0) for symbol in sent])
    assert mutual_information(pairs) == pytest.approx(2.0, abs=0.1)
    assert upper_bound(pairs) >= mutual_information(pairs)


@given(st.integers(0, 1000))
@settings(deadline=None)
def test_noise_is_no_information(seed: int) -> None:
    generator = random.Random(seed)
    sent = [generator.randrange(4) for _ in range(300)]
    pairs = decode(sent, [(generator.random(),) for _ in sent])
    assert mutual_information(pairs, rounds=10) < 0.12


def test_chance_is_told_from_a_signal() -> None:
    generator = random.Random(7)
    games = [[(generator.randrange(4), generator.randrange(4)) for _ in range(200)] for _ in range(30)]
    assert sum(mutual_information(pairs) > noise(pairs, rounds=300) for pairs in games) <= 1
    signal = [(symbol, symbol if generator.random() < 0.4 else 0) for symbol, _ in games[0]]
    assert mutual_information(signal) > noise(signal, rounds=300)


def test_half_wrong_symbols_carry_what_theory_says() -> None:
    """A binary symmetric channel with error 0.11 carries half a bit."""
    generator = random.Random(3)
    pairs = [
        (bit, bit ^ (generator.random() < 0.11)) for bit in (generator.randrange(2) for _ in range(6000))
    ]
    assert mutual_information(pairs) == pytest.approx(0.5, abs=0.04)


def test_payloads_are_the_same_on_both_sides() -> None:
    for channel in channels(0.05):
        assert symbols_of(channel, 1, 50) == symbols_of(channel_named(channel.name, 0.05), 1, 50)
        assert 0 < entropy(channel) <= 5
    with pytest.raises(UsageError, match="there are"):
        channel_named("smoke", 0.05)


@pytest.mark.parametrize(("name", "least_open"), [("drop", 0.7), ("on-off timing", 0.5)])
def test_slots_close_what_was_open(name: str, least_open: float) -> None:
    channel = channel_named(name, SHORT.pace.slot)
    off = play(channel, END, SHORT, slots=False)
    on = play(channel, END, SHORT, slots=True)
    assert off.got >= least_open
    assert on.is_bounded
    assert on.got <= BAR
    assert name in "\n".join(table([off, on], 3600))
    claim, measured = claims_of([off, on], SHORT)
    assert claim.name == "channel.residual"
    assert measured.value == on.got


@pytest.mark.slow
@pytest.mark.parametrize("channel", channels(QUICK.pace.slot), ids=lambda channel: channel.name)
def test_every_channel_is_bounded(channel: object) -> None:
    on = play(channel, END, QUICK, slots=True)  # type: ignore[arg-type]
    assert on.is_bounded
    assert on.counted_as or on.got <= BAR
