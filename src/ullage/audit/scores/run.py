"""A table of token scores from its file to claims."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ullage.audit.bounds.window import DEFAULT_TARGET
from ullage.audit.bundle.folder import file_digest
from ullage.audit.scores.bounds import Code, ScoreBounds, Window, bound_scores
from ullage.audit.scores.claims import score_claims
from ullage.audit.scores.file import read_scores
from ullage.claims import Claim
from ullage.errors import UsageError


@dataclass(frozen=True)
class BoundedFile:
    """What a file's scores could hide, and which file it was (`digest`)."""

    claims: tuple[Claim, ...]
    bounds: ScoreBounds
    digest: str


def bound_file(
    path: Path,
    *,
    vocabulary: int | None = None,
    code: str | None = None,
    window: Window | None = None,
    confidence: float = 0.99,
    target: float = DEFAULT_TARGET,
) -> BoundedFile:
    """Bound the table in `path` (`docs/formats/scores.md`).

    `vocabulary`: number of tokens, None for what the file says. `code`: given, gaps or matches, None for what
    the file allows. `window`: what the messages were drawn from, None for a window audited whole.
    Raises MalformedError for another file, UsageError for a request that cannot be, UndecidedError where
    there is nothing to bound.
    """
    if code is not None and code not in {one.value for one in Code}:
        raise UsageError(f"--code is given, gaps or matches, not {code[:40]!r}.")
    if vocabulary is not None and not 2 <= vocabulary < 1 << 31:
        raise UsageError("--vocabulary is a number of tokens from 2 on.")
    if not path.exists():
        raise UsageError(f"There is no file {path}.")
    digest = file_digest(path)
    table = read_scores(path)
    size = vocabulary or table.vocabulary_size
    if size is None:
        raise UsageError("The file does not say how large the vocabulary is: give --vocabulary.")
    found = bound_scores(
        table, size, window=window, code=Code(code) if code else None, confidence=confidence, target=target
    )
    return BoundedFile(score_claims(table, found, size, digest), found, digest)
