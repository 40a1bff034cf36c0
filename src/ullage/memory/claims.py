"""Claims about memory, from what an erasure, a cycle or a chain showed."""

from __future__ import annotations

from ullage.claims import Bound, Claim, Evidence, Trust, Window
from ullage.memory.bounds import erased_fraction
from ullage.memory.cycle import Cycle
from ullage.memory.erasure import Erasure
from ullage.memory.noise.butterfly import CODING_GAIN
from ullage.memory.noise.noise import SPOT_BYTES, STRATUM_BYTES
from ullage.memory.protocol.messages import Welcome
from ullage.memory.residency.verify import Holding

_STORES = {
    "pass": "other stores of the machine (disk) deliver at most as many bytes a second as calibrated",
    "spots": "other stores of the machine (disk) do no more reads a second than calibrated, nor deliver more "
    "bytes, and are less than a thousand times as large as what is missing",
    "chain": "no other store of the machine (disk) delivers a block sooner than calibrated, or more a second",
}
_COMMON = (
    "verifier and prover share no memory, file or clock; times are the verifier's",
    "noise that a passed round found in memory had overwritten what was there before",
)


def erasure_claims(
    found: Erasure, machine_bytes: int | None, window: Window, inputs: dict[str, str]
) -> tuple[Claim, ...]:
    """`memory.erased_fraction`, as a share of `machine_bytes` (None: what the agent's kernel says)."""
    total = machine_bytes or _stated(found.welcome)
    trusts = [Trust.VERIFIER, Trust.PERIMETER]
    trusts += [] if machine_bytes else [Trust.PROVER_KERNEL]
    confidence = 1 - found.plan.error
    asked = {
        "pass": "over all blocks",
        "spots": f"of {SPOT_BYTES} bytes in every {STRATUM_BYTES}",
        "chain": f"by chains of {found.plan.steps} steps",
    }[found.by]
    claim = Claim(
        name="memory.erased_fraction",
        value=erased_fraction(found.region_bytes, found.missing, total),
        unit="share of the machine's memory",
        bound=Bound.LOWER,
        confidence=confidence,
        evidence=Evidence.PROVEN,
        assumptions=(*_COMMON, *_assumptions(found, machine_bytes)),
        trusts=tuple(trusts),
        window=window,
        method=f"{found.plan.mode}/3" if found.by == "pass" else f"{found.plan.mode}-{found.by}/3",
        sample=f"{len(found.timings)} of at most {found.plan.rounds} rounds {asked}; {found.reason}",
        inputs=inputs,
    )
    return (claim,)


def cycle_claims(
    cycle: Cycle, period: float, machine_bytes: int | None, inputs: dict[str, str]
) -> tuple[Claim, ...]:
    """`memory.wipe_cycle`, the availability at that period, and the erasure's own claims."""
    window = Window(start=str(cycle.began), end=str(cycle.ended))
    inputs = {**inputs, "model": cycle.model.digest}
    erased = erasure_claims(cycle.erasure, machine_bytes, window, inputs)
    method = f"cycle-{cycle.erasure.plan.mode}/1"
    sample = ", ".join(f"{name} {value:.2f} s" for name, value in vars(cycle.phases).items())
    timed = Claim(
        name="memory.wipe_cycle",
        value=cycle.phases.total,
        unit="s",
        bound=Bound.UPPER,
        evidence=Evidence.MEASURED,
        trusts=(Trust.VERIFIER,),
        window=window,
        method=method,
        sample=sample,
        inputs=inputs,
    )
    available = timed.model_copy(
        update={
            "name": "memory.availability",
            "value": max(0.0, 1 - cycle.phases.total / period),
            "unit": f"share of {period:g} s",
            "bound": Bound.LOWER,
            "sample": "one cycle a period, its drain counted as lost",
        }
    )
    return (*erased, timed, available)


