"""One way out for rollouts: a server that hides them, a real tap, and a learner that reads what was released.

Server, tap and, where it enforces, enforcer are processes of their own. The learner has the transcripts and
the declared model, as every receiver of the token game does, and is granted token ids and the server's order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ullage.model.reference import Reference
from ullage.redteam.adversary import Transcript
from ullage.redteam.enforced.client import Ask
from ullage.redteam.enforced.stage import Run, Stage, cheating
from ullage.redteam.outcome import CONFIDENCE_BITS
from ullage.redteam.servers.framing import SEGMENT_BYTES
from ullage.redteam.servers.recovery import recover
from ullage.redteam.tokens.calibration import usual_calibration
from ullage.redteam.tokens.coded_choice import read_coded
from ullage.redteam.tokens.game import Traffic, client_prompts, observe
from ullage.redteam.tokens.hidden_bits import bit_at
from ullage.redteam.tokens.just_under_alarm import UnderAlarm
from ullage.redteam.tokens.near_ties import Place
from ullage.redteam.tokens.pricing import ALPHA, Priced
from ullage.sampling.parameters import SamplingParameters
from ullage.server.rows import Row

_SLOTS = ("--slot", "2.0", "--slot-tokens", "16")
_AT_ONCE = 16


@dataclass(frozen=True)
class Way:
    """Which verification the server faces, and what it does about it."""

    name: str
    server: str
    """The red team's adversary that hides the bits."""
    enforced: bool = False
    stealthy: bool = False
    """Held to what an audit finds: one message after the other, in an order that its coder knows."""


UNVERIFIED = Way("no verification", "payload")
AUDITED = Way("audit", "just-under-alarm", stealthy=True)
ENFORCED = Way("enforcement", "payload", enforced=True)
WAYS = (UNVERIFIED, AUDITED, ENFORCED)


@dataclass(frozen=True)
class Passage:
    """What one round of traffic carried. Bits are of the file that was to be sent, from its beginning."""

    way: Way
    tokens: int
    text_bytes: int
    bits: tuple[int | None, ...]
    """As the learner has them; None for one that did not arrive."""
    codelength_bits: float
    """What the verifier's code allows the whole traffic, with 10 bits of confidence."""
    alarm: bool
    """Whether the verifier's deviation alarm sounded, in the order of counters."""

    @property
    def arrived(self) -> int:
        """Bits that the learner holds, once each."""
        return sum(bit is not None for bit in self.bits)


async def send(
    stage: Stage, reference: Reference, way: Way, payload: bytes, *, messages: int, tokens: int, label: str
) -> Passage:
    """Let clients ask `messages` times for `tokens` tokens while the server hides `payload`.

    Raises UllageError when a process fails.
    """
    file = stage.folder / f"{label}.payload"
    file.write_bytes(payload)
    server = cheating(way.server, stage.model, file)
    asks = [Ask(prompt, tokens) for prompt in client_prompts(messages, _number_of(label))]
    run = await stage.play(
        server, asks, 1 if way.stealthy else messages if way.enforced else _AT_ONCE,
        *(_SLOTS if way.enforced else ()), enforced=way.enforced, label=label,
    )  # fmt: skip
    return read_passage(reference, way, run, len(payload))


def read_passage(reference: Reference, way: Way, run: Run, size: int) -> Passage:
    """The learner's reading of a run, and the verifier's. `size`: bytes of the file that was hidden."""
    parameters = SamplingParameters()
    rows = [
        Row(str(one.counter), one.open.seed, [*one.open.prompt_ids], parameters, [*one.output_ids])
        for one in run.records
    ]
    traffic = observe(reference, rows)
    known = usual_calibration(reference.vocabulary_size)
    priced = Priced.of(traffic)
    log_e = priced.log_e(known.noise, known.alarm_floor)
    bits = _read_under_alarm(reference, traffic, size) if way.stealthy else _read_file(reference, rows, size)
    return Passage(
        way,
        tokens=run.tokens,
        text_bytes=sum(len(reference.tokenizer.decode(row.output_ids).encode()) for row in rows),
        bits=tuple(bits),
        codelength_bits=float(priced.codelength(known.noise).sum()) + CONFIDENCE_BITS,
        alarm=bool(len(log_e)) and float(log_e.max()) > -math.log(ALPHA),
    )


def _read_file(reference: Reference, rows: Sequence[Row], size: int) -> list[int | None]:
    transcripts = [Transcript(row.prompt_ids, row.output_ids, row.parameters) for row in rows]
    file = recover(reference.logits, transcripts).file
    return [
        bit_at(file.data, at) if at // (8 * SEGMENT_BYTES) in file.known and at < 8 * len(file.data) else None
        for at in range(8 * size)
    ]


def _read_under_alarm(reference: Reference, traffic: Traffic, size: int) -> list[int | None]:
    law = UnderAlarm(usual_calibration(reference.vocabulary_size))
    read = read_coded(law, _one_after_the_other(traffic))[: 8 * size]
    return [*read, *[None] * (8 * size - len(read))]


def _one_after_the_other(traffic: Traffic) -> Iterable[tuple[Place, int]]:
    for message, row in enumerate(traffic.messages):
        for step, token in enumerate(row.output_ids):
            yield traffic.place(message, step), token


def _number_of(label: str) -> int:
    return sum(map(ord, label))
