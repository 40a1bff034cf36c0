"""Run an audit in a sealed process, take one outcome out of it, and sign the verdict outside."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ullage.claims import Bound, Claim, Evidence, Trust
from ullage.errors import FaultError, UsageError
from ullage.log.keys import load_verifier, load_verifier_keys
from ullage.log.reader import LogReader
from ullage.sealed.verdict import BITS, SealedVerdict, read_outcome

# What the sealed process may see of our environment: nothing in it is a secret.
_KEPT: Final = ("PATH", "PYTHONPATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "LANG", "VIRTUAL_ENV")


@dataclass(frozen=True)
class SealedRequest:
    """What to audit. Everything here is agreed on beforehand: its digest is in the verdict."""

    log: Path
    model: Path
    keys: Path
    """The verifier's."""
    sample: int | None = None
    dtype: str | None = None
    log_key: Path | None = None
    record_keys: Path | None = None
    release_after: float | None = None
    """Seconds from the start to the moment at which the verdict, or its absence, is shown; None: at once."""


@dataclass(frozen=True)
class SealedResult:
    """The verdict, its bytes, and the claim on what they can tell."""

    verdict: SealedVerdict
    data: bytes
    claims: tuple[Claim, ...]


def audit_sealed(request: SealedRequest) -> SealedResult:
    """Raises UsageError when log, model and keys do not go together, or a process cannot be sealed here;
    FaultError when no verdict came (also: not in time)."""
    began = time.monotonic()
    reader = LogReader.open(request.log, load_verifier(request.log_key) if request.log_key else None)
    findings = reader.verify()
    if findings.checkpoint is None or findings.header is None:
        raise UsageError("The log has no signed root, so there is nothing that a verdict could be about.")
    keys = load_verifier_keys(request.keys)
    asked: dict[str, Any] = {
        "sample": request.sample,
        "dtype": request.dtype,
        "root": findings.checkpoint.root.hex(),
        "tree_size": findings.checkpoint.size,
        # As the log declares it: the weights themselves are read inside, and checked against this.
        "model_digest": findings.header.model_digest.removeprefix("sha256:"),
    }
    asked["digest"] = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    paths = {
        name: str(path.absolute()) if (path := getattr(request, name)) else None
        for name in ("log", "model", "keys", "log_key", "record_keys")
    }
    deadline = None if request.release_after is None else began + request.release_after
    outcome = read_outcome(_run(asked | paths, deadline))
    if deadline is not None:
        time.sleep(max(0.0, deadline - time.monotonic()))
    if outcome is None:
        raise FaultError(
            "The sealed audit gave no verdict: it failed, was not ready in time, or the log grew meanwhile."
        )
    verdict = SealedVerdict(
        outcome,
        findings.checkpoint.size,
        findings.checkpoint.root,
        bytes.fromhex(asked["model_digest"]),
        bytes.fromhex(asked["digest"]),
    )
    data = verdict.sign(keys.verdict.seed)
    return SealedResult(verdict, data, (channel_claim(request, asked["model_digest"]),))


def _run(request: dict[str, Any], deadline: float | None) -> bytes:
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ullage.sealed.child", str(writing)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(writing,),
            cwd="/",
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
        )
    finally:
        os.close(writing)
    with process, os.fdopen(reading, "rb") as pipe:
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        process.stdin.write(json.dumps(request).encode())
        process.stdin.close()
        try:
            process.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            return b""
        return pipe.read(2)


def channel_claim(request: SealedRequest, model: str) -> Claim:
    """`verdict.bits`: what a sealed audit can tell whoever reads its verdict."""
    timed = request.release_after is not None
    return Claim(
        name="verdict.bits",
        value=BITS if timed else None,
        unit="bits a verdict",
        bound=Bound.UPPER,
        confidence=None,
        evidence=Evidence.PROVEN if timed else Evidence.NOT_COVERED,
        assumptions=(
            "The audit runs in a process without network, capabilities, sockets or files to write, of which "
            "one byte is read; the kernel keeps to that.",
            "Root, model and request are fixed before, and the verdict is made outside that process.",
            "The verdict is shown at the agreed time, or never."
            if timed
            else "Without --release-after the time at which it ends tells more than the verdict.",
            "Heat, power, and what others on this machine see of the process (its load, its memory, which "
            "files it reads) are not covered.",
        ),
        trusts=(Trust.VERIFIER,),
        subject=f"sha256:{model}",
        method="sealed process, verdict of 256 bytes, v1",
    )
