"""What leaves is the reference's, whatever the source of drafts does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence

import pytest

from tests.enforce.enforcer_process import EnforcerProcess
from tests.support.tiny_model import VOCABULARY
from ullage.enforce.accounting import Tally
from ullage.enforce.rederive import Rederived, rederive
from ullage.enforce.reference import ChunkedReference
from ullage.sampling.parameters import SamplingParameters
from ullage.tap.choices.draft import enforced
from ullage.tap.choices.enforcement import EnforcerClient
from ullage.tap.failures import Failure, UpstreamError

PROFILE = "murmur3-gumbel/f64"
PROMPT = tuple(range(30, 47))
LENGTH = 60


class Scripted:
    """Drafts that a test makes of the right continuation."""

    def __init__(self, right: Sequence[int], make: Callable[[list[int], int], list[int]], piece: int) -> None:
        self._right, self._make, self._piece = right, make, piece
        self.runs = 0

    async def after(self, released: Sequence[int]) -> AsyncGenerator[list[int]]:
        self.runs += 1
        drafts = self._make(list(self._right[len(released) :]), len(released))
        for start in range(0, len(drafts), self._piece):
            yield drafts[start : start + self._piece]
            await asyncio.sleep(0)


def honest(right: list[int], _: int) -> list[int]:
    return right


def near_ties(right: list[int], done: int) -> list[int]:
    return [(token + 1) % VOCABULARY if (done + n) % 20 == 13 else token for n, token in enumerate(right)]


def garbage(right: list[int], done: int) -> list[int]:
    return [random.Random(done).randrange(-(1 << 70), 1 << 70) for _ in right]


def too_short(right: list[int], _: int) -> list[int]:
    return right[:11]


def endless(right: list[int], _: int) -> list[int]:
    return right + [5] * 500


def fails(right: list[int], _: int) -> list[int]:
    raise UpstreamError(Failure.UPSTREAM_INVALID, "status 500")


def breaks(right: list[int], _: int) -> list[int]:
    raise RecursionError("a reader that met what nobody thought of")


CASES = [
    (honest, 0, 0, 1),
    (near_ties, 3, 0, 4),
    (garbage, 9, LENGTH - 9, 9),
    (too_short, 0, LENGTH - 11, 1),
    (endless, 0, 0, 1),
    (fails, 0, LENGTH, 1),
    (breaks, 0, LENGTH, 1),
]


@pytest.fixture(scope="module")
def right(reference: ChunkedReference) -> Rederived:
    found = rederive(
        reference, PROFILE, PROMPT, seed=4, parameters=SamplingParameters(0.9), max_tokens=LENGTH
    )
    assert len(found.ids) == LENGTH
    return found


@pytest.mark.parametrize("piece", [1, 23])
@pytest.mark.parametrize(("make", "replaced", "alone", "runs"), CASES)
def test_one_transcript(  # noqa: PLR0917
    enforcer: EnforcerProcess,
    reference: ChunkedReference,
    right: Rederived,
    make: Callable[[list[int], int], list[int]],
    replaced: int,
    alone: int,
    runs: int,
    piece: int,
) -> None:
    drafts, tally = Scripted(right.ids, make, piece), Tally()

    async def use(*, continues: bool) -> tuple[tuple[int, ...], str | None]:
        client = await EnforcerClient.connect(enforcer.path, reference.identity.digest, PROFILE)
        request = await client.begin(PROMPT, seed=4, temperature=0.9, top_p=1.0, top_k=0, max_tokens=LENGTH)
        tokens: tuple[int, ...] = ()
        reasons = []
        async for more, reason in enforced(request, drafts, tally, continues=continues):
            tokens += more
            reasons.append(reason)
        assert set(reasons[:-1]) <= {None}
        request.close()
        await client.close()
        return tokens, reasons[-1]

    assert asyncio.run(use(continues=True)) == (right.ids, right.finish_reason)
    assert (tally.replaced, tally.alone) == (replaced, alone)
    assert (drafts.runs, bool(tally.failure)) == (runs, alone > 0)
    if make is near_ties:
        drafts, tally = Scripted(right.ids, make, piece), Tally()
        assert asyncio.run(use(continues=False)) == (right.ids, right.finish_reason)
        assert (drafts.runs, tally.replaced, tally.alone) == (1, 1, LENGTH - 14)
