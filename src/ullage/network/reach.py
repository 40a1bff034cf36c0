"""`ullage wire check`: what a process can reach beside the tap, tried from where the server stands.

Each probe tries one way out and says what happened. "closed" means that it was tried and nothing answered; a
way that nobody thought of is not found, which is why the claim is a lower bound on the ways out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from ullage.claims import Bound, Claim, Evidence, Trust
from ullage.errors import ExitCode

METHOD = "wire-check/1"
NOT_CHECKABLE = (
    "network cards, management controllers and accelerator links that this kernel does not show",
    "other machines on the cable that stay silent",
    "timing of shared processors, caches and disks; locks on files that others can also open",
    "power, heat, sound and radio",
    "a kernel that lies to the process that asks",
)


class Outcome(StrEnum):
    """What a probe found."""

    CLOSED = "closed"
    OPEN = "open"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Probe:
    """The result of one attempt."""

    name: str
    outcome: Outcome
    detail: str


Attempt = Callable[[], Probe]


def closed(name: str, detail: str) -> Probe:
    """A way that led nowhere."""
    return Probe(name, Outcome.CLOSED, detail)


def opened(name: str, detail: str) -> Probe:
    """A way that leads out."""
    return Probe(name, Outcome.OPEN, detail)


def unchecked(name: str, detail: str) -> Probe:
    """A way that could not be tried."""
    return Probe(name, Outcome.NOT_CHECKED, detail)


def judge(name: str, found: Iterable[str], nothing: str) -> Probe:
    """Open if anything was found."""
    listed = list(found)
    return opened(name, "; ".join(listed[:20])) if listed else closed(name, nothing)


@dataclass(frozen=True)
class Reach:
    """All probes of one run."""

    probes: tuple[Probe, ...]

    @property
    def ways_out(self) -> list[Probe]:
        return [probe for probe in self.probes if probe.outcome is Outcome.OPEN]

    @property
    def not_checked(self) -> list[str]:
        here = [f"{one.name}: {one.detail}" for one in self.probes if one.outcome is Outcome.NOT_CHECKED]
        return [*here, *NOT_CHECKABLE]

    @property
    def exit_code(self) -> ExitCode:
        if self.ways_out:
            return ExitCode.FAIL
        undecided = any(probe.outcome is Outcome.NOT_CHECKED for probe in self.probes)
        return ExitCode.CANNOT_TELL if undecided else ExitCode.PASS

    def claims(self, subject: str) -> tuple[Claim, ...]:
        """`wire.other_ways_out`: at least so many ways out beside the tap."""
        return (
            Claim(
                name="wire.other_ways_out",
                value=float(len(self.ways_out)),
                unit="ways found open",
                bound=Bound.LOWER,
                evidence=Evidence.MEASURED,
                assumptions=tuple(f"not checked: {text}" for text in self.not_checked),
                trusts=(Trust.PROVER_KERNEL,),
                subject=subject,
                method=METHOD,
                sample=f"{len(self.probes)} probes",
            ),
        )


def run(attempts: Iterable[Attempt]) -> Reach:
    """Make every attempt; one that fails in a way nobody foresaw is not checked."""
    probes = []
    for attempt in attempts:
        try:
            probes.append(attempt())
        except (OSError, ValueError, IndexError) as error:
            probes.append(unchecked(getattr(attempt, "__name__", "probe").replace("_", " "), str(error)))
    return Reach(tuple(probes))
