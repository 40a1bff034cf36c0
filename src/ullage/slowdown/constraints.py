"""What verification leaves to the prover, per rack: the inputs of every strategy.

A field at its default constrains nothing. Rates are the caps themselves; `covert_out` and
`covert_in` are what an adversary can use of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ullage.claims import Trust
from ullage.errors import UsageError

INFINIBAND = 400e9  # bytes/s between racks
COPPER = 100e6  # bytes/s a rack at the speed of an internet line
TAP = 100e3  # bytes/s a rack through the tap
UNDETECTED = math.inf
_NO_RATE = 1e-9  # bytes/s


@dataclass(frozen=True)
class Constraints:
    """The verified fleet. Shares lie in [0, 1]; `inf` means without limit."""

    dark_share: float = 0.05  # of the fleet's compute that no tap and no inspector knows
    racks: int = 30_000
    gpus_a_rack: float = 100
    memory_a_rack: float = 8e12  # bytes
    egress: float = INFINIBAND
    ingress: float = INFINIBAND
    covert_fraction: float = 1.0  # of what leaves through the cap
    residual: float = 0.0  # bytes/s beside the tokens: length, timing, order
    enforced: bool = False  # the tap releases the reference's tokens only
    accounted_time: float = 0.0  # of wall time, proven busy with declared work
    accounted_operations: float = 0.0  # of peak operations, proven declared work
    resident_memory: float = 0.0  # of memory, proven to hold declared state while serving
    wipe_period: float = math.inf  # seconds
    wipe_cycle: float = 0.0  # seconds out of service at each wipe
    erased: float = 1.0  # of memory, proven overwritten at each wipe
    update_interval: float = 0.0  # seconds between updates of the declared model
    accomplice_share: float = 1.0  # of declared output that customers in league can order
    response_days: float = UNDETECTED  # from open cheating to its end
    diversion: float = 0.0  # of the fleet that turns dark in a year

    @property
    def declared(self) -> float:
        """The share of the fleet's compute that has a tap, 1 - d."""
        return 1.0 - self.dark_share

    @property
    def wiped(self) -> bool:
        """Whether there are wipes at all."""
        return math.isfinite(self.wipe_period)

    @property
    def covert_out(self) -> float:
        """Bytes/s of hidden data that can leave a rack; less than a byte in thirty years is none."""
        rate = min(self.egress, self.egress * self.covert_fraction + self.residual)
        return rate if rate >= _NO_RATE else 0.0

    @property
    def covert_in(self) -> float:
        """Bytes/s of hidden data that can enter: prompts are not recomputed, so all of the cap."""
        return self.ingress if self.ingress >= _NO_RATE else 0.0

    @property
    def idle_share(self) -> float:
        """Share of the declared compute free for a covert job that has a machine to itself."""
        return 1.0 - max(self.accounted_time, self.accounted_operations)

    @property
    def free_memory(self) -> float:
        """Bytes of a rack that are not proven to hold declared state."""
        return (1.0 - self.resident_memory) * self.memory_a_rack

    @property
    def surviving_bytes(self) -> float:
        """Bytes a rack may carry through a wipe in memory that was not proven overwritten."""
        return (1.0 - self.erased) * self.memory_a_rack


@dataclass(frozen=True)
class Note:
    """Where one constraint comes from: its evidence tag, its source in words, and whom it trusts."""

    evidence: str
    source: str
    trusts: tuple[Trust, ...] = ()
    """Those of the claims behind it: a figure that rests on the constraint rests on them too."""
    doubt: float = 0.0
    """The chance that one of those claims is wrong by its own words, 1 - confidence, added up."""


@dataclass(frozen=True)
class Scenario:
    """Named constraints, the evidence behind each, and what has to be said loudly: `warnings` of what nothing
    constrains, `assumed` of what is taken in the verifier's favour."""

    name: str
    constraints: Constraints
    notes: Mapping[str, Note] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    def with_dark_share(self, share: float) -> Scenario:
        """The same with another share of compute that nobody sees."""
        return replace(self, constraints=replace(self.constraints, dark_share=share))


