"""The calibration of a machine, measured on the verifier's twin of it: what a unit is worth there.

The smallest worth is a lower bound of the slot-seconds that a unit costs a machine whose slots are all
busy: fastest exact kernel, fastest generation, fastest commitment, each at its smallest time there, or the
smallest whole unit if that is less. A slot alone may be faster (its sibling thread sleeps, the clock rises),
but then the others' time is unaccounted. `docs/work.md` has the rules, and
`docs/formats/work-calibration.md` the file.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from statistics import fmean, median
from typing import Annotated, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ullage.errors import MalformedError, UsageError
from ullage.work import steal, timing
from ullage.work.alarm import Alarm, alarm_from, expected_fraction
from ullage.work.datasheet import CALIBRATION_FLOOR, Nameplate
from ullage.work.inference import Costs
from ullage.work.shape import Shape
from ullage.work.usual import LARGEST_USUAL
from ullage.work.window import STEAL_LIMIT, Worth

PAYLOAD_TYPE = "application/vnd.ullage.work-calibration+json"
_MAX_BYTES = 1 << 20
_CONFIDENCE = 0.99
_NEAR = 1.5
"""Kernels slower than this, alone, are not timed again with every slot busy.

They cannot become the fastest.
"""

LARGEST_FRACTION = 2.0
"""An honest window that shows so much was not held against what it was measured with."""

Seconds = Annotated[float, Field(gt=0, le=3600)]
Factor = Annotated[float, Field(ge=1, le=LARGEST_USUAL)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class KernelTime(_Part):
    """One kernel's product.

    Alone on the machine, and with every slot busy for those that are not far slower.
    """

    name: str
    exact: bool
    alone: Seconds
    smallest: Seconds | None
    median: Seconds | None
    repeats: Annotated[int, Field(ge=1)]


class UnitTime(_Part):
    """Whole units with every slot busy."""

    smallest: Seconds
    median: Seconds
    median_low: Seconds
    median_high: Seconds
    confidence: Annotated[float, Field(gt=0, lt=1)]
    units: Annotated[int, Field(ge=1)]


class Sheet(_Part):
    """The data sheet of the whole machine."""

    device: str
    operations_per_second: Annotated[float, Field(gt=0)]
    how: str


class InferenceTime(_Part):
    """Core-seconds a token on the twin."""

    prefill: Seconds
    decode: tuple[tuple[Annotated[int, Field(ge=1)], Seconds], ...]
    operations: Annotated[float, Field(ge=0)]
    usual: tuple[Factor, Factor] = (1.0, 1.0)
    """How many times what the log shows inference took on the twin under load, in steps of one row and in
    full ones; for the alarm only."""

    def costs(self) -> Costs:
        return Costs(self.prefill, self.decode, self.operations, self.usual)


class HonestWindows(_Part):
    """Windows of an honest account of the twin, and their fractions at median times."""

    seconds: Seconds
    companion_slots: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Slots of the companion that worked beside it, if one did: the fractions are over its own."""
    fractions: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=LARGEST_FRACTION)], ...], Field(min_length=2, max_length=10_000)
    ]

    @property
    def is_beside(self) -> bool:
        """Whether the fractions are over a companion's."""
        return self.companion_slots is not None


