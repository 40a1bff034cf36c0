"""What still gets out beside the tokens, in bits a message: length, timing, order, errors, drops.

Each channel is bounded by the logarithm of what a receiver can tell apart, over the messages it saw. The
bounds add, since the channels' symbols together are one of at most the product of their numbers.
docs/residual.md has the proofs; `ullage redteam wire` what encoders really got through.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ullage.claims import Bound, Claim, Evidence, Trust, Window
from ullage.enforce.accounting import Ledger
from ullage.log.record import ClosePart, Record
from ullage.tap.pacing.grid import Pace, padded_length
from ullage.tap.pacing.ledger import Allowance, pattern_bits, seen_bits
from ullage.tap.pacing.schedule import read_sentence

METHOD: Final = "residual/1"
RESOLUTION: Final = 1e-3  # seconds that a receiver is assumed to tell apart where nothing is paced
_CONFIDENCE: Final = 0.99


@dataclass(frozen=True)
class Channel:
    """One way out: its bits a message, and why not more."""

    name: str
    bits: float
    because: str


@dataclass(frozen=True)
class Observed:
    """What a tap's log or metrics say of a stretch of traffic.

    `opportunities` are releases (a message without a stream, a group of a stream), `exceptions` how often
    one was late or failed. `in_flight` is the most requests at once, `longest` an answer's tokens at most.
    """

    messages: int
    opportunities: int
    exceptions: int
    in_flight: int = 1
    longest: int = 256

    def __post_init__(self) -> None:
        if self.messages < 1 or self.opportunities < self.messages or self.exceptions < 0:
            raise ValueError("at least one message, as many opportunities, and no negative counts")


def timing_bits(span: float, releases: float = 1.0, resolution: float = RESOLUTION) -> float:
    """Bits of so many moments, one after the other, in `span` seconds told apart by `resolution`:
    log2 of binomial(span / resolution + releases, releases), which for one is log2(1 + span / resolution).
    """
    moments = span / resolution
    logarithm = math.lgamma(moments + releases + 1) - math.lgamma(moments + 1) - math.lgamma(releases + 1)
    return logarithm / math.log(2)


def length_bits(longest: int, pad_to: int = 0) -> float:
    """Bits of a length of 1 to `longest` tokens, padded to multiples of `pad_to`."""
    return math.log2(math.ceil(padded_length(longest, pad_to) / max(pad_to, 1)))


def open_channels(observed: Observed, patience: float) -> list[Channel]:
    """A tap without slots, whose server may take `patience` seconds for an answer."""
    failures = min(observed.exceptions, observed.opportunities)
    return [
        Channel(
            "timing",
            timing_bits(patience, observed.opportunities / observed.messages),
            f"any moment of {patience:g} s, told apart by {RESOLUTION * 1000:g} ms, for every release",
        ),
        Channel("order", 0.0, "a function of the times, which are counted"),
        Channel(
            "errors and drops",
            pattern_bits(observed.messages, failures, 1) / observed.messages,
            f"one error for all faults: which {failures} of {observed.messages} messages failed",
        ),
        _length(observed, 0),
    ]


def paced_channels(observed: Observed, pace: Pace) -> list[Channel]:
    """A tap with slots: what was late or failed is all that its times and errors said."""
    return [
        Channel(
            "timing, errors and drops",
            seen_bits(observed.opportunities, observed.exceptions) / observed.messages,
            f"which of {observed.opportunities} releases were late or failed, "
            f"{observed.exceptions} times in all",
        ),
        Channel("order", 0.0, f"{pace.order} within a slot, and the slot is given by arrival and length"),
        _length(observed, pace.pad_to),
    ]


def enforced_channels(observed: Observed, lateness: Ledger) -> list[Channel]:
    """A tap that enforces in slots: the reference answers whatever the server does, so that late slots are
    all that the server can bring about.
    """
    return [
        Channel(
            "timing",
            lateness.bits / observed.messages,
            f"which of {lateness.slots} slots were late, {lateness.late} in all, and by how much",
        ),
        Channel("order", 0.0, "a slot is given by the request's arrival and the answer's length"),
        Channel("errors and drops", 0.0, "the reference answers where the server does not"),
        _length(observed, 0),
    ]


def allowed_channels(
    messages: int, groups: float, allowance: Allowance, pace: Pace, days: float = 1.0
) -> Channel:
    """The most that the allowance permits, whatever the server does, at `groups` releases a message."""
    opportunities = max(messages, round(messages * groups))
    exceptions = allowance.most(opportunities, days * 86_400)
    bits = pattern_bits(opportunities, exceptions) + math.log2(opportunities + 1)
    return Channel(
        "timing, errors and drops",
        bits / messages,
        f"at most {exceptions} of {opportunities} releases may be late or failed",
    )


def _length(observed: Observed, pad_to: int) -> Channel:
    """Nothing beyond the tokens: an end is a token, and the audit's bound is over tokens."""
    shown = length_bits(observed.longest, pad_to)
    return Channel(
        "length",
        0.0,
        f"the end of a text is one of its tokens and counted with them; on the wire {shown:.3g} bits show",
    )


