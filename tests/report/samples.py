"""Claims, documents and bundles for the report's tests: the files that commands write, made small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ullage.audit.bundle.envelope import Declaration, Predicate, Rule, Sample, Statement, seal, subject_of
from ullage.audit.bundle.evidence import RECORDS_SCHEMA, TOKENS_SCHEMA
from ullage.audit.verdict import Outcome
from ullage.claims import Bound, Claim, Evidence, Trust, digest_of, to_json, write_claims
from ullage.log.notes.signed_note import NoteSigner

DIGEST = "sha256:" + "ab" * 32
VOCABULARY = 4096
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


def claim(name: str, value: float | None, bound: Bound = Bound.UPPER, **changes: Any) -> Claim:
    """A claim of this name; without a value it covers nothing."""
    fields: dict[str, Any] = {
        "name": name,
        "value": value,
        "unit": "share",
        "bound": bound,
        "confidence": None if value is None else 0.99,
        "evidence": Evidence.NOT_COVERED if value is None else Evidence.PROVEN,
        "assumptions": ("the weather holds",),
        "trusts": (Trust.TAP, Trust.VERIFIER),
        "method": "test/1",
        "sample": "10 of 10",
    }
    return Claim(**{**fields, **changes})


def four_claims() -> list[Claim]:
    """One for each fraction: two within their bars, one above, one that an inspector may not rest on."""
    return [
        claim("token.covert_fraction", 3e-5),
        claim("wire.unexplained_fraction", 0.0, evidence=Evidence.MEASURED, confidence=None),
        claim("memory.resident_fraction", 0.91, Bound.LOWER),
        claim("compute.accounted_fraction", 0.97, Bound.LOWER, trusts=(Trust.PROVER_INVENTORY,)),
    ]


def write_document(path: Path, claims: list[Claim], **more: Any) -> Path:
    """What a command prints with `--json`."""
    path.write_text(json.dumps({"claims": to_json(claims), **more}), "utf-8")
    return path


def red_team() -> dict[str, Any]:
    """A table with one adversary of each kind of row, one of which broke its bound."""
    token = {
        "name": "near-tie", "mode": "audit", "leaked_bits_per_token": 0.4, "bound_bits_per_token": 0.5,
        "tokens_to_detection": {"median": 20.0, "p95": 40.0}, "remark": "",
    }  # fmt: skip
    worse = {
        **token,
        "name": "breaker",
        "leaked_bits_per_token": 0.6,
        "tokens_to_detection": {"median": None},
    }
    return {"adversaries": [token, worse]}


def wire_account() -> dict[str, Any]:
    """What a meter prints about a link with 6 unexplained bytes."""
    return {
        "bytes": {"total": 1000, "record": 700, "overhead": 284, "heartbeat": 10, "unexplained": 6},
        "unexplained_by_reason": {"trailing bytes": 6},
        "capture": {"lost_frames": 0},
    }


def cycles() -> dict[str, Any]:
    """What three wipes print."""
    phases = {"stop": 0.5, "erase": 2.0, "challenge": 1.0, "reload": 1.5, "total": 5.0}
    return {"cycles": [{"phases": phases, "verdict": "pass"}] * 3}


def write_bundle(
    folder: Path,
    messages: int,
    tokens: int,
    *,
    rate: float = 0.01,
    text: str = "",
    model: str = DIGEST,
    log_e: np.ndarray[tuple[int], np.dtype[np.float64]] | None = None,
) -> NoteSigner:
    """An evidence bundle of so many messages of so many tokens each; the signer of its verdict."""
    random = np.random.default_rng(messages)
    count = messages * tokens
    token = (random.zipf(1.3, count) % VOCABULARY).astype(np.uint32)
    mismatch = random.random(count) < rate
    reference = np.where(mismatch, (token + 1 + random.integers(0, 50, count)) % VOCABULARY, token)
    margin = np.where(mismatch, random.exponential(0.4, count), 0.0)
    outside = mismatch & (random.random(count) < 0.02)
    columns = {
        "record": np.repeat(np.arange(messages, dtype=np.uint64), tokens),
        "position": np.tile(np.arange(tokens, dtype=np.uint32), messages),
        "token": token,
        "reference": reference.astype(np.uint32),
        "margin": pa.array(margin, pa.float64(), mask=outside),
        "outside": outside,
        "rank": mismatch.astype(np.uint32),
        "admissible_count": (1 + (random.random(count) < 0.03)).astype(np.uint32),
        "codelength": np.where(mismatch, 5.0, 0.001),
        "entropy": pa.nulls(count, pa.float32()),
        "log_e": pa.nulls(count, pa.float64()) if log_e is None else log_e,
    }
    (folder / "evidence").mkdir(parents=True)
    pq.write_table(pa.table(columns, TOKENS_SCHEMA), folder / "evidence" / "audit.parquet")
    record = {
        "counter": 0, "endpoint": "chat", "prompt_tokens": 3, "output_tokens": tokens, "mismatches": 0,
        "largest_margin": None, "outcome": text or "complete", "text": text,
    }  # fmt: skip
    rows = [{"record": number, **record} for number in range(messages)]
    pq.write_table(pa.Table.from_pylist(rows, RECORDS_SCHEMA), folder / "evidence" / "records.parquet")
    claims = [claim("token.mismatch_rate", rate)]
    write_claims(folder / "claims.json", claims)
    signer = NoteSigner("ullage.invalid/verifier", b"v" * 32)
    (folder / "verdict.dsse.json").write_bytes(
        seal(_statement(folder, claims, (messages, count), text, model), signer)
    )
    return signer


def _statement(folder: Path, claims: list[Claim], sizes: tuple[int, int], text: str, model: str) -> Statement:
    from ullage.audit.bundle.folder import RECORDS, TOKENS, file_digest

    messages, tokens = sizes
    return Statement(
        subject=(subject_of("log", DIGEST), subject_of("model", model)),
        predicate=Predicate(
            verdict=Outcome.PASS,
            reasons=(f"{tokens} audited tokens are fine {text}",),
            rule=Rule(limit=0.02, confidence=0.99),
            declaration=Declaration(log_id="ullage.invalid/log", model=model, profile="murmur3-gumbel/f64",
                                    dtype="bfloat16"),
            reference={},
            sample=Sample(scheme="all", population=messages, records=messages, tokens=tokens, tree_size=3),
            claims=digest_of(claims),
            evidence={name: file_digest(folder / name) for name in (TOKENS, RECORDS)},
            software={},
            created="1795269954000000000",
        ),
    )  # fmt: skip
