"""`ullage redteam memory`: every cheat answers erasures from a process of its own, and is caught or not."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ullage.claims import Bound, Claim, Evidence, Trust
from ullage.errors import FaultError, IntegrityError, UsageError
from ullage.memory.calibration import Calibration
from ullage.memory.erasure import MODES, Plan
from ullage.memory.protocol.messages import Code
from ullage.memory.protocol.wire import AgentRefusedError
from ullage.memory.residency.verify import HoldPlan
from ullage.memory.verifier import Declared, run_erasure, run_hold
from ullage.model.builtin import builtin_path
from ullage.redteam.memory.cheat import ALL_MODES, CHAIN, HOLD, SPOTS, MemoryCheat, Setting
from ullage.redteam.memory.registry import CHEATS, get_cheat

SHARE = 0.25
_CHAIN_STEPS = 128  # few, since what they read is a part of a small region
_HOLD_ROUNDS = 8
_SPOT_ROUNDS = 5  # a cheat that is late is asked again until they are used up
_BUSY_TRIES = 120
_TOLD_EVERY = 10


@dataclass(frozen=True)
class Size:
    """Bytes of the region and runs a cheat and mode."""

    region: int
    runs: int


QUICK, FULL = Size(32 << 20, 3), Size(256 << 20, 200)


@dataclass(frozen=True)
class Row:
    """Runs of one cheat in one mode. Caught: a failed verdict, or a claim no higher than the truth."""

    name: str
    mode: str
    runs: int
    caught: int
    expected: float
    allowed_by: str | None
    truth: float
    highest_claim: float

    @property
    def is_as_expected(self) -> bool:
        return self.allowed_by is not None or self.caught == self.runs

    def to_dict(self) -> dict[str, object]:
        return {
            "name": self.name,
            "mode": self.mode,
            "runs": self.runs,
            "caught": self.caught,
            "expected": self.expected,
            "allowed_by": self.allowed_by,
            "truth": self.truth,
            "highest_claim": self.highest_claim,
        }


@contextlib.contextmanager
def agent_process(*arguments: str) -> Iterator[str]:
    """`ullage ARGUMENTS` until the block ends; yields the address that it prints."""
    command = [sys.executable, "-P", "-m", "ullage", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert process.stdout is not None  # noqa: S101 - asked for above
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            raise FaultError(f"`ullage {' '.join(arguments)}` did not start.")
        yield line.split()[-1]
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def run_suite(
    calibration: Calibration,
    size: Size,
    only: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _: None,
    modes: Sequence[str] = (),
) -> list[Row]:
    """Play every cheat (or `only` those) in every mode that it knows (or in these `modes`).

    Raises UsageError for a mode that does not exist.
    """
    if wrong := set(modes) - set(ALL_MODES):
        raise UsageError(f"There is no mode {sorted(wrong)[0]!r}; there are {', '.join(ALL_MODES)}.")
    cheats = [get_cheat(name) for name in only] or list(CHEATS.values())
    rows = []
    limit = str(size.region >> 20)
    with (
        agent_process(
            "agent", "--listen", "127.0.0.1:0", "--machine", "host", "--limit-mib", limit
        ) as helper,
        tempfile.TemporaryDirectory(prefix="ullage-") as folder,
    ):
        for cheat in cheats:
            setting = Setting(size.region, SHARE, Path(folder), helper)
            wanted = [mode for mode in cheat.modes if not modes or mode in modes]
            for mode in wanted:
                progress(f"{cheat.name}, {mode}")
                rows.append(_play(cheat, mode, setting, size.runs, calibration, progress))
    return rows


def _challenge(address: str, mode: str, setting: Setting, machine: int | None, rates: Calibration) -> float:
    """What a verifier claims of the agent there; 0 for one that it turns away."""
    for _ in range(_BUSY_TRIES):
        try:
            claims = _claims(address, mode, setting, machine, rates)
        except AgentRefusedError as error:
            if error.code is Code.FAULT:  # a cheat that breaks down proves nothing about the verifier
                raise FaultError("The cheat's own process failed; its output says why.") from error
            if error.code is not Code.BUSY:
                return 0.0
            time.sleep(1)  # it still works at a question that the verifier gave up; nothing was asked now
        except IntegrityError:
            return 0.0
        else:
            return claims[0].value or 0.0
    raise FaultError(f"The agent at {address} stayed busy for {_BUSY_TRIES} seconds.")


def _claims(
    address: str, mode: str, setting: Setting, machine: int | None, rates: Calibration
) -> tuple[Claim, ...]:
    if mode == HOLD:
        plan = HoldPlan(steps=_CHAIN_STEPS, rounds=_HOLD_ROUNDS, budget=setting.size)
        declared = Declared(builtin_path(), machine)
        return run_hold(address, plan, rates, declared, inputs={}, dump=False).claims
    return run_erasure(address, _erasure(mode, setting.size), rates, machine, {})[1]


def _erasure(mode: str, size: int) -> Plan:
    if mode == CHAIN:
        return Plan("stream", size, by="chain", steps=_CHAIN_STEPS)
    if mode == SPOTS:
        return Plan("rate-gap", size, by="spots", rounds=_SPOT_ROUNDS)
    return Plan(next(known for known in MODES if known == mode), size, by="pass")


def _play(  # noqa: PLR0917 - what makes one row of the table
    cheat: MemoryCheat,
    mode: str,
    setting: Setting,
    runs: int,
    calibration: Calibration,
    progress: Callable[[str], None],
) -> Row:
    machine = cheat.machine_bytes(setting) if cheat.machine_bytes else None
    truth = 1 - cheat.withholds(setting)
    caught, highest, expected = 0, 0.0, 1.0
    arguments = [
        "redteam", "memory-agent", cheat.name, "--listen", "127.0.0.1:0",
        "--size-mib", str(setting.size >> 20),
        "--share", str(setting.share), "--folder", str(setting.folder), "--helper", setting.helper or "",
    ]  # fmt: skip
    with agent_process(*arguments) as address:
        for run in range(1, runs + 1):
            claimed = _challenge(address, mode, setting, machine, calibration)
            highest = max(highest, claimed)
            caught += claimed <= truth
            if run % _TOLD_EVERY == 0 and run < runs:
                progress(f"{cheat.name}, {mode}: {caught} of {run} caught")
    if cheat.allowed_by:
        expected = 0.0
    return Row(cheat.name, mode, runs, caught, expected, cheat.allowed_by, truth, highest)


def table(rows: Sequence[Row]) -> list[str]:
    """For a terminal."""
    lines = [f"{'cheat':<20}{'mode':<10}{'caught':>9}{'expected':>10}{'truth':>8}{'claim':>8}  allowed by"]
    lines += [
        f"{row.name:<20}{row.mode:<10}{f'{row.caught}/{row.runs}':>9}{row.expected:>10.6f}"
        f"{row.truth:>8.3f}{row.highest_claim:>8.3f}  {row.allowed_by or ''}"
        for row in rows
    ]
    return lines


def claims_of(rows: Sequence[Row], plan_error: float = 1e-6) -> list[Claim]:
    """The share of runs, over the cheats that no assumption allows, in which a claim was too high."""
    judged = [row for row in rows if row.allowed_by is None]
    runs = sum(row.runs for row in judged)
    missed = runs - sum(row.caught for row in judged)
    if not runs:
        return []
    return [
        Claim(
            name="memory.cheats_missed",
            value=missed / runs,
            unit="share of runs whose claim was above the truth",
            bound=Bound.UPPER,
            evidence=Evidence.MEASURED,
            assumptions=(
                f"by construction at most {plan_error:g} a run under the assumptions of the claims",
            ),
            trusts=(Trust.VERIFIER,),
            method="redteam-memory/1",
            sample=f"{missed} of {runs} runs of {len(judged)} cheats and modes",
        )
    ]