def holding_claims(
    found: Holding, machine_bytes: int | None, window: Window, inputs: dict[str, str]
) -> tuple[Claim, ...]:
    """`memory.resident_fraction` and its shares by kind of segment."""
    total = machine_bytes or _stated(found.welcome)
    trusts = (Trust.VERIFIER, *(() if machine_bytes else (Trust.PROVER_KERNEL,)))
    shares = "; ".join(
        f"{kind.name.lower()} {size / total:.4f} challenged, {found.counted[kind] / total:.4f} counted"
        for kind, size in found.challenged.items()
    )
    whole = Claim(
        name="memory.resident_fraction",
        value=min(1.0, found.proven_bytes / total),
        unit="share of the machine's memory",
        bound=Bound.LOWER,
        confidence=1 - found.plan.error,
        evidence=Evidence.PROVEN,
        assumptions=(
            *_COMMON[:1],
            "a block that is not in memory takes at least "
            f"{found.calibration.alternative_seconds * 1e6:.3g} us from wherever it comes, a helper "
            "elsewhere included: the wire stays open while serving",
            "from the first word about a chain to its end other stores and the wire bring at most "
            f"{found.calibration.store_rate:.3g} bytes a second of it in bulk",
            "the noise did not leave the machine for a helper that holds the whole map: the wire is capped",
            "weights pack no better than order-0 codes of their byte planes, keys and values no better than "
            "that, or beside those of an earlier position that ends in the same token or the same eight",
            _between(found),
            "no block of key-value memory behind the first layer is rebuilt as fast as it is fetched, be it "
            "from the prefix or from the vector that keys and values of a position follow from",
            _size(found.welcome, machine_bytes),
        ),
        trusts=trusts,
        window=window,
        method="chain/4",
        sample=f"{len(found.chains)} chains of {found.plan.steps} steps; {shares}",
        inputs=inputs,
    )
    parts = [
        whole.model_copy(
            update={
                "name": f"memory.resident_{kind.name.lower()}",
                "value": size / total,
                "sample": "all that is missing is taken to be missing here",
            }
        )
        for kind, size in found.proven_by_kind.items()
    ]
    return (whole, *parts)


def _between(found: Holding) -> str:
    """What the times of the chains leave open."""
    if found.plan.pause:
        return (
            f"chains begin at random, {found.plan.pause:g} s apart on average beside the verifier's own "
            "computing: what left memory for a while in between is met as often as that while lasts"
        )
    return "chains follow one another: of the time in which the verifier computes in between nothing is shown"


def _stated(welcome: Welcome) -> int:
    """The machine's memory in the agent's words, its devices' included: what a wipe of one space leaves in
    the others was not erased."""
    return welcome.machine_bytes + welcome.device_bytes


def _assumptions(found: Erasure, machine_bytes: int | None) -> list[str]:
    plan = found.plan
    lines: list[str] = []
    if plan.mode == "rate-gap":
        lines += [
            "from seed to verdict no other byte crosses the machine's wire: a helper outside is shut out",
            f"the whole machine rebuilds noise at most {plan.advantage:g} times as fast as calibrated",
            "AES-256 under a known seed behaves as a random permutation, which no shortcut replaces",
        ]
    else:
        lines += [
            "the stream is incompressible: AES-256-CTR under a key that stays with the verifier",
            "from the question to the verdict no other byte crosses the machine's wire",
        ]
    if plan.mode == "rate-gap" and found.by == "spots":
        lines.append(
            f"keeping sums of the noise's labels makes a spot at most {CODING_GAIN} times cheaper to rebuild "
            "than keeping labels (the best code known: 7)"
        )
    lines.append(_STORES[found.by])
    lines.append("no store outside that total (disk, network card) carries state through the wipe")
    lines.append(_size(found.welcome, machine_bytes))
    return lines


def _size(welcome: Welcome, machine_bytes: int | None) -> str:
    """Whose word the machine's size is."""
    if machine_bytes is None:
        return f"the machine has {_stated(welcome)} bytes: {welcome.source}"
    return f"the machine has {machine_bytes} bytes: declared"
