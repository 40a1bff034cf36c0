"""`ullage report`: one page from claims, evidence bundles, documents and a log."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ullage.claims import to_json
from ullage.cli.progress import Quiet, meter
from ullage.errors import FaultError, UsageError


def report(
    *,
    claims: Annotated[
        list[Path] | None,
        typer.Option(help="A bundle, a claims.json, or what a command printed with --json; again for more."),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="Folder of a log: verified, its declaration shown.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
    key: Annotated[
        Path | None, typer.Option(help="The tap's public key (log.pub), from a source that you trust.")
    ] = None,
    verdict_key: Annotated[
        Path | None, typer.Option(help="The verifier's public key (verdict.pub): check signed verdicts.")
    ] = None,
    record_keys: Annotated[
        Path | None, typer.Option(help="What opens the log's records: prompts are shown too.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of the declared model, for its tokenizer; the built-in one without."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write one self-contained page from any set of claims and a log.

    It needs no network and shows plainly what is not shown. With 0 the page was written, whatever it says.
    """
    if not claims and log is None:
        raise UsageError("A report is made from something: give --claims FILE, --log DIR, or both.")
    if log is None and (key is not None or record_keys is not None):
        raise UsageError("--key and --record-keys belong to a log: give --log DIR too.")
    from datetime import UTC, datetime

    from ullage.cli.report_sources import Request, gather
    from ullage.report.report_page import make_report, render

    with meter(quiet=quiet) as progress:
        request = Request(tuple(claims or ()), log, key, verdict_key, record_keys, model)
        sources = gather(request, progress)
        progress("drawing the page", 0, 0)
        made = make_report(sources, datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
        text = render(made)
    try:
        out.write_text(text, "utf-8", "replace")  # a document may hold halves of characters
    except OSError as error:
        raise FaultError(f"{out} cannot be written: {error.strerror}.") from error
    if as_json:
        document: dict[str, Any] = {
            "claims": to_json(sources.claims),
            "page": str(out),
            "bytes": out.stat().st_size,
            "verdict": made.outcome or None,
            "fractions": {
                reader.reading.value: {
                    one.measure.key: {
                        "standing": one.standing.value, "at_most": one.high, "bar": one.measure.bar,
                        "reason": one.reason,
                    }
                    for one in reader.fractions
                }
                for reader in made.readers
            },
        }  # fmt: skip
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
        return
    if made.outcome:
        typer.echo(f"verdict: {made.outcome_words.lower()}")
    blocks: dict[str, list[str]] = {}
    for reader in made.readers:
        lines = "\n".join(f"  {one.measure.key:<9}{one.line}" for one in reader.fractions)
        blocks.setdefault(lines, []).append(f"{reader.reading.value}s")
    for lines, who in blocks.items():  # once where both readers see the same
        typer.echo(f"unaccounted for, as {' and '.join(who)} may see it:\n{lines}")
    typer.echo(f"page: {out}")
