"""Cheats of the registry, played as the suite plays them, in modes that the erasure tests leave out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.memory.agents import CALIBRATION, MIB, agent, running
from ullage.memory.residency.verify import HoldPlan
from ullage.memory.verifier import Declared, run_hold
from ullage.model.builtin import builtin_path
from ullage.redteam.memory.cheat import ALL_MODES, Setting
from ullage.redteam.memory.registry import CHEATS, get_cheat

SIZE = 16 * MIB
PLAN = HoldPlan(steps=100, rounds=2, quorum=1, budget=SIZE)
# A claim close to all that answers in time: then what is above the truth shows.
RATES = CALIBRATION.model_copy(update={"alternative_seconds": 1.0})


@pytest.fixture(scope="module")
def helper() -> Iterator[str]:
    """The honest agent elsewhere that some cheats lean on."""
    with agent(SIZE // MIB) as address:
        yield address


def claimed(name: str, helper: str, folder: Path) -> tuple[float, float]:
    """(what a verifier claims, the truth) of one cheat under chains."""
    cheat = get_cheat(name)
    setting = Setting(SIZE, 0.25, folder, helper)
    machine = cheat.machine_bytes(setting) if cheat.machine_bytes else None
    arguments = (
        "--listen", "127.0.0.1:0", "--size-mib", str(SIZE // MIB), "--share", "0.25",
        "--folder", str(folder), "--helper", helper,
    )  # fmt: skip
    with running("redteam", "memory-agent", name, *arguments) as (address, _):
        held = run_hold(address, PLAN, RATES, Declared(builtin_path(), machine), inputs={}, dump=False)
    return held.claims[0].value or 0.0, 1 - cheat.withholds(setting)


@pytest.mark.parametrize("name", ["shared-seed", "unreached", "balloon-inspected"])
def test_chains_claim_no_more_than_the_truth(name: str, helper: str, tmp_path: Path) -> None:
    claim, truth = claimed(name, helper, tmp_path)
    assert claim <= truth


@pytest.mark.parametrize("name", ["second-machine", "balloon-believed"])
def test_what_assumptions_allow_does_pass(name: str, helper: str, tmp_path: Path) -> None:
    """Otherwise the table's "allowed by" would only be a guess, and the cheat maybe broken."""
    assert get_cheat(name).allowed_by
    claim, truth = claimed(name, helper, tmp_path)
    assert claim > truth


def test_every_mode_has_cheats_and_an_honest_agent_beside() -> None:
    for mode in ALL_MODES:
        names = {cheat.name for cheat in CHEATS.values() if mode in cheat.modes}
        assert {"honest", "drop", "concentrated-gap", "compress", "disk", "swap", "throttle", "unreached",
                "second-machine", "helper-capped", "balloon-inspected", "shared-seed"} <= names  # fmt: skip
