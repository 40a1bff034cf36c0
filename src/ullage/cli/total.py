"""`ullage total`: what a rack and a fleet let out in a day, over every way out."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ullage.claims import Reading, merge, to_json, write_claims
from ullage.errors import ExitCode, FaultError, UsageError

if TYPE_CHECKING:
    from ullage.claims import Claim
    from ullage.tap.residual.total import Traffic

_DOORS = ("telemetry", "metrics", "agents", "verdicts")


def total(
    claims: Annotated[
        list[Path],
        typer.Argument(
            help="Claims of one rack: claims.json files, audits' folders, or what commands print with --json."
        ),
    ],
    *,
    tokens: Annotated[float, typer.Option(help="Output tokens a second of the rack.")],
    message: Annotated[float, typer.Option(help="Output tokens of a message, on average.")],
    wire: Annotated[
        str, typer.Option(help="Bytes a second of the link, both ways together, such as twice its cap.")
    ] = "200KB/s",
    door: Annotated[
        list[str] | None,
        typer.Option(help=f"NAME=BITS a day of another way out; {', '.join(_DOORS)} must be given."),
    ] = None,
    telemetry: Annotated[
        Path | None, typer.Option(help="The declaration of --telemetry: its budget is that door.")
    ] = None,
    racks: Annotated[int | None, typer.Option(help="Racks of a fleet that are each like this one.")] = None,
    reading: Annotated[Reading, typer.Option(help="Who reads the claims.")] = Reading.OPERATOR,
    out: Annotated[Path | None, typer.Option(help="Write the claims to this file too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Add up what leaves a rack unaccounted for in a day: tokens, residual, unexplained wire, other doors.

    Prints total.covert_bits_per_day of the rack and, with --racks, of the fleet. Needs the claims
    token.covert_capacity, channel.residual and wire.unexplained_fraction: what is missing makes the total
    not covered, and the command ends with 3.
    """
    from ullage.report.documents import read_document
    from ullage.tap.residual.total import Doors, terms, total_claim

    found = merge(read_document(path).claims for path in claims)
    read = [claim.read_as(reading) for claim in found]
    traffic = _traffic(tokens, message, wire)
    doors = Doors(_doors(door or [], telemetry))
    if racks is not None and racks < 1:
        raise UsageError("--racks is a number of racks from 1 on.")
    totals = [total_claim(read, traffic, doors, size) for size in sorted({1, racks or 1})]
    if out is not None:
        try:
            write_claims(out, totals)
        except OSError as error:
            raise FaultError(f"{out} cannot be written: {error.strerror}.") from error
    listed = [(term.name, term.bits_per_day) for term in terms(read, traffic, doors)]
    if as_json:
        document = {"claims": to_json(totals), "terms": dict(listed)}
        sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(listed, totals)) + "\n")
    if totals[0].value is None:
        raise typer.Exit(ExitCode.CANNOT_TELL)


def _traffic(tokens: float, message: float, wire: str) -> Traffic:
    from ullage.tap.residual.total import Traffic
    from ullage.tap.units import parse_rate

    try:
        rate = parse_rate(wire)
    except ValueError as error:
        raise UsageError(f"--wire: {error}.") from error
    if not (0 <= tokens < math.inf and 0 < message < math.inf):
        raise UsageError("--tokens is a rate from 0 on, and --message a number of tokens above 0.")
    return Traffic.of_rates(tokens, message, rate)


def _doors(given: list[str], telemetry: Path | None) -> dict[str, float | None]:
    """Bits a day of the doors; None for one of the usual ones that nobody spoke of."""
    from ullage.tap.operations.telemetry import read_declaration

    doors: dict[str, float | None] = dict.fromkeys(_DOORS)
    for text in given:
        name, _, number = text.partition("=")
        try:
            bits = float(number)
        except ValueError:
            bits = math.nan
        if not name or not 0 <= bits < math.inf:
            raise UsageError(f"--door {text[:80]!r} is not NAME=BITS, such as verdicts=24.")
        doors[name] = bits
    if telemetry is not None:
        doors["telemetry"] = read_declaration(telemetry).bits_per_day
    return doors


def _lines(listed: list[tuple[str, float | None]], totals: list[Claim]) -> list[str]:
    width = max(len(name) for name, _ in listed)
    rows = [
        f"{name:<{width}}  {'not covered' if bits is None else f'{bits:,.1f} bits/day'}"
        for name, bits in listed
    ]
    return [*rows, "", *(f"{claim.subject}: {claim.render()}" for claim in totals)]
