"""The Python interface: what commands do, as functions.

    import ullage

    claims = ullage.audit("log", model="weights", record_keys="keys", key="log.pub")
    for claim in claims:
        print(claim.render())
    claims = ullage.bound("scores.parquet", vocabulary=151_936)

`ullage.audit` is the room of that name, and can be called; type checkers prefer `ullage.api.audit`.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ullage.claims import Claim

if TYPE_CHECKING:
    from ullage.audit.result import AuditResult

PathText = str | PathLike[str]


def audit(
    log: PathText,
    *,
    model: PathText | None = None,
    key: PathText | None = None,
    keys: PathText | None = None,
    record_keys: PathText | None = None,
    sample: int | None = None,
    out: PathText | None = None,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
) -> tuple[Claim, ...]:
    """Audit a log; the claims, as `ullage audit LOG --json` prints them.

    `model`: folder of the declared model, None for the built-in one. `key`: the tap's public key; None takes
    the one beside the log, which then vouches for itself. `keys`: the verifier's folder, to draw a `sample`
    and to sign the bundle `out`. `engine="ray"` recomputes on a Ray cluster, as `--engine ray` does with
    `--workers` and `--address`. Raises what `ullage.audit.run.audit_log` raises; what is wrong with the log
    is in the claims and in `audit_result`'s verdict.
    """
    return audit_result(
        log,
        model=model,
        key=key,
        keys=keys,
        record_keys=record_keys,
        sample=sample,
        out=out,
        engine=engine,
        workers=workers,
        address=address,
    ).claims


def audit_result(
    log: PathText,
    *,
    model: PathText | None = None,
    key: PathText | None = None,
    keys: PathText | None = None,
    record_keys: PathText | None = None,
    sample: int | None = None,
    out: PathText | None = None,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
) -> AuditResult:
    """The same with verdict, reasons and scores."""
    from ullage.audit.cluster.ray_cluster import ray_options
    from ullage.audit.run import AuditRequest, audit_log
    from ullage.model import instruction_set
    from ullage.model.builtin import builtin_path

    instruction_set.pin()

    def path(given: PathText | None) -> Path | None:
        return None if given is None else Path(given)

    return audit_log(
        AuditRequest(
            log=Path(log),
            model=path(model) or builtin_path(),
            sample=sample,
            log_key=path(key),
            keys=path(keys),
            record_keys=path(record_keys),
            out=path(out),
            ray=ray_options(engine, address, workers, None),
        )
    )


def bound(
    scores: PathText,
    *,
    vocabulary: int | None = None,
    code: str | None = None,
    drawn_from: tuple[int, int] | None = None,
    confidence: float = 0.99,
) -> tuple[Claim, ...]:
    """Bound what a table of token scores could hide; the claims, as `ullage bound SCORES --json` prints them.

    `scores`: a Parquet file, one row a token (`docs/formats/scores.md`), of whatever software. `vocabulary`:
    its tokens, None for what the file says. `code`: given, gaps or matches, None for what the file allows.
    `drawn_from`: messages and tokens of the window, for a sample drawn from it in proportion to size.
    Raises what `ullage.audit.scores.run.bound_file` raises. Takes neither torch nor a model.
    """
    from ullage.audit.scores.bounds import Window
    from ullage.audit.scores.run import bound_file

    window = None if drawn_from is None else Window(*drawn_from)
    return bound_file(
        Path(scores), vocabulary=vocabulary, code=code, window=window, confidence=confidence
    ).claims
