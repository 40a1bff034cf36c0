"""The scores of an audit when the logits come from an engine instead of the weights.

A row of a wide vocabulary is megabytes of JSON, and one token wins it. So a few hundred of its largest
logits are asked for, and the others get an upper limit: the smallest of these. The noise of every token is
known, so the winner under these limits is either a token whose logit is known, and then it is the winner,
since the others could only score less; or one whose logit is not, and then it is asked for, and the row is
looked at again. This ends, since each question makes one more logit known.

Top-p cuts by the probability of what was left out, too, which is known within limits; where these leave a
choice, more logits are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ullage.audit.bundle.evidence import TokenScores
from ullage.audit.engine.rows import PartialRows, kept_by_top_p, partial_rows, value_of, width_for
from ullage.audit.recompute import parameters_of
from ullage.errors import FaultError, MalformedError
from ullage.log.record import Record
from ullage.sampling.address import NoiseAddress
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import Profile
from ullage.sampling.scores import Scores

DEFAULT_WIDTH: Final = 256
_WIDER: Final = 8
_CONCURRENCY: Final = 8
_BLOCK_LOGITS: Final = 1 << 24


class Engine(Protocol):
    """What is asked of an engine; `EngineClient` is one."""

    vocabulary_size: int

    def prompt_logprobs(self, ids: list[int], width: int) -> list[Any]: ...


def recompute_by_engine(
    engine: Engine,
    profile: Profile,
    records: Sequence[Record],
    progress: Callable[[int], None] = lambda tokens: None,
    *,
    width: int = DEFAULT_WIDTH,
) -> list[TokenScores]:
    """The scores of each record's output, in the order of `records`, as `recompute.recompute` gives them.

    References and margins are those of the full rows. Ranks are not: unknown logits count at their limits
    or, where a filter or temperature 0 leaves them no chance, not at all. Entropies are not known. All
    records must have passed `check_tokens`.
    Raises UsageError, FaultError.
    """
    scores: dict[int, TokenScores] = {}
    done = 0
    with ThreadPoolExecutor(_CONCURRENCY) as pool:
        work = {
            pool.submit(_scores_of, engine, profile, record, width): place
            for place, record in enumerate(records)
        }
        try:
            for future in as_completed(work):
                place = work[future]
                scores[place] = future.result()
                done += len(records[place].output_ids)
                progress(done)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [scores[place] for place in range(len(records))]


def _scores_of(engine: Engine, profile: Profile, record: Record, usual: int) -> TokenScores:
    width = _width(profile, parameters_of(record), engine.vocabulary_size, usual)
    while (scores := _attempt(engine, profile, record, width)) is None:
        width = min(width * _WIDER, engine.vocabulary_size)
    return scores


def _attempt(engine: Engine, profile: Profile, record: Record, width: int) -> TokenScores | None:
    """The scores, or None where so many logits a row do not decide what top-p leaves."""
    prompt, output = list(record.open.prompt_ids), list(record.output_ids)
    token = np.asarray(output, dtype=np.int64)
    found: list[Scores] = []
    if output:
        entries = engine.prompt_logprobs([*prompt, *output], width)[len(prompt) :]
        step = max(1, _BLOCK_LOGITS // engine.vocabulary_size)
        for first in range(0, len(output), step):
            here = slice(first, first + step)
            address = NoiseAddress.of_response(record.open.seed, len(prompt), len(output[here]), first)
            rows = _Rows(engine, profile, record, first, width)
            scores = rows.score(entries[here], output[here], address)
            if scores is None:
                return None
            found.append(scores)
    return TokenScores(
        token=token,
        reference=np.concatenate([np.empty(0, np.int64), *(one.reference for one in found)]),
        margin=np.concatenate([np.empty(0), *(one.margin for one in found)]),
        rank=np.concatenate([np.empty(0, np.int64), *(one.rank for one in found)]),
        entropy=np.full(len(token), np.nan),
    )


def _width(profile: Profile, parameters: SamplingParameters, vocabulary: int, usual: int) -> int:
    if profile.name == "inverse-transform" and not parameters.limits_top_k(vocabulary):
        return vocabulary  # a walk along the distribution needs all of it
    return width_for(parameters, vocabulary, usual)


class _Rows:
    """A run of one output's rows, from output token `first` on."""

    def __init__(self, engine: Engine, profile: Profile, record: Record, first: int, width: int) -> None:
        self._engine = engine
        self._profile = profile
        self._parameters = parameters_of(record)
        self._sequence = [*record.open.prompt_ids, *record.output_ids]
        self._offset = len(record.open.prompt_ids) + first
        self._width = width

    def score(self, entries: list[Any], claimed: list[int], address: NoiseAddress) -> Scores | None:
        """The scores of the claimed tokens, with as many questions as it takes; None: see `_attempt`."""
        vocabulary = self._engine.vocabulary_size
        try:
            rows = partial_rows(entries, claimed, vocabulary, self._width)
        except MalformedError as error:
            raise FaultError(str(error)) from error
        token = np.asarray(claimed, dtype=np.int64)
        if self._width == vocabulary or self._is_filtered():
            return self._profile.score(rows.without_unknown(), token, self._parameters, address)
        if self._parameters.top_p < 1:
            kept = kept_by_top_p(rows, self._parameters)
            if kept is None:
                return None
            logits = np.where(kept, rows.logits, np.float32(-np.inf))
            return self._profile.score(logits, token, replace(self._parameters, top_p=1.0), address)
        return self._settle(rows, token, address)

    def _settle(self, rows: PartialRows, token: NDArray[np.int64], address: NoiseAddress) -> Scores:
        """Ask for winners whose logits are not known until all are."""
        scores = self._profile.score(rows.logits, token, self._parameters, address)
        while len(open_rows := np.flatnonzero(~rows.known[np.arange(len(token)), scores.reference])):
            for row in open_rows:
                self._ask(rows, int(row), int(scores.reference[row]))
            again = NoiseAddress(
                address.seeds[open_rows], address.positions[open_rows], address.steps[open_rows]
            )
            better = self._profile.score(rows.logits[open_rows], token[open_rows], self._parameters, again)
            scores.reference[open_rows] = better.reference
            scores.margin[open_rows] = better.margin
            scores.rank[open_rows] = better.rank
        return scores

    def _is_filtered(self) -> bool:
        """Whether what is not known is removed by a filter, or loses to the largest logit, in any case."""
        parameters = self._parameters
        return parameters.temperature == 0 or parameters.limits_top_k(self._engine.vocabulary_size)

    def _ask(self, rows: PartialRows, row: int, token: int) -> None:
        """Make one logit known: append the token to what was before, and ask for its log-probability."""
        entries = self._engine.prompt_logprobs([*self._sequence[: self._offset + row], token], 1)
        try:
            value = value_of(entries[-1], token, self._engine.vocabulary_size)
        except MalformedError as error:
            raise FaultError(str(error)) from error
        rows.set(row, token, value)
