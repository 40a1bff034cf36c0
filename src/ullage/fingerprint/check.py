"""The verifier's check: commitments first, then a projection of his own, then a few openings.

Order matters and is kept here: (1) all commitments are taken down; (2) the records are drawn and a fresh
seed is made; (3) the prover answers for each; (4) states to open are drawn after its answer, and must be
the committed ones and give the very bytes that were answered.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ullage.audit.verdict import Outcome
from ullage.errors import IntegrityError, MalformedError, UsageError
from ullage.fingerprint.client import FingerprintClient, RefusedError
from ullage.fingerprint.commitment import Commitment, check_opening, transcript_digest
from ullage.fingerprint.evidence import Evidence, detectable_factor
from ullage.fingerprint.messages import Committed
from ullage.fingerprint.projection import SEED_BYTES, differences, fingerprint
from ullage.fingerprint.tolerance import Tolerance

if TYPE_CHECKING:
    from ullage.model.reference import Reference

Progress = Callable[[str, int, int], None]
PASS_FACTOR = 2.0
"""A pass says that a server this many times farther away than is tolerated would have been noticed."""


_SIMULATED = 500  # tokens: more than that only make the figure smaller


class Fault(StrEnum):
    """What is wrong with one answer's fingerprint. The values are codes of findings."""

    ABSENT = "not-committed"
    CHANGED = "commitment-changed"
    WRONG_SHAPE = "commitment-misshapen"
    REFUSED = "challenge-refused"
    MALFORMED = "answer-malformed"
    NOT_COMMITTED_STATE = "opening-broken"
    NOT_THE_PROJECTION = "answer-not-of-the-state"


@dataclass(frozen=True)
class Transcript:
    """One answer as the tap recorded it."""

    counter: int
    seed: int
    prompt_ids: tuple[int, ...]
    output_ids: tuple[int, ...]

    def digest(self) -> bytes:
        return transcript_digest(self.seed, self.prompt_ids, self.output_ids)


@dataclass(frozen=True)
class Terms:
    """What the verifier asks for."""

    tolerance: Tolerance
    coordinates: int = 1
    openings: int = 2
    """States of each answer."""
    alpha: float = 1e-3


@dataclass
class Checked:
    """What came of it."""

    terms: Terms
    evidence: Evidence
    drawn: int
    faults: dict[int, Fault] = field(default_factory=dict)
    """By the record's counter."""
    squares: list[NDArray[np.float64]] = field(default_factory=list)
    """For each answer the mean over coordinates of the squared difference (T,) in steps."""
    opened: int = 0
    received_bits: int = 0
    """Of the bodies of all that came, the list of commitments included: what the prover could have said."""

    @property
    def covered(self) -> int:
        return self.drawn - len(self.faults)

    @property
    def outcome(self) -> Outcome:
        """Fail on evidence or a broken commitment; pass if twice the distance would have been noticed."""
        lies = set(self.faults.values()) - {Fault.ABSENT}
        if self.evidence.crossed_at or lies:
            return Outcome.FAIL
        if not self.covered or self.faults or self.detectable > PASS_FACTOR:
            return Outcome.CANNOT_TELL
        return Outcome.PASS

    @cached_property
    def detectable(self) -> float:
        """The smallest multiple of the tolerated distance that would have been noticed; see `evidence`."""
        if not self.evidence.tokens:
            return float("inf")
        tokens = min(self.evidence.tokens, _SIMULATED)
        return detectable_factor(self.evidence.envelope, self.terms.coordinates, tokens, self.terms.alpha)


def check(
    prover: FingerprintClient,
    reference: Reference,
    transcripts: Sequence[Transcript],
    terms: Terms,
    *,
    earlier: Sequence[Committed] | None = None,
    progress: Progress = lambda *_: None,
) -> Checked:
    """Challenge the prover about each of these. `earlier`: commitments that were collected before.

    Raises UsageError for a tolerance of another model or precision, FaultError when the prover breaks off.
    """
    check_tolerance(terms.tolerance, reference)
    now = _by_transcript(prover.commitments())
    known = now if earlier is None else _by_transcript(earlier)
    evidence = Evidence(terms.tolerance.in_steps(), terms.coordinates, terms.alpha)
    result = Checked(terms, evidence, len(transcripts))
    # The seed is drawn only now: the commitments are taken down.
    session = _Session(prover, reference, secrets.token_bytes(SEED_BYTES), result)
    for number, transcript in enumerate(transcripts):
        progress("checking fingerprints", number, len(transcripts))
        digest = transcript.digest()
        commitment = known.get(digest)
        if commitment is None or digest not in now:
            result.faults[transcript.counter] = Fault.ABSENT
        elif now[digest] != commitment:
            result.faults[transcript.counter] = Fault.CHANGED
        elif not _fits(commitment, transcript, terms.tolerance):
            result.faults[transcript.counter] = Fault.WRONG_SHAPE
        elif fault := session.challenge(transcript, commitment):
            result.faults[transcript.counter] = fault
    result.received_bits = 8 * prover.received
    return result


