"""`log.integrity` and `log.coverage` from what `LogReader.verify` found."""

from __future__ import annotations

from ullage.claims import TRUTH, Bound, Claim, Evidence, Trust, Window
from ullage.log.findings import LogFindings, Severity

METHOD = "log-verify/1"
_SELF_VOUCHED = "the key that was found beside the log is the tap's: the log vouches for itself"


def log_claims(findings: LogFindings) -> tuple[Claim, Claim]:
    """The two claims about a log: is it whole, and does every request have a closed record in it."""
    return _integrity(findings), _coverage(findings)


def _integrity(findings: LogFindings) -> Claim:
    failed = [one.sentence for one in findings.findings if one.severity is Severity.FAIL]
    assumptions = [
        "SHA-256 has no known collisions and Ed25519 signatures cannot be forged",
        *_one_history(findings),
    ]
    if findings.self_vouched:
        assumptions.append(_SELF_VOUCHED)
    uncovered = findings.entries - findings.covered
    if findings.integrity and uncovered:
        assumptions.append(
            f"said of the {findings.covered} signed entries, not of the {uncovered} after them"
        )
    return Claim(
        name="log.integrity",
        value=float(findings.integrity),
        unit=TRUTH,
        bound=Bound.LOWER,
        evidence=Evidence.PROVEN,
        assumptions=tuple(assumptions),
        trusts=(Trust.TAP,),
        subject=_subject(findings),
        window=_window(findings),
        method=METHOD,
        sample=failed[0] if failed else f"all {findings.covered} signed entries",
        inputs=_inputs(findings),
    )


def _one_history(findings: LogFindings) -> list[str]:
    """That nobody else is shown another log: from witnesses as far as they saw, else from the tap's key."""
    assumptions = []
    if findings.witnessed:
        names = ", ".join(cosignature.witness.name for cosignature in findings.cosignatures)
        assumptions.append(
            f"of the witnesses that cosigned {findings.witnessed} entries ({names}), as many are honest as "
            "the policy counts on"
        )
    if findings.witnessed < findings.covered:
        which = f"the {findings.covered - findings.witnessed} last entries" if findings.witnessed else "it"
        assumptions.append(
            f"the log key is known to the tap alone, and it signed one history (no witness confirms {which})"
        )
    return assumptions


def _coverage(findings: LogFindings) -> Claim:
    known = bool(findings.integrity and findings.opened)
    assumptions = [
        "the tap takes a counter for every request that enters it, before anything is forwarded; a tap that "
        "writes nothing about a request is not found by its log",
        "there is no other way to the server than through the tap",
    ]
    if findings.self_vouched:
        assumptions.append(_SELF_VOUCHED)
    return Claim(
        name="log.coverage",
        value=findings.closed / findings.opened if known else None,
        unit="share of requests",
        bound=Bound.LOWER,
        evidence=Evidence.PROVEN if known else Evidence.NOT_COVERED,
        assumptions=tuple(assumptions),
        trusts=(Trust.TAP, Trust.PERIMETER),
        subject=_subject(findings),
        window=_window(findings),
        method=METHOD,
        sample=f"{findings.closed} closed ({findings.aborted} aborted) of {findings.opened} counters",
        inputs=_inputs(findings),
    )


def _subject(findings: LogFindings) -> str:
    return findings.checkpoint.origin if findings.checkpoint else ""


def _inputs(findings: LogFindings) -> dict[str, str]:
    if findings.checkpoint is None:
        return {}
    inputs = {
        "log_root": f"sha256:{findings.checkpoint.root.hex()}",
        "log_size": str(findings.checkpoint.size),
    }
    if findings.header is not None:
        inputs["model"] = findings.header.model_digest
    return inputs


def _window(findings: LogFindings) -> Window | None:
    if findings.first_time is None or findings.last_time is None or not findings.covered:
        return None
    return Window(start=str(findings.first_time), end=str(findings.last_time))
