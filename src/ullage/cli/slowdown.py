"""`ullage slowdown`: from claims to the slowdown of the best covert training."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ullage.claims import Reading
from ullage.cli.progress import Quiet, meter
from ullage.errors import FaultError, UsageError

if TYPE_CHECKING:
    from ullage.slowdown.answer import Answer
    from ullage.slowdown.constraints import Scenario
    from ullage.slowdown.ranges import Range

_FEWEST, _MOST = 50, 100_000


def slowdown(
    scenario: Annotated[
        Path | None, typer.Argument(help="A scenario (YAML); the built-in ones without.")
    ] = None,
    *,
    claims: Annotated[
        list[Path] | None,
        typer.Option(
            help="Claims that replace the scenario's figures: a bundle, a claims.json or a --json document."
        ),
    ] = None,
    reading: Annotated[
        Reading, typer.Option(help="Who reads the claims: an inspector trusts nothing of the prover's.")
    ] = Reading.OPERATOR,
    samples: Annotated[int, typer.Option(help="Draws of the uncertain figures.")] = 2_000,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    html: Annotated[Path | None, typer.Option(help="Write a page that works without a network.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    quiet: Quiet = False,
) -> int:
    """How much slower the best covert training is under what is verified, and by which strategy.

    Figures are an estimate against the strategies listed: one that nobody listed can only lower them.
    """
    from ullage.slowdown.answer import answer
    from ullage.slowdown.document import as_json as document
    from ullage.slowdown.evaluation import DARK_SHARES
    from ullage.slowdown.parameters import RANGES

    if not _FEWEST <= samples <= _MOST:
        raise UsageError(f"--samples must lie between {_FEWEST} and {_MOST:,}.")
    if seed < 0:
        raise UsageError("--seed must not be negative.")
    chosen, shares, ranges = _scenario(scenario, claims or [], reading)
    with meter(quiet=quiet) as progress:
        result = answer(
            chosen,
            dark_shares=shares or DARK_SHARES,
            ranges=ranges or RANGES,
            samples=samples,
            seed=seed,
            progress=progress,
        )
        if html is not None:
            progress("drawing the page", 0, 0)
            _write_page(html, result)
    if as_json:
        sys.stdout.write(json.dumps(document(result), indent=1, allow_nan=False) + "\n")
        return 0
    from ullage.slowdown.text import lines

    sys.stdout.write("\n".join(lines(result)) + "\n")
    if html is not None:
        sys.stdout.write(f"\npage: {html}\n")
    return 0


def _scenario(
    path: Path | None, claims: list[Path], reading: Reading
) -> tuple[Scenario | None, tuple[float, ...], dict[str, Range] | None]:
    """The scenario to evaluate, its dark shares if it fixes one, its ranges if it has any."""
    from ullage.slowdown.constraints import Constraints
    from ullage.slowdown.constraints import Scenario as Named
    from ullage.slowdown.scenario_file import read_scenario

    if path is None and not claims:
        return None, (), None
    chosen, model = Named("the claims alone", Constraints()), ""
    ranges: dict[str, Range] | None = None
    shares: tuple[float, ...] = ()
    if path is not None:
        read = read_scenario(path)
        chosen, model, ranges = read.scenario, read.model, read.ranges
        shares = (chosen.constraints.dark_share,) if read.fixes_dark_share else ()
    return _with_claims(chosen, claims, reading, model), shares, ranges


def _with_claims(scenario: Scenario, paths: list[Path], reading: Reading, model: str) -> Scenario:
    """The scenario with the claims of all these documents, each known by its file and place there."""
    from ullage.report.adversaries import is_game
    from ullage.report.documents import read_document
    from ullage.slowdown.from_claims import apply_claims

    if not paths:
        return scenario
    documents = [read_document(path) for path in paths]
    if games := [document.name for document in documents if is_game(document)]:
        raise UsageError(f"{games[0]} is of the red team's games: its claims are not about this machine.")
    given = [claim for document in documents for claim in document.claims]
    places = [
        f"{document.name}: claim {number}"
        for document in documents
        for number, _ in enumerate(document.claims, 1)
    ]
    return apply_claims(scenario, given, reading, model, places)


def _write_page(path: Path, result: Answer) -> None:
    from datetime import UTC, datetime

    from ullage.report.slowdown_page import render
    from ullage.slowdown.document import as_json
    from ullage.slowdown.slider_grid import slider_grid

    created = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = render(as_json(result), slider_grid(), created)
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise FaultError(f"{path} cannot be written: {error.strerror}.") from error