def check_tolerance(tolerance: Tolerance, reference: Reference) -> None:
    """Raise UsageError unless the tolerance was calibrated for this model in this precision."""
    if tolerance.model != reference.identity.digest or tolerance.dtype != reference.dtype:
        raise UsageError(
            f"The tolerance is for {tolerance.model[:19]}… in {tolerance.dtype}, and the reference "
            f"is {reference.identity.digest[:19]}… in {reference.dtype}; calibrate for this one."
        )


def _by_transcript(listed: Sequence[Committed]) -> Mapping[bytes, Commitment]:
    return {bytes.fromhex(one.transcript): one.commitment() for one in listed}


def _fits(commitment: Commitment, transcript: Transcript, tolerance: Tolerance) -> bool:
    return commitment.tokens == len(transcript.output_ids) and commitment.width == tolerance.width


@dataclass(frozen=True)
class _Session:
    """One seed's challenges."""

    prover: FingerprintClient
    reference: Reference
    seed: bytes
    result: Checked

    def challenge(self, transcript: Transcript, commitment: Commitment) -> Fault | None:
        """Hold one answer against the reference; the fault if it is none."""
        from ullage.model.states import reference_states

        terms, digest = self.result.terms, commitment.transcript
        step, tokens = terms.tolerance.step, commitment.tokens
        try:
            data = self.prover.answer(digest, self.seed, terms.coordinates, step)
        except RefusedError:
            return Fault.REFUSED
        except MalformedError:
            return Fault.MALFORMED
        if len(data) != tokens * terms.coordinates:
            return Fault.MALFORMED
        answer = np.frombuffer(data, np.uint8).reshape(tokens, terms.coordinates)
        if fault := self._open(commitment, answer):
            return fault
        sequence = (*transcript.prompt_ids, *transcript.output_ids)
        (own,) = reference_states(self.reference, [sequence], [len(transcript.prompt_ids)])
        found = differences(answer, own, self.seed, digest, step=step)
        self.result.evidence.add(found)
        self.result.squares.append(np.mean(found**2, axis=1))
        return None

    def _open(self, commitment: Commitment, answer: NDArray[np.uint8]) -> Fault | None:
        """Open states that are drawn now that the answer is known."""
        count = min(self.result.terms.openings, commitment.tokens)
        tokens = secrets.SystemRandom().sample(range(commitment.tokens), count)
        try:
            opened = self.prover.open(commitment.transcript, tokens)
            for token, (data, path) in zip(tokens, opened, strict=True):
                again = self._projected(commitment, token, check_opening(commitment, token, data, path))
                self.result.opened += 1
                if not np.array_equal(again, answer[token]):
                    return Fault.NOT_THE_PROJECTION
        except RefusedError:
            return Fault.REFUSED
        except (IntegrityError, UsageError):
            return Fault.NOT_COMMITTED_STATE
        return None

    def _projected(self, commitment: Commitment, token: int, state: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The bytes (K,) that an opened state gives."""
        terms = self.result.terms
        found = fingerprint(
            state[None], self.seed, commitment.transcript,
            coordinates=terms.coordinates, step=terms.tolerance.step, tokens=[token],
        )  # fmt: skip
        return np.asarray(found[0])


def read_collected(path: Path) -> list[Committed]:
    """A file of `ullage fingerprint collect`: one commitment a line. Raises MalformedError, UsageError."""
    from ullage.fingerprint.messages import MAX_RESPONSE_BYTES, parse
    from ullage.log.files import read_limited

    data = read_limited(path, 16 * MAX_RESPONSE_BYTES)
    return [parse(Committed, line) for line in data.splitlines() if line.strip()]
