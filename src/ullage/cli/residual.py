"""`ullage residual`: what a log's traffic let out beside its tokens."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ullage.claims import to_json, write_claims
from ullage.errors import FaultError, UsageError

if TYPE_CHECKING:
    from ullage.tap.pacing.grid import Pace
    from ullage.tap.residual.of_log import ResidualOfLog


def residual(
    log: Annotated[Path, typer.Argument(help="The log's folder.")],
    *,
    key: Annotated[Path | None, typer.Option(help="The tap's public key (log.pub).")] = None,
    keys: Annotated[Path | None, typer.Option(help="The tap's keys, to open the records.")] = None,
    record_keys: Annotated[
        Path | None, typer.Option(help="Instead of --keys: keys of all records, of `ullage log open --all`.")
    ] = None,
    slot: Annotated[str, typer.Option(help="The tap's --slot, such as 250ms; 0: it had none.")] = "0",
    slot_tokens: Annotated[int, typer.Option(help="The tap's --slot-tokens.", min=1)] = 32,
    pad_to: Annotated[int, typer.Option(help="The tap's --pad-to.", min=0)] = 0,
    late_share: Annotated[float, typer.Option(help="The tap's --late-share.", min=0, max=1)] = 0.02,
    late_burst: Annotated[int, typer.Option(help="The tap's --late-burst.", min=1)] = 256,
    late_drip: Annotated[str, typer.Option(help="The tap's --late-drip.")] = "30min",
    patience: Annotated[str, typer.Option(help="Without slots: the tap's --total-timeout.")] = "10min",
    asked: Annotated[int, typer.Option(help="Messages that clients sent, refused ones included.", min=0)] = 0,
    vocabulary: Annotated[int, typer.Option(help="Tokens that the model knows.", min=2)] = 1 << 17,
    out: Annotated[Path | None, typer.Option(help="Write the claim to this file too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Bound what length, timing, order, errors and drops of a log's answers carried together.

    Prints channel.residual in bits a message. The log tells which releases were late or failed; what the tap
    ran with is given here, as its operator says. `ullage total` adds it to the other ways out.
    """
    from ullage.log.keys import load_verifier
    from ullage.log.reader import LogReader
    from ullage.log.sealed.openers import load_opener
    from ullage.tap.pacing.ledger import Allowance
    from ullage.tap.residual.of_log import residual_of_log

    opener = load_opener(keys, record_keys)
    if opener is None:
        raise UsageError("The records are sealed: give --keys DIR of the tap, or --record-keys FILE.")
    reader = LogReader.open(log, None if key is None else load_verifier(key), opener)
    found = residual_of_log(
        reader,
        _pace(slot, slot_tokens, pad_to),
        Allowance(late_share, late_burst, _seconds("--late-drip", late_drip)),
        patience=_seconds("--patience", patience),
        asked=asked,
        vocabulary=vocabulary,
    )
    if out is not None:
        try:
            write_claims(out, [found.claim])
        except OSError as error:
            raise FaultError(f"{out} cannot be written: {error.strerror}.") from error
    text = json.dumps(_document(found), indent=1, allow_nan=False) if as_json else "\n".join(_lines(found))
    sys.stdout.write(text + "\n")


def _pace(slot: str, tokens: int, pad_to: int) -> Pace | None:
    from ullage.tap.pacing.grid import Pace

    seconds = _seconds("--slot", slot)
    return Pace(seconds, tokens, pad_to=pad_to) if seconds else None


def _seconds(option: str, text: str) -> float:
    from ullage.tap.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}.") from error


def _document(found: ResidualOfLog) -> dict[str, object]:
    document: dict[str, object] = {
        "messages": found.observed.messages,
        "releases": found.observed.opportunities,
        "exceptions": found.observed.exceptions,
        "channels": [{"name": one.name, "bits": one.bits, "because": one.because} for one in found.channels],
        "share_of_message": found.share,
        "claims": to_json([found.claim]),
    }
    if found.allowed is not None:
        document["by_allowance"] = {"bits": found.allowed.bits, "because": found.allowed.because}
    return document


def _lines(found: ResidualOfLog) -> list[str]:
    width = max(len(one.name) for one in found.channels)
    lines = [f"{one.name:<{width}}  {one.bits:8.4f} bits/message  {one.because}" for one in found.channels]
    lines += ["", found.claim.render(), f"which is {found.share:.2g} of what such a message could carry"]
    if found.allowed is not None:
        lines.append(
            f"by allowance, whatever a server does: {found.allowed.bits:.4f} bits/message "
            f"({found.allowed.because})"
        )
    return lines