@dataclass
class _Answer:
    """What the records of one request say of its releases."""

    stream: bool = False
    tokens: int = 0  # of all its choices
    longest: int = 0
    steps: int = 0
    failed: bool = False
    gone: bool = False
    received: int = 0
    closed: int = 0

    def add(self, record: Record, close: ClosePart, steps: int) -> None:
        """One choice more. Its lateness is the request's, and stands in every record of it."""
        tokens = len(close.output_ids)
        self.stream = record.open.stream
        self.tokens += tokens
        self.longest = max(self.longest, tokens)
        self.steps = max(self.steps, steps)
        if record.open.choice == 0:
            self.failed = close.outcome in ("upstream-failed", "refused")
        self.gone = self.gone or close.outcome == "client-gone"
        self.received, self.closed = record.open.time_received, max(self.closed, close.time_closed)

    def releases(self, pace: Pace | None) -> int:
        """A stream's groups, or tokens and its end; else one. What failed, or was left, is one beside those
        that were released before."""
        if not self.stream:
            return 1
        if pace is None:
            return self.tokens + 1
        return pace.groups(max(1, self.longest)) + (self.tokens > 0 and (self.failed or self.gone))


def observed_in(records: Iterable[Record], pace: Pace | None, asked: int = 0) -> Observed:
    """Counts from a log. `pace` is None for a tap without slots. `asked` are the messages that clients sent,
    of which those that the tap refused have no record.

    Late releases stand in the records' details, written by the tap. Failures are those of the server. A tap
    without slots releases a stream's tokens one by one, those of every choice.
    Raises ValueError for a log without a message.
    """
    exceptions = 0
    answers: defaultdict[int, _Answer] = defaultdict(_Answer)
    for record in records:
        if record.close is None:
            continue
        steps, own = read_sentence(record.close.detail)
        exceptions += own  # whose record it stands in is chance
        answers[record.open.group].add(record, record.close, steps)
    in_flight = most = 0
    spans = [(one.received, 1) for one in answers.values()] + [(one.closed, -1) for one in answers.values()]
    for _, change in sorted(spans):
        in_flight += change
        most = max(most, in_flight)
    messages = len(answers)
    refused = max(0, asked - messages)
    return Observed(
        messages + refused,
        sum(one.releases(pace) for one in answers.values()) + refused,
        exceptions + sum(one.steps + one.failed for one in answers.values()),
        max(most, 1),
        max((one.longest for one in answers.values()), default=1) or 1,
    )


def residual_claim(
    channels: Iterable[Channel],
    observed: Observed,
    *,
    paced: bool,
    subject: str = "",
    window: Window | None = None,
    inputs: Mapping[str, str] | None = None,
    settings: str = "",
) -> Claim:
    """`channel.residual`: the sum over the channels, bits a message.

    `settings` says, as an assumption, what the tap ran with: its log does not.
    """
    listed = list(channels)
    assumptions = [f"{channel.name}: {channel.because}" for channel in listed]
    if paced:
        assumptions.append("a receiver cannot tell how far within its slot an answer leaves")
        assumptions.append("after its last record there was no exception beyond the server's")
        assumptions.append("no client aims at the boundary of a slot within two milliseconds")
    assumptions.append("the token claims cover where an output ends and which tokens it has")
    if settings:
        assumptions.append(settings)
    return Claim(
        name="channel.residual",
        value=sum(channel.bits for channel in listed),
        unit="bits/message",
        bound=Bound.UPPER,
        confidence=_CONFIDENCE,
        evidence=Evidence.PROVEN,
        assumptions=tuple(assumptions),
        trusts=(Trust.TAP, Trust.PERIMETER),
        subject=subject,
        window=window,
        method=METHOD,
        inputs=dict(inputs or {}),
        sample=f"{observed.messages} messages, {observed.opportunities} releases, "
        f"{observed.exceptions} exceptions",
    )


def share_of_message(bits: float, tokens: float, vocabulary: int) -> float:
    """Residual bits as a share of what a message of `tokens` tokens could carry at most."""
    return bits / (tokens * math.log2(vocabulary))
