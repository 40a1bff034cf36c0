"""`ullage bound`: our bounds for anybody's scores."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ullage.claims import to_json
from ullage.errors import UsageError

if TYPE_CHECKING:
    from ullage.audit.scores.bounds import ScoreBounds
    from ullage.claims import Claim


def bound(
    scores: Annotated[Path, typer.Argument(help="Parquet file, one row a token (docs/formats/scores.md).")],
    *,
    vocabulary: Annotated[
        int | None, typer.Option(help="Tokens in the vocabulary; without, as the file's metadata says.")
    ] = None,
    code: Annotated[
        str | None,
        typer.Option(help="given, gaps or matches; without, the file's codelengths, or what it allows."),
    ] = None,
    drawn: Annotated[
        bool, typer.Option("--drawn", help="The messages were drawn by size; with --messages and --tokens.")
    ] = False,
    messages: Annotated[int | None, typer.Option(help="Messages in the window drawn from.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Tokens in the window drawn from.")] = None,
    confidence: Annotated[float, typer.Option(help="Of the bound from draws.")] = 0.99,
    target: Annotated[float, typer.Option(help="Covert share to show; says what that takes.")] = 1e-4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No notes on standard error.")] = False,
) -> None:
    """Bound what a table of token scores could hide: no model, no log.

    Ends with 0 when bounds were printed, 1 for a file that is not one, 2 for a wrong request, 3 when the file
    has no tokens.
    """
    if drawn != (messages is not None and tokens is not None):
        raise UsageError("--drawn, --messages and --tokens go together: the window that was drawn from.")
    from ullage.audit.scores.bounds import Window
    from ullage.audit.scores.run import bound_file

    done = bound_file(
        scores,
        vocabulary=vocabulary,
        code=code,
        window=Window(messages or 0, tokens or 0) if drawn else None,
        confidence=confidence,
        target=target,
    )
    claims, found, digest = done.claims, done.bounds, done.digest
    if not quiet:
        for note in (found.figures.statement(), found.figures.advice):
            if note:
                sys.stderr.write(f"note: {note}\n")
    typer.echo(json.dumps(document(claims, found, digest), indent=1) if as_json else text(claims))


def document(claims: tuple[Claim, ...], found: ScoreBounds, digest: str) -> dict[str, object]:
    """What `--json` prints (`docs/audit.md`)."""
    figures = found.figures
    return {
        "claims": to_json(claims),
        "scores": digest,
        "codes": [code.value for code in found.codes],
        "bits": figures.window.bits,
        "tokens": figures.window.tokens,
        "messages": figures.window.messages,
        "draws": figures.draws,
        "statement": figures.statement(),
        "advice": figures.advice,
    }


def text(claims: tuple[Claim, ...]) -> str:
    """For a terminal."""
    return "\n".join(claim.render() for claim in claims)
