"""Calibration and data sheets."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from pydantic import ValidationError

from ullage.claims import Evidence, Reading
from ullage.cli.work import _calibration_lines, _check_device
from ullage.errors import FaultError, MalformedError, UndecidedError, UsageError
from ullage.work.calibration import (
    Calibration,
    HonestWindows,
    KernelTime,
    Sheet,
    UnitTime,
    measure,
    median_interval,
)
from ullage.work.claims import make_claims
from ullage.work.datasheet import cpu_nameplate, gpu_nameplate
from ullage.work.run import Accounting
from ullage.work.shape import Shape
from ullage.work.twin import check_quiet, measure_honest
from ullage.work.window import Window

CPUINFO = (
    "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 106\nmodel name\t: Intel(R) Xeon(R) @ 2.80GHz\n\n"
)
MADE = Calibration(
    machine="m",
    slots=4,
    shape="2048,8192,2048",
    kernels=(
        KernelTime(name="int8", exact=True, alone=0.1, smallest=0.16, median=0.17, repeats=5),
        KernelTime(name="bfloat16", exact=False, alone=0.01, smallest=0.01, median=0.01, repeats=5),
        KernelTime(name="float32", exact=True, alone=0.5, smallest=None, median=None, repeats=5),
    ),
    generate=0.01,
    commit=0.01,
    together=UnitTime(
        smallest=0.19, median=0.2, median_low=0.19, median_high=0.21, confidence=0.99, units=100
    ),
    sheet=Sheet(device="d", operations_per_second=2.0e12, how="h"),
    created="1",
    software={},
)


def test_a_unit_is_worth_the_fastest_exact_kernel_and_its_steps() -> None:
    assert MADE.fastest.name == "int8"
    assert MADE.worth.smallest == pytest.approx(0.18)
    assert MADE.worth.median == 0.2
    assert MADE.peak == pytest.approx(4 * 2 * 2048 * 8192 * 2048 / 0.16)


def test_a_calibration_says_what_the_hypervisor_took_meanwhile() -> None:
    assert not MADE.was_disturbed
    assert not MADE.model_copy(update={"steal": 0.02}).was_disturbed
    taken = MADE.model_copy(update={"steal": 0.05})
    assert taken.was_disturbed
    assert Calibration.from_bytes(taken.to_bytes()) == taken
    assert any("hypervisor took 5.0%" in line for line in _calibration_lines(taken))
    assert not any("hypervisor" in line for line in _calibration_lines(MADE))


def test_a_calibration_far_below_the_data_sheet_fails_and_only_nameplate_stands() -> None:
    assert MADE.is_credible is True
    slow = MADE.model_copy(update={"sheet": Sheet(device="d", operations_per_second=3e12, how="h")})
    assert slow.is_credible is False
    window = Window(0, 0, 60.0, 4, 1200, 0, 360, 0, 0, slow.worth)
    claims = {
        claim.name: claim
        for claim in make_claims([window], slow, subject="m", inventory_declared=False, twin=True, inputs={})
    }
    assert claims["compute.accounted_fraction"].evidence is Evidence.NOT_COVERED
    assert claims["compute.accounted_flop"].evidence is Evidence.NOT_COVERED
    assert claims["compute.accounted_flop_nameplate"].value is not None


def test_the_claims_say_how_often_their_checks_err() -> None:
    opened = Window(0, 0, 60.0, 4, 1200, 0, 360, 0, 0, MADE.worth)
    whole = Window(0, 0, 60.0, 4, 1024, 0, 0, 0, 0, MADE.worth)

    def sample(window: Window) -> str:
        made = make_claims([window], MADE, subject="m", inventory_declared=False, twin=True, inputs={})
        return made[0].sample

    assert "(1 - x)^360" in sample(opened)
    assert "any with < 2^-50" in sample(whole)


def test_an_inspector_does_not_rest_on_the_provers_calibration() -> None:
    window = Window(0, 0, 60.0, 4, 1200, 0, 360, 0, 0, MADE.worth)
    claims = make_claims([window], MADE, subject="m", inventory_declared=False, twin=False, inputs={})
    read = {claim.name: claim.read_as(Reading.INSPECTOR).value for claim in claims}
    assert read["compute.accounted_fraction"] is None
    assert read["work.uncomputed_share"] is not None
    # Whose data sheet it is, and what a token takes, is said by who calibrates, too.
    assert read["compute.accounted_flop_nameplate"] is None
    own = make_claims([window], MADE, subject="m", inventory_declared=False, twin=True, inputs={})
    read = {claim.name: claim.read_as(Reading.INSPECTOR).value for claim in own}
    assert read["compute.accounted_flop_nameplate"] is not None


def test_the_file_comes_back_and_another_is_refused() -> None:
    assert Calibration.from_bytes(MADE.to_bytes()) == MADE
    for data in (b"", b"{}", MADE.to_bytes().replace(b"2048,8192,2048", b"2048,8192,2047"), b" " * (2 << 20)):
        with pytest.raises(MalformedError):
            Calibration.from_bytes(data)
    with pytest.raises(MalformedError, match="on the twin again"):
        Calibration.from_bytes(MADE.to_bytes().replace(b'"version":3', b'"version":2'))
    inexact = MADE.model_copy(update={"kernels": MADE.kernels[1:]})
    with pytest.raises(MalformedError, match="no exact kernel"):
        Calibration.from_bytes(inexact.to_bytes())


def test_measuring_this_machine() -> None:
    found = measure("here", Shape(128, 512, 128), 1, 0.3, None, repeats=1)
    assert 0 < found.worth.smallest <= found.worth.median
    assert {k.name for k in found.kernels if k.exact} == {"int8", "int8-rows", "float32", "packed-float64"}
    assert found.is_credible is None
    assert found.steal is not None  # Linux tells
    assert 0 <= found.steal <= 1


def test_the_alarm_comes_from_honest_windows_where_there_are_some() -> None:
    assert MADE.alarm(60.0, 2).expected == pytest.approx(1 - 2 * 0.2 / 60 - 0.02)
    honest = HonestWindows(seconds=60.0, fractions=(0.99, 0.99, 0.99))
    known = MADE.model_copy(update={"honest": honest})
    assert Calibration.from_bytes(known.to_bytes()) == known
    assert known.alarm(60.0, 2).expected == pytest.approx(0.99)
    assert known.alarm(120.0, 2).expected == pytest.approx(0.99 + 2 * 0.2 / 120)
    for fractions in ((0.99,), (0.99, float("nan")), (0.99, -1.0)):
        with pytest.raises(ValidationError):
            HonestWindows(seconds=60.0, fractions=fractions)


def test_windows_shorter_than_the_honest_ones_set_no_alarm() -> None:
    """They scatter by more than the limit was made for: honest machines would be accused."""
    for slots in (None, 4):
        honest = HonestWindows(seconds=60.0, companion_slots=slots, fractions=(0.99, 0.99, 0.98))
        known = MADE.model_copy(update={"honest": honest})
        with pytest.raises(UsageError, match="--window 60 or more"):
            known.alarm(59.9, 2, beside=slots is not None)
        with pytest.raises(UsageError, match=r"--window 59\.9"):
            known.check_window(59.9, beside=slots is not None)
        known.check_window(60.0, beside=slots is not None)
        known.check_window(1.0, beside=slots is None)  # where they set no alarm


@pytest.mark.slow
def test_an_honest_account_of_this_machine() -> None:
    found = measure("here", Shape(128, 512, 128), 1, 0.3, None, repeats=1)
    try:
        honest = measure_honest(found, 3, 0.7)
    except UndecidedError as error:
        pytest.skip(str(error))  # as it should end, where the hypervisor took time
    assert len(honest.fractions) == 3
    assert all(0.01 < fraction < 1.9 for fraction in honest.fractions)  # mostly protocol, in units so small


def test_windows_that_the_hypervisor_took_time_from_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in an account, too: the alarm is for windows as it will see them."""
    taken = iter([0.0, 0.3, 0.01, 0.2, None, 0.0])
    window = Window(
        index=0, start_unix=0, seconds=60.0, slots=4, credited=1000, late=0, openings=20, bad=0, missing=0,
        worth=MADE.worth,
    )  # fmt: skip
    asked: list[int] = []

    def windows(accounting: Accounting) -> Iterator[Window]:
        asked.append(accounting.plan.windows)
        yield from (replace(window, steal=next(taken)) for _ in range(accounting.plan.windows))

    monkeypatch.setattr(Accounting, "windows", windows)
    made = MADE.model_copy(update={"slots": 0})  # nobody has to answer
    assert len(measure_honest(made, 3, 60.0).fractions) == 3
    assert asked == [6]
    assert next(taken) == 0.0  # no more was asked for than needed
    taken = iter([0.3] * 5 + [0.0])
    with pytest.raises(UndecidedError, match="from 5 of 6"):
        measure_honest(made, 3, 60.0)
    window = replace(window, bad=1)
    taken = iter([0.0])
    with pytest.raises(FaultError, match="honest account failed"):
        measure_honest(made, 3, 60.0)


