"""The meter's findings as claims, as a summary, and as a verdict."""

from __future__ import annotations

from ullage.claims import Bound, Claim, Evidence, Trust, Window
from ullage.errors import ExitCode
from ullage.network.monitor import Findings
from ullage.network.standing_cap import cap_claims
from ullage.network.windows import WINDOW_SECONDS

METHOD = "wire-meter/1"
_TRUSTS = (Trust.TAP, Trust.VERIFIER, Trust.PERIMETER)
_LINK = "the metered link is the server's only one"
_TIMING = "the times at which frames pass carry data that are not counted here"


def wire_claims(findings: Findings) -> tuple[Claim, ...]:
    """`wire.unexplained_fraction`, `wire.egress_rate`, `wire.header_choice_bits`, and the caps that stand."""
    caps = cap_claims(findings.caps, findings.meter.link, _TRUSTS, _window(findings))
    return _unexplained(findings), _egress(findings), _choices(findings), *caps


def verdict(findings: Findings, claims: tuple[Claim, ...], limit: int | None, tolerance: float) -> ExitCode:
    """Fail for any unexplained byte, or for more than `limit` bytes a second; cannot tell when blind."""
    if findings.meter.tallies.sum.unexplained:
        return ExitCode.FAIL
    egress = next(claim.value for claim in claims if claim.name == "wire.egress_rate")
    if limit is not None and egress is not None and egress > limit * tolerance:
        return ExitCode.FAIL
    known = all(claim.evidence is not Evidence.NOT_COVERED for claim in claims)
    return ExitCode.PASS if known and findings.counters_agree is not False else ExitCode.CANNOT_TELL


def summary(findings: Findings) -> dict[str, object]:
    """The figures behind the claims, for JSON."""
    meter = findings.meter
    tally = meter.tallies.sum
    heartbeat = findings.heartbeat
    return {
        "bytes": {
            "total": tally.total,
            "record": tally.record,
            "overhead": tally.overhead,
            "heartbeat": tally.heartbeat,
            "unexplained": tally.unexplained,
        },
        "unexplained_by_reason": dict(meter.reasons),
        "unexplained_frames_by_reason": dict(meter.tallies.frames_by_reason),
        "worst_window_unexplained_fraction": meter.tallies.worst_fraction,
        "from_server": {
            "frames": meter.from_server.frames,
            "bytes": meter.from_server.bytes,
            "worst_rate": meter.worst_from_server.rate,
        },
        "to_server": {
            "frames": meter.to_server.frames,
            "bytes": meter.to_server.bytes,
            "worst_rate": meter.worst_to_server.rate,
        },
        "passed": None
        if findings.passed is None
        else {
            "bytes": findings.passed_bytes,
            "worst_rate": findings.passed.rate,
            "lost_frames": findings.passed_drops,
        },
        "capture": {
            "lost_frames": findings.drops,
            "unseen_bytes": findings.unseen_bytes,
            "counters_agree": findings.counters_agree,
        },
        "heartbeats": None
        if heartbeat is None
        else {"seen": heartbeat.seen, "longest_gap": heartbeat.longest_gap, "alive": heartbeat.alive},
        "header_choice_bits": meter.choice_bits,
    }


def _window(findings: Findings) -> Window | None:
    meter = findings.meter
    if meter.first_time is None:
        return None
    return Window(start=str(int(meter.first_time * 1e9)), end=str(int(meter.last_time * 1e9) + 1))


def _common(findings: Findings) -> dict[str, object]:
    meter = findings.meter
    frames = meter.to_server.frames + meter.from_server.frames
    total = meter.to_server.bytes + meter.from_server.bytes
    return {
        "trusts": _TRUSTS,
        "subject": f"link {meter.link.server.address} to {meter.link.tap.address}",
        "window": _window(findings),
        "method": METHOD,
        "sample": f"{frames} frames, {total} bytes, both directions",
        "inputs": findings.inputs,
    }


def _unexplained(findings: Findings) -> Claim:
    tally = findings.meter.tallies.sum
    known = tally.total > 0 and not findings.blind
    assumptions = [_LINK, _TIMING, "SHA-256 has no known collisions"]
    if findings.heartbeat is None:
        assumptions.append("whoever captured the file left no frame out: there are no heartbeats to show it")
    else:
        assumptions.append(f"{findings.heartbeat.seen} heartbeats were seen, no gap above 5 s")
    if findings.blind:
        assumptions[-1] = "heartbeats are missing, so the meter cannot show that it was awake"
    if findings.counters_agree is False:
        assumptions.append("bytes that only the interface's counters show are counted as unexplained")
    return Claim(
        name="wire.unexplained_fraction",
        value=tally.unexplained / tally.total if known else None,
        unit="share of bytes",
        bound=Bound.UPPER,
        evidence=Evidence.MEASURED if known else Evidence.NOT_COVERED,
        assumptions=tuple(assumptions),
        **_common(findings),  # type: ignore[arg-type]
    )


def _egress(findings: Findings) -> Claim:
    """The worst window of what the server got past the cap; frames that a ring lost count as full ones."""
    meter = findings.meter
    passed = findings.passed
    worst = passed.rate if passed is not None else meter.worst_from_server.rate
    drops = findings.passed_drops if passed is not None else findings.drops
    worst += drops * (meter.link.mtu + 14) / WINDOW_SECONDS
    where = "behind the cap" if passed is not None else "on the cable, before any cap"
    known = not findings.blind and (meter.from_server.frames > 0 or findings.heartbeat is not None)
    return Claim(
        name="wire.egress_rate",
        value=worst if known else None,
        unit="bytes/second",
        bound=Bound.UPPER,
        evidence=Evidence.MEASURED if known else Evidence.NOT_COVERED,
        assumptions=(
            _LINK,
            f"worst window of {WINDOW_SECONDS:g} s that begins anywhere, measured {where}",
            "whole Ethernet frames without preamble and check sequence",
        ),
        **_common(findings),  # type: ignore[arg-type]
    )


def _choices(findings: Findings) -> Claim:
    meter = findings.meter
    known = not findings.blind
    return Claim(
        name="wire.header_choice_bits",
        value=meter.choice_bits if known else None,
        unit="bits",
        bound=Bound.UPPER,
        evidence=Evidence.MEASURED if known else Evidence.NOT_COVERED,
        assumptions=(
            _TIMING,
            "explained headers of the server: initial sequence numbers, first identifications, where a "
            "segment ends, which segments are acknowledged or repeated",
            "these are visible on the link only: the tap passes none of them on",
        ),
        **_common(findings),  # type: ignore[arg-type]
    )
