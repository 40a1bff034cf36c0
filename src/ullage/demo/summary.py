"""From the demo's outcomes to its page, its JSON and its lines on the terminal."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ullage.audit.bounds.statistics import clopper_pearson
from ullage.audit.verdict import limit_for
from ullage.claims import Claim, merge, to_json, write_claims
from ullage.demo.evidence import AuditEvidence
from ullage.demo.scenarios import SCENARIOS
from ullage.demo.story import Folder, Outcome
from ullage.log.reader import LogReader
from ullage.log.sealed.openers import load_opener
from ullage.log.tree.tiles import bundle_at
from ullage.model.builtin import model_name
from ullage.model.identity import identify
from ullage.model.tokenizer import ModelTokenizer
from ullage.redteam.adversary import Recovery
from ullage.redteam.servers.framing import correct_bytes
from ullage.report.demo_page import DemoPage, RecoveredPayload, ServerRow, render
from ullage.terminal import plain_line

_EXCERPT = 700
_NOT_COVERED = (
    "Payloads that the prompt itself asks for (“repeat this”): every answer is then the reference's own.",
    "Bits in the length, timing and order of answers, in errors and refusals: `ullage residual` counts them.",
    "How many bits deviations carry: a passing rate says that they are rare; `ullage calibrate` makes what "
    "bounds them.",
    "Weights rounded to 8 bits: their mismatch rate lies within what honest bfloat16 shows.",
    "Traffic that does not pass the tap, memory and idle compute: see `ullage wire`, `memory` and `work`.",
    "Side channels of power and radio, and a declared model that is itself backdoored.",
)


@dataclass(frozen=True)
class DemoResult:
    """All that the demo found out."""

    rows: tuple[ServerRow, ...]
    payload: RecoveredPayload | None
    claims: tuple[Claim, ...]
    seconds: float

    @property
    def verdicts(self) -> dict[str, str]:
        return {row.name: row.verdict for row in self.rows}

    @property
    def as_expected(self) -> bool:
        """Honest servers pass and cheating ones fail."""
        return self.verdicts == {scenario.name: scenario.expected for scenario in SCENARIOS}


def server_row(folder: Folder, outcome: Outcome, tokenizer: ModelTokenizer, leaked_bits: int) -> ServerRow:
    """One server's row, from its bundle and its log."""
    scenario = outcome.scenario
    evidence = AuditEvidence.read(folder.audit(scenario.name))
    rate = clopper_pearson(int(evidence.mismatch.sum()), len(evidence.token), 0.95)
    limit = limit_for(scenario.declared_dtype)
    number = evidence.typical_record()
    message = None
    if number is not None:
        opener = load_opener(None, folder.record_keys(scenario.name))
        record = LogReader.open(folder.log(scenario.name), opener=opener).record(number)
        message = evidence.message(record, number, tokenizer)
    verdict = str(outcome.audit["verdict"])
    return ServerRow(
        name=scenario.name,
        story=scenario.story,
        declared=scenario.declared_dtype,
        verdict=verdict,
        reasons=tuple(outcome.audit["reasons"]),
        audited_tokens=rate.tokens,
        audited_records=len(set(evidence.record.tolist())),
        mismatches=rate.mismatches,
        rate=rate.value,
        low=rate.low,
        high=rate.high,
        limit=limit,
        noticed_after=evidence.noticed_after(limit) if verdict == "fail" else None,
        leaked_bits=leaked_bits,
        message=message,
        claims=tuple(Claim.model_validate(claim) for claim in outcome.audit["claims"]),
    )


def describe_payload(payload: bytes, recovery: Recovery, noticed_after: int | None) -> RecoveredPayload:
    """How much of the payload arrived, and how much of it before the server was noticed."""
    recovered = correct_bytes(recovery.file, payload)
    before = int((noticed_after or 0) * recovery.bits_per_token / 8)
    shown = recovery.file.data[:_EXCERPT].decode("latin-1")
    return RecoveredPayload(
        attempted_bytes=len(payload),
        recovered_bytes=recovered,
        bits_per_token=recovery.bits_per_token,
        noticed_after=noticed_after,
        bytes_before_notice=before,
        excerpt=plain_line(shown),
    )


def _command() -> str:
    """What starts this program from here: not always on the path, as in `make demo`."""
    given = Path(sys.argv[0])
    if given.name != "ullage" or shutil.which("ullage") is not None:
        return "ullage"
    here = Path.cwd()
    return str(given.absolute().relative_to(here) if given.absolute().is_relative_to(here) else given)


def next_commands(folder: Folder) -> tuple[tuple[str, str], ...]:
    """Commands to try next on what the demo left, each with what it shows, as this shell finds them."""
    ullage = _command()
    log = folder.log("int4")
    bundle = log / bundle_at(0, LogReader.open(log).checkpoint.size).path
    opened = folder.record_keys("int4")
    key, keys = folder.tap_keys("int4") / "log.pub", folder.verifier_keys
    flip = "f=open(p,'r+b');f.seek(500);b=f.read(1)[0];f.seek(500);f.write(bytes([b^1]))"
    return (
        (
            "Audit 40 records of one log",
            f"{ullage} audit {log} --key {key} --keys {keys} --record-keys {opened} --sample 40",
        ),
        (
            "Flip a byte of a log and verify it",
            f"python3 -c \"p='{bundle}';{flip}\" && {ullage} log verify {log} --key {key}",
        ),
        (
            "Put the tap before your own server (WEIGHTS is its model's folder)",
            f"{ullage} keys init my-keys --role tap && {ullage} tap --upstream http://127.0.0.1:8000 "
            "--model WEIGHTS --keys my-keys --log my-log --listen 127.0.0.1:8080",
        ),
    )


def write_result(folder: Folder, model: Path, result: DemoResult) -> Path:
    """Write `claims.json` and `report.html`; returns the page's path."""
    write_claims(folder.root / "claims.json", result.claims)
    page = DemoPage(
        title="Five servers, three of them lying",
        model=model_name(model),
        model_digest=identify(model).digest,
        created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        seconds=result.seconds,
        machine=f"{os.cpu_count()} core{'s' * (os.cpu_count() != 1)}",
        rows=result.rows,
        payload=result.payload,
        not_covered=_NOT_COVERED,
        next_commands=next_commands(folder),
    )
    path = folder.root / "report.html"
    path.write_text(render(page), "utf-8")
    return path


def as_json(result: DemoResult) -> str:
    """Verdicts and claims as `ullage demo --json` prints them."""
    value: dict[str, Any] = {"verdicts": result.verdicts, "claims": to_json(result.claims)}
    return json.dumps(value, indent=1)


def all_claims(rows: tuple[ServerRow, ...]) -> tuple[Claim, ...]:
    """Every claim of the demo's audits."""
    return merge(row.claims for row in rows)


def terminal_lines(result: DemoResult) -> list[str]:
    """One line a server: `server  verdict  mismatches [95 %]  bits leaked  noticed after`."""
    head = ("server", "verdict", "mismatches [95 %]", "bits leaked", "noticed after")
    table = [head, *(_terminal_cells(row) for row in result.rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]


def _terminal_cells(row: ServerRow) -> tuple[str, str, str, str, str]:
    return (
        row.name,
        row.verdict,
        f"{100 * row.rate:.3f} % [{100 * row.low:.3f}, {100 * row.high:.3f}]",
        f"{row.leaked_bits:,}" if row.leaked_bits else "-",
        f"{row.noticed_after:,} tokens" if row.noticed_after else "-",
    )
