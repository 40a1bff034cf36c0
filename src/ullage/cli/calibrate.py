"""`ullage calibrate`: fit the noise of one (server, reference) pair from honest runs, and sign it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ullage.claims import to_json
from ullage.cli.progress import meter
from ullage.errors import UsageError

if TYPE_CHECKING:
    from ullage.audit.calibration.file import Calibration
    from ullage.claims import Claim


def calibrate(
    logs: Annotated[list[Path], typer.Argument(help="Folders of logs of honest runs, made by yourself.")],
    *,
    keys: Annotated[Path, typer.Option(help="The verifier's keys, which sign the calibration.")],
    out: Annotated[Path, typer.Option(help="New file for the calibration.")],
    model: Annotated[
        Path | None, typer.Option(help="Folder of the declared model; the built-in one without.")
    ] = None,
    key: Annotated[
        list[Path] | None, typer.Option(help="The taps' public keys, one a log, in their order.")
    ] = None,
    record_keys: Annotated[
        list[Path] | None,
        typer.Option(
            help="What opens the records: files of `ullage log open`, or taps' keys; --keys without."
        ),
    ] = None,
    stack: Annotated[
        str, typer.Option(help="The server's hardware and software, in words, for the file.")
    ] = "not stated",
    days: Annotated[float, typer.Option(help="How long the calibration is valid.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")] = False,
) -> None:
    """Fit the noise between an honest server and the reference, and sign it.

    The logs are of runs that you made yourself, with a server that you started: a log that somebody else
    made calibrates to whatever they want to hide.
    """
    if out.exists():
        raise UsageError(f"{out} exists; give --out a new file, so that no calibration is lost.")
    from ullage.audit.calibration.claims import calibration_claims
    from ullage.audit.calibration.file import save_calibration
    from ullage.audit.calibration.fit import CalibrationRequest
    from ullage.audit.calibration.fit import calibrate as make
    from ullage.log.keys import load_verifier_keys
    from ullage.model.builtin import builtin_path

    signer = load_verifier_keys(keys).verdict
    request = CalibrationRequest(
        logs=tuple(logs),
        model=model or builtin_path(),
        stack=stack,
        days=days,
        log_keys=tuple(key or ()),
        record_keys=tuple(record_keys or ((keys,) if (keys / "seal.key").exists() else ())),
    )
    with meter(quiet=quiet) as progress:
        calibration = make(request, progress)
    save_calibration(out, calibration, signer)
    claims = calibration_claims(calibration)
    typer.echo(json.dumps(document(calibration, claims, out), indent=1) if as_json else text(claims, out))


def document(calibration: Calibration, claims: tuple[Claim, ...], out: Path) -> dict[str, object]:
    """What `--json` prints (`docs/audit.md`)."""
    return {
        "claims": to_json(claims),
        "calibration": str(out),
        "noise": calibration.noise,
        "fitted": calibration.fitted.model_dump(mode="json"),
        "held_out": calibration.held_out.model_dump(mode="json", exclude={"suprema"}),
        "streams": len(calibration.held_out.suprema),
        "expires": calibration.expires,
    }


def text(claims: tuple[Claim, ...], out: Path) -> str:
    """For a terminal."""
    return "\n".join([*(claim.render() for claim in claims), f"signed calibration: {out}"])
