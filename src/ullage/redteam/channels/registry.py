"""The channels beside the tokens, by name."""

from __future__ import annotations

from ullage.errors import UsageError
from ullage.redteam.channels.failure import BrokenStream, Drop, Refusal, Retry
from ullage.redteam.channels.game import Channel
from ullage.redteam.channels.length import BytesOnTheWire, Length
from ullage.redteam.channels.order import LogOrder, Order
from ullage.redteam.channels.timing import Cuts, ManyDelays, OnOff, Pulses, TokenGaps
from ullage.redteam.channels.words import Words


def channels(slot: float) -> list[Channel]:
    """All of them; `slot` is what the one that knows of slots is tuned to."""
    return [
        OnOff(),
        ManyDelays(),
        TokenGaps(),
        Cuts(),
        Pulses(slot),
        Length(),
        BytesOnTheWire(),
        Order(),
        LogOrder(),
        Refusal(),
        Drop(),
        BrokenStream(),
        Retry(),
        Words(),
    ]


def channel_named(name: str, slot: float) -> Channel:
    """Raises UsageError that lists them."""
    known = {channel.name: channel for channel in channels(slot)}
    if name not in known:
        raise UsageError(f"There is no channel '{name}'; there are {', '.join(sorted(known))}.")
    return known[name]