@pytest.mark.parametrize("credited", [1500, 2600])
def test_a_calibration_that_its_own_twin_outruns_is_not_signed(
    monkeypatch: pytest.MonkeyPatch, credited: int
) -> None:
    """Each honest window of an account by it would fail."""
    window = Window(0, 0, 60.0, 4, credited, 0, 20, 0, 0, MADE.worth, steal=0.0)
    monkeypatch.setattr(Accounting, "windows", lambda _: (one for one in [window] * 6))
    with pytest.raises(FaultError, match="Calibrate again on a quiet machine"):
        measure_honest(MADE.model_copy(update={"slots": 0}), 3, 60.0)


def test_windows_that_scatter_set_no_alarm() -> None:
    quiet = HonestWindows(seconds=60.0, fractions=(0.97, 0.972, 0.969, 0.971, 0.968))
    assert check_quiet(quiet) is quiet
    with pytest.raises(UndecidedError, match="quiet twin"):
        check_quiet(HonestWindows(seconds=60.0, fractions=(0.97, 1.1, 0.9, 0.8, 1.0)))


def test_data_sheets() -> None:
    sheet = cpu_nameplate(4, CPUINFO)
    assert sheet is not None
    assert sheet.operations_per_second == pytest.approx(4 * 256 * 2.8e9)
    assert cpu_nameplate(4, "vendor_id : ARM\n") is None
    assert cpu_nameplate(4, "") is None
    gpu = gpu_nameplate(2, "NVIDIA H200")
    assert gpu is not None
    assert gpu.operations_per_second == 2 * 1979e12
    assert gpu_nameplate(1, "NVIDIA L40S") != gpu_nameplate(1, "NVIDIA L4")
    assert gpu_nameplate(1, "abacus") is None
    assert gpu_nameplate(1, "NVIDIA L40") is None  # no L4: it does half as much again
    known = gpu_nameplate(1, "NVIDIA A100-SXM4-80GB")
    assert known is not None
    assert known.operations_per_second == 624e12


def test_workers_that_share_a_gpu_are_not_priced_as_gpus() -> None:
    with pytest.raises(UsageError, match="cuda:0 is one slot, not 4"):
        _check_device("cuda:0", 4)
    assert _check_device("cpu", 4) is None


def test_the_interval_of_a_median() -> None:
    values = [float(n) for n in range(1, 102)]
    low, high = median_interval(values, 0.99)
    assert low < 51 < high
    assert (low, high) == (38.0, 64.0)
    assert median_interval([3.0], 0.99) == (3.0, 3.0)


def test_a_unit_is_worth_no_more_than_one_was_seen_to_take() -> None:
    """The steps added up may take longer than a whole unit, whose steps overlap."""
    quick = MADE.model_copy(update={"together": MADE.together.model_copy(update={"smallest": 0.05})})
    assert quick.worth.smallest == 0.05
    slow = MADE.kernels[0].model_copy(update={"name": "slower", "smallest": 9.0})
    for kernels in ((MADE.kernels[0], slow), (slow, MADE.kernels[0])):
        assert MADE.model_copy(update={"kernels": kernels}).fastest.name == MADE.kernels[0].name
