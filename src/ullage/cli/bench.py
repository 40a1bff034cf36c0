"""`ullage bench base64`: how well a model encodes and decodes base64, over any OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from ullage.cli.progress import meter
from ullage.errors import ExitCode, UsageError


def base64(
    *,
    endpoint: Annotated[
        str, typer.Option(help="Base URL, such as http://127.0.0.1:8000 (with or without /v1).")
    ],
    model_name: Annotated[
        str | None, typer.Option(help="The model to ask for; the first listed without.")
    ] = None,
    each: Annotated[int, typer.Option(help="Texts of each of the 34 kinds; each is asked both ways.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the texts.")] = 1,
    out: Annotated[Path, typer.Option(help="Scores, a line each; a run with the same file goes on.")] = Path(
        "base64bench.jsonl"
    ),
    plot: Annotated[Path | None, typer.Option(help="Write the curves as SVG.")] = None,
    parallel: Annotated[int, typer.Option(min=1, max=256, help="Questions at a time.")] = 8,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 8192,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one answer.")] = 300.0,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the endpoint's API key.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")] = False,
) -> None:
    """Ask a model to encode and decode 34 kinds of text, and score the answers.

    Ends with 0 when every question has a score, 2 for a wrong request, 3 when some got no answer (run it
    again to ask them), 4 when the endpoint does not answer.
    """
    from ullage.monitor.base64_run import Settings, run
    from ullage.monitor.base64_score import items
    from ullage.monitor.base64_tables import document, table
    from ullage.monitor.base64_tables import plot as draw

    if api_key_env is not None and api_key_env not in os.environ:
        raise UsageError(f"The environment has no variable {api_key_env}.")
    key = os.environ[api_key_env] if api_key_env else None
    settings = Settings(endpoint, model_name, seed, parallel, timeout, max_tokens, key)
    with meter(quiet=quiet) as progress:
        results = run(settings, items(each), out, lambda done, total: progress("questions", done, total))
    if plot is not None:
        draw(results.scores, plot)
    if as_json:
        typer.echo(json.dumps({"claims": [], "failed": results.failed, **document(results.scores)}))
    else:
        typer.echo(table(results.scores))
        if results.failed:
            typer.echo(f"{results.failed} questions got no answer; run this again to ask them.")
    raise typer.Exit(int(ExitCode.CANNOT_TELL if results.failed else ExitCode.PASS))