class Calibration(_Part):
    """The payload that is signed."""

    version: Literal[3] = 3
    """In 1 and 2 operands and commitments took longer: a unit would be worth too much."""
    machine: Annotated[str, StringConstraints(max_length=256)]
    slots: Annotated[int, Field(ge=1, le=1024)]
    shape: str
    kernels: tuple[KernelTime, ...]
    generate: Seconds
    commit: Seconds
    together: UnitTime
    steal: Annotated[float, Field(ge=0, le=1)] | None = None
    """The share of all time that the hypervisor took meanwhile: the median is too slow by about as much."""
    sheet: Sheet | None
    inference: InferenceTime | None = None
    honest: HonestWindows | None = None
    """Honest accounts of the twin; None: the alarm is reckoned from the window's length alone."""
    created: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}$")]
    software: dict[str, str]

    @property
    def unit_shape(self) -> Shape:
        return Shape.parse(self.shape)

    @property
    def fastest(self) -> KernelTime:
        """The fastest exact kernel. Raises MalformedError if there is none."""
        exact = [(kernel.smallest, kernel) for kernel in self.kernels if kernel.exact and kernel.smallest]
        if not exact:
            raise MalformedError("The calibration has no exact kernel, so no unit has a worth.")
        return min(exact, key=lambda pair: pair[0])[1]

    @property
    def product_seconds(self) -> float:
        """The fastest exact kernel's smallest time."""
        return self.fastest.smallest or 0.0  # never None for the fastest

    @property
    def worth(self) -> Worth:
        """What a unit is worth, never more than a unit was ever seen to take."""
        steps = self.product_seconds + self.generate + self.commit
        return Worth(min(steps, self.together.smallest), self.together.median, self.unit_shape.operations)

    @property
    def peak(self) -> float:
        """Operations a second of all slots at the fastest kernel's smallest time."""
        return self.slots * self.unit_shape.operations / self.product_seconds

    def honest_windows(self, *, beside: bool) -> HonestWindows | None:
        """Those that were measured as the account is: beside a companion, or without one."""
        return self.honest if self.honest and self.honest.is_beside == beside else None

    def check_window(self, window_seconds: float, *, beside: bool = False) -> None:
        """Raise UsageError for windows shorter than the honest ones that set the alarm.

        What scatters from moment to moment does so by more in a shorter window: the limit that the honest
        ones give would accuse honest machines.
        """
        honest = self.honest_windows(beside=beside)
        if honest and window_seconds < honest.seconds:
            raise UsageError(
                f"The calibration's honest windows had {honest.seconds:g} s, and shorter ones scatter by "
                f"more than its alarm allows: give --window {honest.seconds:g} or more, or calibrate with "
                f"--honest-windows 20 --window {window_seconds:g}."
            )

    def alarm(self, window_seconds: float, depth: int, *, beside: bool = False) -> Alarm:
        """The alarm for an account with windows of this length and so many jobs outstanding a slot.

        `beside`: the account has a companion. It loses at a window's edges what the machine loses. Honest
        windows that were measured the other way say nothing here. Raises UsageError (`check_window`).
        """
        self.check_window(window_seconds, beside=beside)
        unit = self.worth.median
        honest = self.honest_windows(beside=beside)
        lost = 0 if beside else depth
        if honest is None:
            found = Alarm(expected_fraction(lost, unit, window_seconds))
        else:
            found = alarm_from(honest.fractions, lost * unit / window_seconds, lost * unit / honest.seconds)
        return replace(found, excess=math.inf) if beside else found

    def shows_honest(self, window_seconds: float, depth: int, *, beside: bool = False) -> float:
        """What an honest machine is thought to show in such windows: the mean, of which the alarm expects
        the lower limit."""
        honest = self.honest_windows(beside=beside)
        alarm = self.alarm(window_seconds, depth, beside=beside)
        if honest is None:
            return alarm.expected
        lost = 0 if beside else depth * self.worth.median
        return fmean(honest.fractions) + lost / honest.seconds - lost / window_seconds

    @property
    def was_disturbed(self) -> bool:
        """Whether the hypervisor took more than from a window that says something."""
        return self.steal is not None and self.steal > STEAL_LIMIT

    @property
    def share_of_sheet(self) -> float | None:
        return self.peak / self.sheet.operations_per_second if self.sheet else None

    @property
    def is_credible(self) -> bool | None:
        """Whether the peak is near enough to the data sheet; None without one."""
        share = self.share_of_sheet
        return None if share is None else share >= CALIBRATION_FLOOR

    def to_bytes(self) -> bytes:
        """Canonical JSON (RFC 8785)."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, data: bytes) -> Calibration:
        """Raises MalformedError."""
        if len(data) > _MAX_BYTES:
            raise MalformedError(f"A work calibration has at most {_MAX_BYTES} bytes.")
        try:
            found = cls.model_validate_json(data)
            _ = found.unit_shape, found.fastest
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            if any(one["loc"] == ("version",) for one in error.errors(include_input=False)):
                raise MalformedError(
                    "The work calibration is of another version, which prices units differently; run "
                    "`ullage work calibrate` on the twin again."
                ) from error
            raise MalformedError(f"The work calibration is misshapen: {where}: {first['msg']}.") from error
        except UsageError as error:
            raise MalformedError(f"The work calibration is misshapen: {error}") from error
        return found


def read_inference(data: bytes) -> InferenceTime:
    """The times of inference from JSON. Raises MalformedError."""
    try:
        found = InferenceTime.model_validate_json(data)
        found.costs()
    except ValueError as error:
        message = str(error).splitlines()[0]
        raise MalformedError(f"The times of inference are misshapen: {message}.") from error
    return found


def measure(  # noqa: PLR0917 - a measurement has as many terms as it has
    machine: str,
    shape: Shape,
    slots: int,
    seconds: float,
    sheet: Nameplate | None,
    repeats: int = 5,
    device: str = "cpu",
) -> Calibration:
    """Measure this machine, which is the twin. Takes about `seconds` and a few products of each kernel."""
    import torch

    alone = {times.name: times for times in timing.measure_alone(shape, repeats, device)}
    products = {name: times for name, times in alone.items() if name not in timing.STEPS}
    quickest = min((t.smallest for t in products.values() if t.exact), default=0.0)
    near = tuple(n for n, t in products.items() if t.exact and t.smallest < _NEAR * quickest)
    before = steal.read()
    together = timing.measure_together(shape, slots, seconds, near, repeats, device)
    after = steal.read()
    units = list(together["unit"])
    low, high = median_interval(units, _CONFIDENCE)
    return Calibration(
        machine=machine,
        slots=slots,
        shape=str(shape),
        kernels=tuple(
            KernelTime(
                name=name,
                exact=times.exact,
                alone=times.smallest,
                smallest=min(together[name]) if name in near else None,
                median=median(together[name]) if name in near else None,
                repeats=len(together[name]) if name in near else len(times.seconds),
            )
            for name, times in products.items()
        ),
        generate=min(together["generate"]),
        commit=min(together["commit"]),
        together=UnitTime(
            smallest=min(units),
            median=median(units),
            median_low=low,
            median_high=high,
            confidence=_CONFIDENCE,
            units=len(units),
        ),
        steal=after.share_since(before) if before and after else None,
        sheet=None
        if sheet is None
        else Sheet(device=sheet.device, operations_per_second=sheet.operations_per_second, how=sheet.how),
        created=str(time.time_ns()),
        software={"torch": torch.__version__},
    )


def median_interval(values: list[float], confidence: float) -> tuple[float, float]:
    """Order statistics that enclose the median: no assumption on the distribution but independence.

    With few values the interval is the whole range, at less than the confidence asked for.
    """
    from scipy.stats import binom

    ordered = sorted(values)
    below = int(binom.ppf((1 - confidence) / 2, len(ordered), 0.5))
    low = max(0, below - 1)
    return ordered[low], ordered[len(ordered) - 1 - low]
