"""`ullage fingerprint`: activation fingerprints of a cooperating prover."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ullage.cli.progress import Quiet, meter
from ullage.errors import UsageError

if TYPE_CHECKING:
    from ullage.fingerprint.check import Checked, Transcript

Prover = Annotated[
    str, typer.Argument(help="Where the prover answers verifiers, e.g. http://127.0.0.1:8500.")
]
Model = Annotated[Path | None, typer.Option(help="Folder of the declared model.", show_default="built-in")]
Dtype = Annotated[str, typer.Option(help="Declared precision of arithmetic: float32 or bfloat16.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def calibrate(
    prover: Prover,
    *,
    server: Annotated[str, typer.Option(help="The same server's API. It is your own, and honest.")],
    out: Annotated[Path, typer.Option(help="New file for the tolerance.")],
    model: Model = None,
    dtype: Dtype = "float32",
    answers: Annotated[int, typer.Option(min=20, max=100_000, help="To calibrate on.")] = 100,
    max_tokens: Annotated[int, typer.Option(min=1, max=4096, help="Of one answer.")] = 48,
    temperature: Annotated[float, typer.Option(help="To ask for.")] = 1.0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure how far the states of an honest server of yours lie from the reference's.

    Asks the server, has every state opened, and writes the tolerance that `check` takes.
    """
    import secrets

    from ullage.fingerprint.calibrate import CalibrationPlan
    from ullage.fingerprint.calibrate import calibrate as measure
    from ullage.fingerprint.tolerance import save_tolerance
    from ullage.model.builtin import builtin_path
    from ullage.model.settings import check_precision

    check_precision(dtype)
    if out.exists():
        raise UsageError(f"{out} exists; give --out a new file.")
    plan = CalibrationPlan(
        server, prover, model or builtin_path(), "float32" if dtype == "float32" else "bfloat16",
        secrets.token_hex(16), answers, max_tokens, temperature,
    )  # fmt: skip
    with meter(quiet=quiet) as progress:
        tolerance = measure(plan, progress)
    save_tolerance(out, tolerance)
    said = (
        f"tolerance {tolerance.rms:.4g} (root mean square distance of the noisiest sessions), "
        f"{tolerance.tokens} tokens in {tolerance.sessions} sessions: {out}"
    )
    typer.echo(json.dumps({"claims": [], "tolerance": tolerance.to_dict()}) if as_json else said)


def collect(
    prover: Prover, *, out: Annotated[Path, typer.Option(help="New file, one commitment a line.")]
) -> None:
    """Take down a prover's commitments, so that it can no longer change them."""
    from ullage.fingerprint.client import FingerprintClient
    from ullage.log.files import write_new

    if out.exists():
        raise UsageError(f"{out} exists; give --out a new file.")
    with FingerprintClient(prover) as client:
        found = client.commitments()
    write_new(out, b"".join(one.model_dump_json().encode() + b"\n" for one in found), 0o644)
    typer.echo(f"{len(found)} commitments: {out}")


