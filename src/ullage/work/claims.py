"""The claims of an accounting.

Busy time and operations, both against calibration and against the data sheet.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from ullage.claims import Bound, Claim, Evidence, Interval, Trust
from ullage.claims import Window as ClaimWindow
from ullage.work.calibration import Calibration
from ullage.work.openings import largest_bad_share
from ullage.work.window import STEAL_LIMIT, Total, Window, add_up

METHOD = "ullage/work/v1"
CONFIDENCE = 0.99
FULL_CHECK_BITS = 60
"""Two vectors mod p = 2^31 - 1: p^-2 < 2^-60 (`freivalds`)."""
ASSUMPTIONS = (
    "no exact kernel, cipher or hash on this kind of machine is faster than the fastest one calibrated",
    "the number of slots is the machine's (the inventory is right)",
    "no helper on the same side of the cap computes units: a unit costs it 90 bytes of wire",
    "SHA-256 and BLAKE3 bind, and AES-256 in counter mode cannot be told from random",
)
_INFERENCE = (
    "recorded inference was computed here at the twin's cost, prefixes once, on the cheapest schedule that "
    "the log's times allow, a step taking no record further than one token: no client in league sent prompts "
    "whose answers were known without it"
)
_BESIDE = "share of what the companion did"
_COMPANION = (
    "the companion could do as much as the machine at any time, and nobody on the machine's side slowed it: "
    "what slows both alike, be it a hypervisor in league with the prover, does not show"
)


def make_claims(
    windows: Sequence[Window],
    calibration: Calibration,
    *,
    subject: str,
    inventory_declared: bool,
    twin: bool,
    inputs: dict[str, str],
) -> tuple[Claim, ...]:
    """The claims over windows that say something.

    Those with much steal are left out, and counted in `sample`.
    """
    used = [window for window in windows if window.is_told]
    sample = f"{len(used)} of {len(windows)} windows, {sum(w.credited for w in used)} units, {_checks(used)}"
    trusts: tuple[Trust, ...] = (Trust.VERIFIER, Trust.PERIMETER)
    trusts += (Trust.PROVER_INVENTORY,) if inventory_declared else ()
    credited = any(w.inference.smallest or w.inference.operations for w in used)
    trusts += (Trust.TAP,) if credited else ()
    on_twin = trusts + (() if twin else (Trust.PROVER_CALIBRATION,))
    assumptions = ASSUMPTIONS + ((_INFERENCE,) if credited else ()) + _left_out(windows, used)
    span = None
    if used:
        last = used[-1]
        span = ClaimWindow(start=str(used[0].start_unix), end=str(last.end_unix))

    def claim(  # noqa: PLR0917 - a table follows
        name: str, value: float | None, unit: str, bound: Bound, evidence: Evidence, who: tuple[Trust, ...]
    ) -> Claim:
        known = value is not None
        return Claim(
            name=name,
            value=value,
            unit=unit,
            bound=bound,
            confidence=CONFIDENCE if known and evidence is Evidence.PROVEN else None,
            evidence=evidence if known else Evidence.NOT_COVERED,
            assumptions=assumptions,
            trusts=who,
            subject=subject,
            window=span,
            method=METHOD,
            sample=sample,
            inputs=inputs,
        )

    total = add_up(used, CONFIDENCE) if used else None
    credible = total is not None and calibration.is_credible is not False
    seconds = total.capacity / calibration.slots if total else 0.0
    sheet = calibration.sheet
    proven, measured = Evidence.PROVEN, Evidence.MEASURED
    fraction = fraction_median = flop = nameplate = None
    if total and credible:
        fraction, fraction_median = _share(total.fraction), _share(total.fraction_median)
        flop = total.operations_priced / (calibration.peak * seconds)
    if total and sheet:
        nameplate = total.operations / (sheet.operations_per_second * seconds)
    bad_share = total.bad_share if total else None
    lower, slot_time, rows = Bound.LOWER, "share of slot time", "share of rows"
    return (
        claim("compute.accounted_fraction", fraction, slot_time, lower, proven, on_twin),
        claim("compute.accounted_fraction_median", fraction_median, slot_time, lower, measured, on_twin),
        *_beside_claims(
            used,
            total if credible else None,
            claim("compute.accounted_beside_companion", None, _BESIDE, Bound.ESTIMATE, measured, on_twin),
        ),
        claim("compute.accounted_flop", flop, "share of calibrated peak", lower, proven, on_twin),
        # Who calibrates says which data sheet it is, and what a token takes.
        claim("compute.accounted_flop_nameplate", nameplate, "share of data sheet", lower, proven, on_twin),
        claim("work.uncomputed_share", bad_share, rows, Bound.UPPER, proven, trusts),
        _rate_claim(total, claim("work.failed_openings", None, rows, Bound.ESTIMATE, measured, trusts)),
    )


def _beside_claims(used: Sequence[Window], total: Total | None, empty: Claim) -> tuple[Claim, ...]:
    """The account over what the companion did meanwhile; no claim where there was none.

    The mean of the windows, less what the openings leave, with Student's interval: it takes windows as
    independent.
    """
    if not any(window.companion is not None for window in used):
        return ()
    ratios = [ratio for window in used if (ratio := window.judged) is not None]
    if total is None or len(ratios) < 2:
        return (empty.model_copy(update={"evidence": Evidence.NOT_COVERED}),)
    from scipy.stats import t

    kept = 1.0 - total.bad_share
    mean = statistics.fmean(ratios) * kept
    error = float(t.ppf((1 + CONFIDENCE) / 2, len(ratios) - 1))
    error *= statistics.stdev(ratios) * kept / math.sqrt(len(ratios))
    update = {
        "value": mean,
        "interval": Interval(low=max(0.0, mean - error), high=mean + error, confidence=CONFIDENCE),
        "evidence": Evidence.MEASURED,
        "assumptions": (*empty.assumptions, _COMPANION),
        "sample": f"{len(ratios)} windows in which the companion showed what could be done; {empty.sample}",
    }
    return (empty.model_copy(update=update),)


def _left_out(windows: Sequence[Window], used: Sequence[Window]) -> tuple[str, ...]:
    """The sentence that says of which time nothing is claimed; none where all of it is."""
    if len(used) == len(windows):
        return ()
    seconds = sum(window.seconds for window in windows) - sum(window.seconds for window in used)
    left = [window for window in windows if not window.is_told]
    stale = sum(window.is_stale for window in left)
    others = f" or ({stale} of them) the companion outran its calibration" if stale else ""
    return (
        f"nothing is claimed of {seconds:g} s ({len(windows) - len(used)} windows) in which the hypervisor "
        f"took more than {STEAL_LIMIT:.0%}{others}: a machine whose neighbours can bring that about may do "
        "anything then",
    )


def _checks(windows: Sequence[Window]) -> str:
    """What was looked at, and how often that errs: each check and all together."""
    openings, units = sum(w.openings for w in windows), sum(w.credited for w in windows)
    if openings or not units:
        return (
            f"{openings} rows opened (a share x left out passes one with 1 - x, all with (1 - x)^{openings})"
        )
    total = math.log2(units) - FULL_CHECK_BITS
    return f"all products checked (a wrong one passes with < 2^-{FULL_CHECK_BITS}, any with < 2^{total:.0f})"


def _share(fraction: float) -> float:
    return min(1.0, fraction)


def _rate_claim(total: Total | None, empty: Claim) -> Claim:
    if total is None or not total.openings:
        return empty
    high = largest_bad_share(total.openings, total.failed, CONFIDENCE)
    return empty.model_copy(
        update={
            "value": total.failed / total.openings,
            "evidence": Evidence.MEASURED,
            "interval": Interval(low=0.0, high=high, confidence=CONFIDENCE),
        }
    )
