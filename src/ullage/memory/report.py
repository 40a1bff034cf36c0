"""What the commands print."""

from __future__ import annotations

from collections.abc import Iterable

from ullage.claims import Claim, to_json
from ullage.memory.calibration import Calibration
from ullage.memory.cycle import Cycle
from ullage.memory.erasure import Erasure
from ullage.memory.residency.cache_check import CacheFinding
from ullage.memory.residency.verify import ChainRun
from ullage.memory.verifier import Held


def _rate(value: float) -> str:
    return f"{value / 1e9:.3g} GB/s"


def calibration_lines(found: Calibration) -> list[str]:
    """A calibration for a terminal."""
    return [
        f"machine: {found.machine}",
        f"rebuild, all cores, one AES-256: {_rate(found.rebuild_rate)} ({found.rebuild_source})",
        f"GMAC over memory, all cores: {_rate(found.read_rate)}, over spots {_rate(found.spot_rate)}",
        f"AES-CTR, one core: {_rate(found.generator_rate)}",
        f"write, one core: {_rate(found.first_touch_rate)} first touch, {_rate(found.warm_write_rate)} warm",
        f"other store: {_rate(found.store_rate)}, {found.store_reads:.0f} reads a second",
        f"a step of a chain (64 blocks of 128 bytes): {found.step_seconds * 1e6:.3g} us in memory, one block "
        f"{found.alternative_seconds * 1e6:.3g} us elsewhere",
    ]


def erasure_lines(found: Erasure, rates: Calibration, claims: Iterable[Claim]) -> list[str]:
    """For a terminal: sizes, rates beside the machine's own, rounds, claims with every assumption."""
    total = found.welcome.machine_bytes
    lines = [
        f"machine: {total >> 20} MiB ({found.welcome.source}), region {found.region_bytes >> 20} MiB, "
        f"{'locked' if found.locked else 'NOT locked: pages may leave memory'}",
        *(f"not erased: {size >> 20} MiB {what}" for what, size in found.welcome.unreached),
        f"fill: {found.fill_seconds:.3f} s, {_rate(found.fill_rate)}"
        + (f", {found.layers} layers" if found.layers else "")
        + f"; first touch {_rate(rates.first_touch_rate)}, warm write {_rate(rates.warm_write_rate)}, "
        f"AES-CTR of a core {_rate(rates.generator_rate)}",
    ]
    for number, timing in enumerate(found.timings):
        state = "late" if timing.late else "in time"
        right = {True: "right", False: "WRONG", None: "no answer"}[timing.correct]
        lines.append(
            f"round {number}: {timing.seconds * 1e3:.1f} of {found.deadline * 1e3:.1f} ms, {state}, {right}"
        )
    lines.append(f"verdict: {found.verdict} ({found.reason})")
    for claim in claims:
        lines += [claim.render(), *(f"  assumes: {line}" for line in claim.assumptions)]
    return lines


def cycle_line(cycle: Cycle) -> str:
    """One wipe cycle for a terminal, seconds a phase."""
    phases = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in vars(cycle.phases).items())
    return f"cycle: {cycle.phases.total:.2f} s ({phases}); {cycle.erasure.verdict}"


def erasure_record(found: Erasure, rates: Calibration, claims: Iterable[Claim]) -> dict[str, object]:
    """For `--json`."""
    return {
        "claims": to_json(claims),
        "verdict": found.verdict,
        "reason": found.reason,
        "region_bytes": str(found.region_bytes),
        "machine_bytes": str(found.welcome.machine_bytes),
        "unreached": {what: str(size) for what, size in found.welcome.unreached},
        "locked": found.locked,
        "by": found.by,
        "layers": found.layers,
        "map_seconds": found.map_seconds,
        "fill_seconds": found.fill_seconds,
        "fill_rate": found.fill_rate,
        "fill_over_generator": found.fill_rate / rates.generator_rate,
        "recoverable": found.recoverable,
        "missing": found.missing,
        "deadline": found.deadline,
        "rounds": [
            {"seconds": timing.seconds, "late": timing.late, "correct": timing.correct}
            for timing in found.timings
        ],
        "calibration": rates.model_dump(mode="json"),
    }


def holding_lines(held: Held) -> list[str]:
    """For a terminal."""
    found = held.holding
    lines = [
        f"{segment.kind.name.lower()}: {segment.name}, {segment.size} bytes" for segment in found.segments
    ]
    lines += [
        f"chain {number}: {chain.seconds * 1e3:.1f} of {found.deadline * 1e3:.1f} ms, "
        f"{'late' if chain.late else 'in time'}, {'right' if chain.correct else 'WRONG'}, "
        f"{chain.warning * 1e3:.1f} ms of warning, {chain.frozen * 1e3:.0f} ms of standing still"
        for number, chain in enumerate(found.chains)
    ]
    lines += [_cache_line(chain.cache) for chain in found.chains[-1:] if chain.cache]
    lines += [
        f"dump of {finding.name}: {finding.matching} bytes as declared, {finding.foreign} others "
        f"({finding.zeros} zeros), {finding.foreign_entropy:.3f} bits a byte"
        for finding in held.findings
    ]
    lines.append(f"verdict: {found.verdict}")
    for claim in held.claims:
        lines.append(claim.render())
    return [*lines, *(f"  assumes: {line}" for line in held.claims[0].assumptions)]


def _cache_line(found: CacheFinding) -> str:
    return (
        f"key-value memory: {found.written} bytes written, {found.outside} of {found.elements} elements are "
        f"no rounding of what was expected; rounding leaves {found.free_bits:.2f} bits an element open; "
        f"{found.counted} bytes counted"
    )


def _chain_record(chain: ChainRun) -> dict[str, object]:
    return {
        **vars(chain),
        "challenged": {kind.name.lower(): size for kind, size in chain.challenged.items()},
        "counted": {kind.name.lower(): size for kind, size in chain.counted.items()},
        "cache": vars(chain.cache) if chain.cache else None,
    }


def holding_record(held: Held) -> dict[str, object]:
    """For `--json`."""
    found = held.holding
    return {
        "claims": to_json(held.claims),
        "verdict": found.verdict,
        "missing_steps": found.missing_steps,
        "missing": found.missing,
        "deadline": found.deadline,
        "missing_bytes": found.missing_bytes,
        "chains": [_chain_record(chain) for chain in found.chains],
        "dump": [vars(finding) for finding in held.findings],
    }