def check(
    prover: Prover,
    log: Annotated[Path, typer.Argument(help="The tap's log of the same server.")],
    *,
    tolerance: Annotated[Path, typer.Option(help="From `ullage fingerprint calibrate`.")],
    model: Model = None,
    commitments: Annotated[
        Path | None, typer.Option(help="From `ullage fingerprint collect`; taken down now without.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="The tap's public key.")] = None,
    record_keys: Annotated[
        Path | None,
        typer.Option(help="What opens the records: a file of `ullage log open`, or the tap's keys."),
    ] = None,
    sample: Annotated[str, typer.Option(help="How many records, drawn at random, or 'all'.")] = "100",
    coordinates: Annotated[int, typer.Option("--bytes", min=1, max=4, help="Bytes a token.")] = 1,
    openings: Annotated[int, typer.Option("--open", min=0, max=64, help="States opened of each answer.")] = 2,
    alpha: Annotated[float, typer.Option(help="False alarms, at most.")] = 1e-3,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Hold a prover's committed states against the reference's, along directions drawn now.

    Ends with 0 for pass, 1 when the states are not the declared model's or not the committed ones, 3 for
    cannot-tell. It says nothing about how tokens were drawn from the states: that is `ullage audit`.
    """
    from ullage.claims import to_json
    from ullage.fingerprint.check import Terms, check_tolerance, read_collected
    from ullage.fingerprint.check import check as challenge
    from ullage.fingerprint.client import FingerprintClient
    from ullage.fingerprint.fingerprint_claims import fingerprint_claims
    from ullage.fingerprint.tolerance import load_tolerance
    from ullage.model.builtin import builtin_path

    if not 0 < alpha < 1:
        raise UsageError("--alpha lies between 0 and 1.")
    if sample != "all" and not (sample.isascii() and sample.isdigit() and int(sample) > 0):
        raise UsageError("--sample is a number of records, or all.")
    terms = Terms(load_tolerance(tolerance), coordinates, openings, alpha)
    earlier = None if commitments is None else read_collected(commitments)
    folder = model or builtin_path()
    drawn = _drawn(log, key, record_keys, folder, None if sample == "all" else int(sample))

    from ullage.model.reference import Reference

    reference = Reference.load(folder, "float32" if terms.tolerance.dtype == "float32" else "bfloat16")
    check_tolerance(terms.tolerance, reference)
    with (
        meter(quiet=quiet) as progress,
        FingerprintClient(prover) as client,
    ):
        result = challenge(client, reference, drawn, terms, earlier=earlier, progress=progress)
    claims = fingerprint_claims(result, reference.identity.digest)
    if as_json:
        typer.echo(json.dumps({"claims": to_json(claims), **_document(result)}, indent=1))
    else:
        typer.echo("\n".join([*(claim.render() for claim in claims), _sentence(result)]))
    raise typer.Exit(int(result.outcome.exit_code))


def _drawn(
    log: Path, key: Path | None, record_keys: Path | None, model: Path, size: int | None
) -> list[Transcript]:
    """Answers of a log that verifies, drawn with the system's randomness."""
    import secrets

    from ullage.audit.examination import check_model
    from ullage.errors import IntegrityError
    from ullage.fingerprint.check import Transcript
    from ullage.log.keys import load_verifier
    from ullage.log.reader import SELF_VOUCHED, LogReader
    from ullage.log.sealed.openers import load_opener

    reader = LogReader.open(log, load_verifier(key) if key else None, load_opener(None, record_keys))
    if key is None:
        typer.echo(f"note: {SELF_VOUCHED}", err=True)
    found = reader.verify()
    if not found.integrity:
        raise IntegrityError(f"{log} does not verify; `ullage log verify` says why.")
    check_model(model, reader.header.model_digest)
    answers = [
        Transcript(record.counter, record.open.seed, record.open.prompt_ids, record.output_ids)
        for record in reader.records()
        if record.output_ids
    ]
    if size is None or size >= len(answers):
        return answers
    return secrets.SystemRandom().sample(answers, size)


def _document(result: Checked) -> dict[str, object]:
    detectable = result.detectable
    return {
        "verdict": result.outcome.value,
        "faults": {str(counter): fault.value for counter, fault in result.faults.items()},
        "tokens": result.evidence.tokens,
        "crossed_at": result.evidence.crossed_at or None,
        "detectable": detectable if detectable < float("inf") else None,
    }


def _sentence(result: Checked) -> str:
    evidence, factor = result.evidence, result.detectable
    faults = sorted({fault.value for fault in result.faults.values()})
    named = f" {len(result.faults)} of {result.drawn} records: {', '.join(faults)}." if faults else ""
    if evidence.crossed_at:
        return (
            f"{result.outcome.value}: after {evidence.crossed_at} tokens the states were farther from the "
            f"reference's than honest ones (false alarms at most {result.terms.alpha:g}).{named}"
        )
    return (
        f"{result.outcome.value}: {evidence.tokens} tokens; a server {factor:.2g} times as far away as is "
        f"tolerated would have been noticed.{named}"
    )
