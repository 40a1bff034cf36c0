"""`ullage log`: verify, show and prove what a tap recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ullage.claims import to_json
from ullage.errors import ExitCode, UsageError
from ullage.log.claims import log_claims
from ullage.log.files import read_limited
from ullage.log.findings import LogFindings
from ullage.log.keys import load_verifier
from ullage.log.proof import MAX_PROOF_BYTES, InclusionProof
from ullage.log.record import Record
from ullage.log.signed_note import encode_base64
from ullage.log.store import LogReader

Key = Annotated[
    Path | None, typer.Option(help="The tap's public key (log.pub), from a source that you trust.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def verify(
    path: Annotated[Path, typer.Argument(help="A log's folder, or a .tlog-proof file.")],
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Check a log against its signed checkpoint.

    Ends with 0 if the whole log is signed and sound, 1 if it is not, 3 if entries at its end are not
    signed yet.
    """
    if path.is_file():
        _verify_proof(path, key, as_json)
        return
    findings = LogReader.open(path, load_verifier(key) if key else None).verify()
    claims = log_claims(findings)
    if as_json:
        document = {
            "claims": to_json(claims),
            "verdict": findings.verdict,
            "findings": [
                {
                    "code": one.code,
                    "severity": one.severity.value,
                    "sentence": one.sentence,
                    "entry": one.index,
                }
                for one in findings.findings
            ],
        }
        typer.echo(json.dumps(document, indent=1))
    else:
        for finding in findings.findings:
            typer.echo(f"{finding.severity.value}: {finding.sentence}")
        for claim in claims:
            typer.echo(claim.render())
        typer.echo(_summary(findings))
    raise typer.Exit(int(findings.exit_code))


def show(
    directory: Annotated[Path, typer.Argument(help="A log's folder.")],
    counter: Annotated[
        int | None, typer.Argument(metavar="[N]", help="One record; all, a line each, without.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print records. Nothing is verified; `ullage log verify` does that."""
    reader = LogReader.open(directory)
    if counter is not None:
        record = reader.record(counter, include_uncovered=True)
        typer.echo(json.dumps(_record_json(record), indent=None if as_json else 1))
        return
    if not as_json:
        header = reader.header
        typer.echo(f"{header.log_id}  {header.profile}  {header.dtype}  {header.model_digest}")
    for record in reader.records(include_uncovered=True):
        typer.echo(json.dumps(_record_json(record)) if as_json else _line(record))


def prove(
    directory: Annotated[Path, typer.Argument(help="A log's folder.")],
    counter: Annotated[int, typer.Argument(metavar="N", help="The record whose close is proved.")],
    key: Key = None,
    out: Annotated[Path | None, typer.Option(help="File for the proof; standard output without.")] = None,
    as_json: Json = False,
) -> None:
    """Prove that a record is in the log (C2SP tlog-proof; `ullage log verify FILE --key KEY` checks it)."""
    proof = LogReader.open(directory, load_verifier(key) if key else None).prove_record(counter)
    data = proof.to_bytes()
    if as_json:
        document = {
            "index": proof.index,
            "entry": proof.entry.decode(),
            "hashes": [encode_base64(value) for value in proof.hashes],
            "checkpoint": proof.checkpoint_note.decode(),
        }
        data = (json.dumps(document, indent=1) + "\n").encode()
    if out is None:
        typer.echo(data, nl=False)
        return
    try:
        out.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}.") from error


def _verify_proof(path: Path, key: Path | None, as_json: bool) -> None:
    if key is None:
        raise UsageError("A proof is checked with the tap's key: give --key FILE.")
    part, checkpoint = InclusionProof.parse(read_limited(path, MAX_PROOF_BYTES)).verify(load_verifier(key))
    if as_json:
        document = {"claims": [], "verdict": "pass", "origin": checkpoint.origin, "size": checkpoint.size}
        typer.echo(json.dumps(document | {"entry": part.model_dump(mode="json")}, indent=1))
    else:
        typer.echo(f"pass: the entry is one of {checkpoint.size} that {checkpoint.origin} signed")
    raise typer.Exit(int(ExitCode.PASS))


def _summary(findings: LogFindings) -> str:
    return (
        f"{findings.verdict}: {findings.covered} of {findings.entries} entries signed, "
        f"{findings.opened} records, {findings.closed} closed, {findings.aborted} of them aborted"
    )


def _line(record: Record) -> str:
    outcome = record.close.outcome if record.close else "open"
    finish = (record.close.finish_reason if record.close else None) or "-"
    lengths = f"prompt {len(record.open.prompt_ids):>6}  output {len(record.output_ids):>6}"
    return (
        f"{record.counter:>8}  {record.open.endpoint:<11}  {outcome:<15}  {finish:<8}  "
        f"{lengths}  seed {record.open.seed}"
    )


def _record_json(record: Record) -> dict[str, object]:
    return {
        "open": record.open.model_dump(mode="json"),
        "chunks": [chunk.model_dump(mode="json") for chunk in record.chunks],
        "close": record.close.model_dump(mode="json") if record.close else None,
    }
