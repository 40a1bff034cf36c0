"""`ullage bench scale`: what so many machines verify in a day."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ullage.errors import UsageError

if TYPE_CHECKING:
    from ullage.audit.scale import ScaleRow


def scale(
    *,
    rate: Annotated[
        float, typer.Option(help="Output tokens audited a second on one machine, as you measured it.")
    ],
    machines: Annotated[str, typer.Option(help="How many machines; several, with commas.")] = "1,10,1000",
    efficiency: Annotated[
        float, typer.Option(help="Share of the rate that is left when many work on one log.")
    ] = 1.0,
    served: Annotated[
        float | None, typer.Option(help="Output tokens that the servers deliver in a day.")
    ] = None,
    share: Annotated[float, typer.Option(help="With --served: the share of it to audit.")] = 0.01,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Say what machines of a measured rate verify in a day: machines x rate x 86,400 x efficiency."""
    from ullage.audit.scale import Pace, machines_needed
    from ullage.audit.scale import scale as rows_of

    pace = Pace(rate, efficiency)
    rows = rows_of(pace, _counts(machines), served)
    needed = None if served is None else machines_needed(pace, served, share)
    if as_json:
        document = {"claims": [], "rows": [asdict(row) for row in rows], "machines_needed": needed}
        typer.echo(json.dumps(document, indent=1))
        return
    for row in rows:
        typer.echo(_line(row))
    if needed is not None:
        typer.echo(f"{share:.4g} of {served:,.0f} tokens a day takes {needed:,} machines")


def _counts(machines: str) -> list[int]:
    parts = [part.strip() for part in machines.split(",")]
    if len(parts) > 100 or not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in parts):
        raise UsageError(f"--machines takes numbers with commas between them, not {machines[:80]!r}.")
    return [int(part) for part in parts]


def _line(row: ScaleRow) -> str:
    verified = f"{row.machines:>9,} machines  {row.tokens_a_day:>20,.0f} tokens a day"
    return verified if row.share is None else f"{verified}  {row.share:.4%} of what is served"
