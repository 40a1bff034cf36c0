"""`ullage log verify` and `ullage log prove`: what a stranger does with a log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ullage.claims import to_json
from ullage.cli.log.source import From, Json, Key, PolicyFile, choose_policy, log_source
from ullage.cli.progress import Quiet, meter
from ullage.errors import ExitCode, IntegrityError, UsageError
from ullage.log.claims import log_claims
from ullage.log.files import read_limited
from ullage.log.findings import Finding, LogFindings
from ullage.log.journal.publisher import PUBLIC_KEY
from ullage.log.notes.policy import Policy
from ullage.log.notes.signed_note import MAX_NOTE_BYTES, encode_base64
from ullage.log.sealed.openers import load_opener
from ullage.log.store import LogReader
from ullage.log.tree.growth import MAX_EVIDENCE_BYTES, Equivocation, GrowthFindings, verify_growth
from ullage.log.tree.proof import MAX_PROOF_BYTES, InclusionProof
from ullage.log.tree.prover import Prover
from ullage.log.verdicts import digest_of, expect_verdicts, read_envelope
from ullage.log.verify import CHECKPOINT, COSIGNED, verify_log
from ullage.terminal import plain_line


def verify(
    location: Annotated[
        str,
        typer.Argument(
            metavar="URL|DIR|FILE", help="A log's URL or folder, a .tlog-proof, or an .equivocation file."
        ),
    ],
    *,
    key: Key = None,
    policy: PolicyFile = None,
    earlier: From = None,
    evidence: Annotated[
        Path | None, typer.Option(help="With --from: folder for evidence if the log forked.")
    ] = None,
    record_keys: Annotated[
        Path | None,
        typer.Option(
            help="Open the records too and hold them against their commitments: a file of `ullage log open`, "
            "or the tap's keys. For a log's folder."
        ),
    ] = None,
    verdict: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE|BUNDLE", help="A verdict that the log has to note; give it for each."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a log against its signed checkpoint, entry by entry.

    Ends with 0 if the whole log is signed and sound, 1 if it is not, 3 if entries at its end are not
    signed, or not witnessed, yet. With --from only the signature and the growth since an earlier
    checkpoint are checked; that takes a few kilobytes of any log.
    """
    opener = load_opener(None, record_keys)
    noted = [digest_of(read_envelope(path)) for path in verdict or []]
    if (opener or noted) and (earlier or Path(location).is_file()):
        raise UsageError(
            "--record-keys and --verdict are for a whole log: leave out --from, give its folder."
        )
    if opener is not None and (policy is not None or not Path(location).is_dir()):
        raise UsageError("Records lie beside a log in its folder: give that and --key with --record-keys.")
    if Path(location).is_file():
        _verify_file(Path(location), choose_policy(key, policy), as_json)
        return
    source = log_source(location)
    folder = Path(location)
    if key is None and policy is None and folder.is_dir() and not (folder / PUBLIC_KEY).exists():
        # A finding: no log, or nobody vouches for it.
        _report(LogReader.open(folder).verify(), as_json)
    rule = choose_policy(key, policy, source)
    if earlier:
        notes = tuple(read_limited(file, MAX_NOTE_BYTES) for file in earlier)
        _report_growth(verify_growth(source, rule, notes), evidence, as_json)
    elif policy is None and Path(location).is_dir():
        reader = LogReader.open(Path(location), rule.logs[0].key if key else None, opener)
        with meter(quiet=quiet) as progress:
            found = reader.verify(progress)
        _report(expect_verdicts(found, noted), as_json)
    else:
        with meter(quiet=quiet) as progress:
            found = verify_log(
                source,
                rule,
                self_vouched=key is None and policy is None,
                progress=lambda *step: progress("verifying the log", *step),
            )
        _report(expect_verdicts(found, noted), as_json)


def prove(
    location: Annotated[str, typer.Argument(metavar="URL|DIR", help="A log's URL or folder.")],
    counter: Annotated[int, typer.Argument(metavar="N", help="The record whose close is proved.")],
    *,
    key: Key = None,
    policy: PolicyFile = None,
    out: Annotated[Path | None, typer.Option(help="File for the proof; standard output without.")] = None,
    as_json: Json = False,
) -> None:
    """Prove that a record is in the log (C2SP tlog-proof; `ullage log verify FILE --key KEY` checks it).

    With --policy the proof is under a checkpoint that has the cosignatures which the policy needs.
    """
    source = log_source(location)
    rule = choose_policy(key, policy, source)
    for name in (CHECKPOINT, COSIGNED):
        note = source.read(name, MAX_NOTE_BYTES)
        if note is None:
            continue
        opened = rule.open(note)
        if rule.is_quorum(one.witness for one in opened.cosignatures):
            _write_proof(Prover(source, opened.checkpoint, note).record(counter), out, as_json)
            return
    raise UsageError(f"{location} has no checkpoint with the signatures that are asked for.")