RELAXATIONS: dict[str, tuple[str, dict[str, float | bool]]] = {
    "links": ("the links' speed", {"egress": INFINIBAND, "ingress": INFINIBAND}),
    "covert_fraction": ("the covert share of output", {"covert_fraction": 1.0, "enforced": False}),
    "work": ("accounted work", {"accounted_time": 0.0, "accounted_operations": 0.0}),
    "memory": ("resident memory", {"resident_memory": 0.0}),
    "wipes": ("wipes", {"wipe_period": math.inf, "wipe_cycle": 0.0}),
    "updates": ("the rate of declared updates", {"update_interval": 0.0}),
    "accomplices": ("what one customer may order", {"accomplice_share": 1.0}),
    "response": ("the response to open cheating", {"response_days": UNDETECTED}),
}
"""Each lever: its name in sentences and the fields that switch it off."""


UNCONSTRAINED: dict[str, float] = {
    "egress": INFINIBAND,
    "ingress": INFINIBAND,
    "covert_fraction": 1.0,
    "residual": math.inf,
    "accounted_time": 0.0,
    "accounted_operations": 0.0,
    "resident_memory": 0.0,
    "wipe_period": math.inf,
    "wipe_cycle": 0.0,
    "erased": 0.0,
    "update_interval": 0.0,
    "accomplice_share": 1.0,
    "response_days": UNDETECTED,
    "diversion": 1.0,
}
"""What each constraint is while nobody has looked. Not the defaults: those of `erased`, `residual` and
`diversion` are their tightest values, since where a scenario is silent nothing survives, leaks or strays."""


def unconstrain(constraints: Constraints, field: str) -> Constraints:
    """The constraints with one field as if nobody had looked."""
    return replace(constraints, **{field: UNCONSTRAINED[field]})  # type: ignore[arg-type]


def relax(constraints: Constraints, lever: str) -> Constraints:
    """The constraints with one of `RELAXATIONS` released."""
    return replace(constraints, **RELAXATIONS[lever][1])  # type: ignore[arg-type]


_SHARES = (
    "dark_share", "covert_fraction", "accounted_time", "accounted_operations", "resident_memory", "erased",
    "accomplice_share", "diversion",
)  # fmt: skip
_POSITIVE = ("racks", "gpus_a_rack", "memory_a_rack", "wipe_period")
_SIZES = ("racks", "gpus_a_rack", "memory_a_rack")
_NOT_NEGATIVE = ("egress", "ingress", "residual", "wipe_cycle", "update_interval", "response_days")


_RULES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    ((*_SHARES, *_POSITIVE, *_NOT_NEGATIVE), lambda value: not math.isnan(value), "is not a number"),
    (_SIZES, math.isfinite, "is the size of something, which is finite"),
    (_SHARES, lambda value: 0 <= value <= 1, "is a share and must lie between 0 and 1"),
    (_POSITIVE, lambda value: value > 0, "must be above 0"),
    (_NOT_NEGATIVE, lambda value: value >= 0, "must not be negative"),
)


def first_fault(constraints: Constraints) -> tuple[str, str] | None:
    """The first field that cannot be, with the reason; None if the whole is consistent."""
    for names, holds, words in _RULES:
        for name in names:
            if not holds(getattr(constraints, name)):
                return name, words
    if constraints.wiped and constraints.wipe_cycle >= constraints.wipe_period:
        return "wipe_cycle", "is not shorter than the wipe period: the rack would never serve"
    return None


def check(constraints: Constraints) -> Constraints:
    """The constraints themselves, or UsageError that names the field at fault."""
    if fault := first_fault(constraints):
        raise UsageError(f"{fault[0]} {fault[1]}.")
    return constraints
