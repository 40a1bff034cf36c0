"""`ullage audit`: recompute a log and say whether the server did what it declares."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ullage.claims import to_json
from ullage.errors import UsageError

if TYPE_CHECKING:
    from ullage.audit.run import AuditResult


def audit(
    log: Annotated[Path, typer.Argument(help="A log's folder.")],
    *,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the declared model; the built-in one without.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Precision whose limit applies: float32 or bfloat16; the declared one without."),
    ] = None,
    sample: Annotated[str, typer.Option(help="How many records to draw, or 'all'.")] = "all",
    key: Annotated[
        Path | None, typer.Option(help="The tap's public key (log.pub), from a source that you trust.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="The verifier's keys: draw a sample, sign the verdict.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New folder for the evidence bundle.")] = None,
    entropy: Annotated[
        bool, typer.Option("--entropy", help="Also write each distribution's entropy (slower).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")] = False,
) -> None:
    """Recompute a log with the declared model, and sign a verdict.

    Ends with 0 for pass, 1 for fail, 2 when log and request do not go together, 3 for cannot-tell.
    """
    records = parse_sample(sample)
    from ullage.audit.run import AuditRequest, audit_log
    from ullage.model.builtin import builtin_path

    request = AuditRequest(
        log=log,
        model=model or builtin_path(),
        sample=records,
        limit_dtype=dtype,
        log_key=key,
        keys=keys,
        out=out,
        entropy=entropy,
    )
    with meter(shown=not quiet and sys.stderr.isatty()) as progress:
        result = audit_log(request, progress)
    if not quiet:
        for note in result.notes:
            typer.echo(f"note: {note}", err=True)
    typer.echo(json.dumps(document(result), indent=1) if as_json else text(result))
    raise typer.Exit(int(result.verdict.outcome.exit_code))


@contextmanager
def meter(*, shown: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on standard error, as the callback that rooms take."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task("", total=None)

        def progress(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total or None)

        yield progress


def parse_sample(value: str) -> int | None:
    """A number of records, or None for `all`."""
    if value == "all":
        return None
    if not value.isascii() or not value.isdigit() or int(value) == 0:
        raise UsageError(f"--sample takes a number of records or 'all', not {value!r}.")
    return int(value)


def document(result: AuditResult) -> dict[str, object]:
    """The result as `--json` prints it (`docs/audit.md`)."""
    largest = result.largest_margin
    clusters = result.clusters
    return {
        "claims": to_json(result.claims),
        "verdict": result.verdict.outcome.value,
        "reasons": list(result.verdict.reasons),
        "notes": list(result.notes),
        "mismatches": result.rate.mismatches,
        "tokens": result.rate.tokens,
        "interval": [result.rate.low, result.rate.high],
        "interval_over_records": list(clusters) if clusters else None,
        "interval_confidence": result.rate.confidence,
        "limit": result.limit,
        "largest_margin": largest if largest is not None and math.isfinite(largest) else None,
        "outside_filters": result.outside,
        "sample": result.sample.model_dump(mode="json"),
        "bundle": str(result.bundle) if result.bundle else None,
    }


def text(result: AuditResult) -> str:
    """The result for a terminal."""
    lines = [claim.render() for claim in result.claims]
    largest = result.largest_margin
    if result.rate.tokens and largest is not None:
        size = "infinite" if math.isinf(largest) else f"{largest:.4g} logits"
        lines.append(f"margins: the largest is {size}, {result.outside} tokens lie outside the filters")
    lines += [f"{result.verdict.outcome.value}: {reason}" for reason in result.verdict.reasons]
    if result.bundle:
        lines.append(f"signed bundle: {result.bundle}")
    return "\n".join(lines)