def _write_proof(proof: InclusionProof, out: Path | None, as_json: bool) -> None:
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


def _verify_file(path: Path, policy: Policy, as_json: bool) -> None:
    data = read_limited(path, max(MAX_PROOF_BYTES, MAX_EVIDENCE_BYTES))
    if data.lstrip().startswith(b"{"):
        _verify_evidence(Equivocation.parse(data), policy, as_json)
    entry, opened = InclusionProof.parse(data).verify(policy)
    checkpoint = opened.checkpoint
    witnesses = [one.witness.name for one in opened.cosignatures]
    if as_json:
        document: dict[str, object] = {"claims": [], "verdict": "pass", "origin": checkpoint.origin}
        document |= {"size": checkpoint.size, "witnesses": witnesses, "entry": _entry_json(entry)}
        typer.echo(json.dumps(document, indent=1))
    else:
        seen = f", witnessed by {', '.join(witnesses)}" if witnesses else ""
        typer.echo(f"pass: the entry is one of {checkpoint.size} that {checkpoint.origin} signed{seen}")
    raise typer.Exit(int(ExitCode.PASS))


def _verify_evidence(evidence: Equivocation, policy: Policy, as_json: bool) -> None:
    """Evidence that holds is a failed log; evidence that does not says nothing about it."""
    try:
        earlier, later = evidence.verify(policy)
    except IntegrityError as error:
        _echo_verdict("cannot-tell", f"the file convicts nobody: {error}", as_json)
        raise typer.Exit(int(ExitCode.CANNOT_TELL)) from error
    sentence = (
        f"{later.origin} signed two histories: its first {earlier.size} entries under the checkpoint of "
        f"{later.size} are not those that it had signed before"
    )
    _echo_verdict("fail", sentence, as_json)
    raise typer.Exit(int(ExitCode.FAIL))


def _echo_verdict(verdict: str, sentence: str, as_json: bool) -> None:
    document = {"claims": [], "verdict": verdict, "sentence": sentence}
    typer.echo(json.dumps(document, indent=1) if as_json else f"{verdict}: {sentence}")


def _report(findings: LogFindings, as_json: bool) -> None:
    claims = log_claims(findings)
    if as_json:
        document = {"claims": to_json(claims), "verdict": findings.verdict, "witnessed": findings.witnessed}
        document |= {"findings": _findings_json(findings.findings), "unread": findings.unread}
        document |= {"verdicts": [{"entry": index, "digest": digest} for index, digest in findings.verdicts]}
        typer.echo(json.dumps(document, indent=1))
    else:
        _echo_findings(findings.findings)
        for claim in claims:
            typer.echo(claim.render())
        for index, digest in findings.verdicts:
            typer.echo(f"verdict noted in entry {index}: {digest}")
        typer.echo(_summary(findings))
    raise typer.Exit(int(findings.exit_code))


def _report_growth(growth: GrowthFindings, folder: Path | None, as_json: bool) -> None:
    findings = growth.findings
    files = [] if folder is None else [_keep(folder, one) for one in growth.evidence]
    if as_json:
        document = {"claims": [], "verdict": findings.verdict, "findings": _findings_json(findings.findings)}
        typer.echo(json.dumps(document | {"evidence": list(map(str, files))}, indent=1))
    else:
        _echo_findings(findings.findings)
        for file in files:
            typer.echo(f"evidence: {file}")
        size = findings.checkpoint.size if findings.checkpoint else 0
        does = "extends" if findings.integrity else "does not extend"
        typer.echo(f"{findings.verdict}: the log of {size} entries {does} what it signed before")
    raise typer.Exit(int(findings.exit_code))


def _keep(folder: Path, evidence: Equivocation) -> Path:
    data = evidence.to_bytes()
    path = folder / evidence.file_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from error
    return path


def _findings_json(findings: tuple[Finding, ...]) -> list[dict[str, object]]:
    return [
        {"code": one.code, "severity": one.severity.value, "sentence": one.sentence, "entry": one.index}
        for one in findings
    ]


def _echo_findings(findings: tuple[Finding, ...]) -> None:
    for finding in findings:
        typer.echo(plain_line(f"{finding.severity.value}: {finding.sentence}"))


def _entry_json(entry: object) -> object:
    from pydantic import BaseModel

    if isinstance(entry, BaseModel):
        return entry.model_dump(mode="json")
    return entry._asdict() if hasattr(entry, "_asdict") else str(entry)


def _summary(findings: LogFindings) -> str:
    seen = f", {findings.witnessed} witnessed" if findings.witnessed else ""
    return (
        f"{findings.verdict}: {findings.covered} of {findings.entries} entries signed{seen}, "
        f"{findings.opened} records, {findings.closed} closed, {findings.aborted} of them aborted"
    )
