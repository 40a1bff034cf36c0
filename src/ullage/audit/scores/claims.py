"""Claims from anybody's scores."""

from __future__ import annotations

import numpy as np

from ullage.audit.admissible.claims import Setting, path_claims
from ullage.audit.admissible.walk_figures import RecordBits, figures
from ullage.audit.bounds.statistics import clopper_pearson, cluster_bootstrap
from ullage.audit.bounds.window import NOT_COVERED
from ullage.audit.claims import Context, rate_claim
from ullage.audit.covert_claims import upper_claims
from ullage.audit.scores.bounds import Code, ScoreBounds
from ullage.audit.scores.file import ScoresTable
from ullage.claims import Claim
from ullage.errors import UndecidedError

_CONFIDENCE = 0.95
_TABLE = (
    "The table holds what was delivered and what the declared model gives: whoever recorded and recomputed "
    "it is trusted.",
    "The payload is independent of prompts, seeds and reference; a row of the reference depends on the "
    "tokens before it only.",
)
_CODES = {
    Code.GIVEN: "The file's codelengths are those of a code that was fixed before the window: over the "
    "vocabulary the 2^-bits of each position sum to at most 1.",
    Code.GAPS: "A gap follows from prompt, seed and earlier tokens, not from the token delivered.",
    Code.MATCHES: "Ranks of one position's tokens differ: ties are broken by id.",
}
_ENDINGS = (
    "Messages end where their own tokens say so; where one was cut off is not counted.",
    f"Not covered: {NOT_COVERED}.",
)
_DRAWN = (
    "Messages were drawn with replacement in proportion to n log2 V + 20, after they were committed; the "
    "number of draws was fixed before, and every draw is in the file."
)


def score_context(digest: str) -> Context:
    """What the claims about a file share: its digest, `sha256:…`."""
    return Context(log_id=digest, model_digest=digest, window=None, inputs={"scores": digest})


def score_claims(
    table: ScoresTable, bounds: ScoreBounds, vocabulary_size: int, digest: str
) -> tuple[Claim, ...]:
    """Mismatch rate, covert capacity and path figure, as far as the table goes."""
    context = score_context(digest)
    drawn = bounds.figures.draws is not None
    assumptions = (
        *_TABLE,
        *(_CODES[code] for code in bounds.codes),
        *_ENDINGS,
        *((_DRAWN,) if drawn else ()),
    )
    length = " or ".join(f"the {code} code" for code in bounds.codes)
    claims = list(upper_claims(bounds.figures, context, assumptions, length))
    if drawn:  # a sample tells no classes apart
        claims = [claim for claim in claims if not claim.name.endswith("_worst_class")]
    if table.has_matches:
        claims.insert(0, _mismatches(table, context, drawn=drawn))
    if "admissible_count" in table.columns:
        claims += _path(table, Setting(None, vocabulary_size, context))
    return tuple(claims)


def _mismatches(table: ScoresTable, context: Context, *, drawn: bool) -> Claim:
    wrong, tokens = int(table.mismatches.sum()), int(table.tokens.sum())
    spread = cluster_bootstrap(table.mismatches, table.tokens, _CONFIDENCE)
    said = "" if spread is None else f"; resampling whole messages gives [{spread[0]:.4g}, {spread[1]:.4g}]"
    return rate_claim(
        clopper_pearson(wrong, tokens, _CONFIDENCE),
        context,
        sample=f"{wrong} of {tokens} tokens in {len(table.tokens)} messages{said}",
        assumptions=(
            "Tokens count as independent trials; those of one message are correlated, so the interval over "
            "whole messages is the wider one to look at.",
            _TABLE[0],
            *(("Of the file's messages, which were drawn by size, not of the window's.",) if drawn else ()),
        ),
        method="mismatches in a table of scores, Clopper–Pearson, v1",
    )


def _path(table: ScoresTable, setting: Setting) -> tuple[Claim, ...]:
    """The mean of log2 of the set sizes that the file gives, with no deviations tolerated."""
    rows = RecordBits(
        bits=table.log2_admissible,
        tokens=table.tokens.astype(np.float64),
        text_bits=8.0 * table.text_bytes.astype(np.float64),
        classes=table.classes,
    )
    try:
        return path_claims(figures(rows), setting)
    except UndecidedError:
        return ()  # one message gives no interval
