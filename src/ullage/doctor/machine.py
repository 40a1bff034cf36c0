"""Memory, processor, steal time, accelerator and software of this machine."""

from __future__ import annotations

import importlib.util
import os
import resource
import time
from pathlib import Path

from ullage.doctor.attempt import attempt
from ullage.doctor.finding import Finding, State

_STEAL_SECONDS = 1.0
_STEAL_HIGH, _STEAL_SOME = 0.05, 0.005
_INSTRUCTIONS = (
    "aes",
    "vaes",
    "sha_ni",
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
)
_DEVICES = (("nvidia[0-9]*", "NVIDIA GPU"), ("kfd", "AMD GPU"), ("accel/accel*", "accelerator"))
_EXTRAS = {
    "torch": "model, audit, enforcer",
    "transformers": "model, audit",
    "pyarrow": "bundles",
    "scipy": "bounds",
}


def findings() -> list[Finding]:
    """Locked memory, instruction sets, steal, GPU, software."""
    return [_locked(), _instructions(), _steal(), _accelerator(), _software()]


def steal_share(before: str, after: str) -> float | None:
    """Share of processor time that the hypervisor gave to others between two texts of `/proc/stat`."""
    one, other = _times(before), _times(after)
    if len(one) < 8 or len(other) < 8:
        return None
    total = sum(other[:8]) - sum(one[:8])
    return (other[7] - one[7]) / total if total > 0 else None


def _times(text: str) -> list[int]:
    line = next((line for line in text.splitlines() if line.startswith("cpu ")), "")
    return [int(field) for field in line.split()[1:]]


def _locked() -> Finding:
    outcome = attempt("lock")
    claims = ("memory.erased_fraction", "memory.resident_fraction")
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    unlimited = limit == resource.RLIM_INFINITY
    if outcome.ok and (unlimited or attempt("lock-by-right").ok):
        return Finding(
            "locked-memory", "Locked memory", State.YES, "64 MiB could be locked, and no limit is set",
            "Pages that an agent proves cannot be swapped out meanwhile.", claims,
        )  # fmt: skip
    swap = _swap()
    remedy = "give the agent CAP_IPC_LOCK"
    remedy += "" if unlimited else " or raise the limit (LimitMEMLOCK= of its unit, ulimit -l)"
    means = (
        f"There is no swap, so pages stay where they are all the same; {remedy} to be sure."
        if swap == 0
        else f"Pages may leave memory during a proof: {remedy}, or turn swap off."
    )
    why = outcome.why if unlimited else f"the limit is {limit >> 10:,} KiB"
    if outcome.ok:
        return Finding(
            "locked-memory", "Locked memory", State.PARTLY, f"64 MiB could be locked; {why}", means, claims
        )
    return Finding("locked-memory", "Locked memory", State.NO, f"not permitted ({why})", means, claims)


def _swap() -> int | None:
    try:
        lines = Path("/proc/swaps").read_text("utf-8").splitlines()[1:]
        return sum(int(line.split()[2]) for line in lines)
    except (OSError, ValueError, IndexError):
        return None


def _instructions() -> Finding:
    flags: set[str] = set()
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith(("flags", "Features")):
                flags = set(line.partition(":")[2].split())
                break
    except OSError:
        pass
    if not flags:
        return Finding(
            "instructions", "Instruction sets", State.UNKNOWN, "/proc/cpuinfo does not say",
            "Rates of noise and arithmetic have to be measured.", ("memory.erased_fraction",),
        )  # fmt: skip
    there = [name for name in _INSTRUCTIONS if name in flags]
    fast = "aes" in flags and ("avx2" in flags or "asimd" in flags)
    means = "A transcript is derived bit for bit only where the same instruction set and torch build run."
    if not fast:
        means += " Without AES and wide vectors, noise and audits are slow."
    state = State.YES if fast else State.PARTLY
    return Finding(
        "instructions", "Instruction sets", state, ", ".join(there) or "none that count here", means
    )


def _steal() -> Finding:
    try:
        before = Path("/proc/stat").read_text("ascii")
        time.sleep(_STEAL_SECONDS)
        share = steal_share(before, Path("/proc/stat").read_text("ascii"))
    except (OSError, ValueError):
        share = None
    claims = ("compute.accounted_fraction", "memory.erased_fraction")
    many = len(os.sched_getaffinity(0))
    cores = f"{many} core{'s' * (many != 1)}"
    if share is None:
        return Finding(
            "steal", "Steal time", State.UNKNOWN, f"{cores}; the kernel does not say what is stolen",
            "Timed proofs may fail here for reasons that nobody sees.", claims,
        )  # fmt: skip
    detail = f"{100 * share:.1f} % of the last second went to other machines; {cores}"
    if share < _STEAL_SOME:
        return Finding(
            "steal", "Steal time", State.YES, detail, "Timed proofs and accounting can be made here.", claims
        )
    if share < _STEAL_HIGH:
        means = "Timed proofs need more rounds; windows of an account with much steal are left out."
        return Finding("steal", "Steal time", State.PARTLY, detail, means, claims)
    means = "Accounting says cannot-tell here: what the hypervisor takes looks like a tenant."
    return Finding("steal", "Steal time", State.NO, detail, means, claims)


def _accelerator(devices: Path = Path("/dev")) -> Finding:
    found = [
        (path, what) for pattern, what in _DEVICES for path in sorted(devices.glob(pattern)) if path.exists()
    ]
    claims = ("compute.accounted_fraction", "compute.accounted_flop")
    if not found:
        return Finding(
            "accelerator", "GPU", State.NO, "no device file of one",
            "Audits and work run on the processor: built-in and small models only.", claims,
        )  # fmt: skip
    usable = [path for path, _ in found if os.access(path, os.R_OK | os.W_OK)]
    detail = ", ".join(f"{what} ({path})" for path, what in found[:8])
    if not usable:
        return Finding(
            "accelerator", "GPU", State.NO, f"{detail}; no permission to open it",
            "Give this user the device's group, or run in a container that has the device.", claims,
        )  # fmt: skip
    return Finding(
        "accelerator", "GPU", State.YES, detail,
        "Its memory is a space for `ullage memory erase --space`, and its time a slot of `ullage work`.",
        claims,
    )  # fmt: skip


def _software() -> Finding:
    missing = [name for name in _EXTRAS if importlib.util.find_spec(name) is None]
    if not missing:
        return Finding(
            "software", "Software", State.YES, f"{', '.join(_EXTRAS)} are installed",
            "Every command can run; a tap needs none of them.",
        )  # fmt: skip
    what = "; ".join(f"{name} ({_EXTRAS[name]})" for name in missing)
    return Finding(
        "software", "Software", State.PARTLY, f"not installed: {what}",
        "Tap, log and witness run; for the rest install ullage[audit].", ("token.mismatch_rate",),
    )  # fmt: skip
