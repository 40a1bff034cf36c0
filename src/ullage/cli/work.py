"""`ullage work`: the prover's agent, the calibration on the twin, and the accounting of compute."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ullage.claims import to_json
from ullage.cli.progress import Quiet, meter
from ullage.errors import ExitCode, MalformedError, UsageError
from ullage.terminal import plain_line

if TYPE_CHECKING:
    from ullage.work.calibration import Calibration
    from ullage.work.run import Costs
    from ullage.work.verifier import Terms
    from ullage.work.window import Window

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
ShapeText = Annotated[str, typer.Option(help="M,K,N of a unit: int8 (M, K) times (K, N).")]
CompanionAddress = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="The verifier's own agent on the same hardware, if there is one."),
]
CompanionSlots = Annotated[
    int | None,
    typer.Option(min=1, max=1024, help="Slots of the companion; as many as the machine's without."),
]
_DEFAULT_SHAPE = "2048,8192,2048"


def agent(
    *,
    listen: Annotated[str, typer.Option(help="HOST:PORT to serve at; port 0 takes a free one.")],
    slots: Annotated[int, typer.Option(min=1, max=1024, help="Workers: one a CPU core, or a GPU.")],
    device: Annotated[str, typer.Option(help="cpu, or a CUDA device such as cuda:0.")] = "cpu",
    full_priority: Annotated[
        bool, typer.Option("--full-priority", help="Do not yield to other processes.")
    ] = False,
) -> None:
    """Run the prover's side: workers that do filler whenever the machine has nothing better to do.

    Prints one line, `listening on HOST:PORT`, when it is ready.
    """
    from functools import partial

    from ullage.work.agent import run_agent
    from ullage.work.prover import Prover
    from ullage.work.stream import parse_address

    _check_device(device, slots)
    host, port = parse_address(listen)
    run_agent(host, port, slots, partial(Prover, device), typer.echo, idle_class=not full_priority)


def calibrate(
    *,
    keys: Annotated[Path, typer.Option(help="The verifier's keys, which sign the calibration.")],
    out: Annotated[Path, typer.Option(help="New file for the calibration.")],
    machine: Annotated[str, typer.Option(help="The machine in words.")],
    slots: Annotated[int, typer.Option(min=1, max=1024, help="Slots that work at once.")],
    cores: Annotated[
        int | None, typer.Option(min=1, help="Physical cores, for the data sheet; as many as slots without.")
    ] = None,
    shape: ShapeText = _DEFAULT_SHAPE,
    seconds: Annotated[float, typer.Option(min=0.5, max=3600, help="How long units are timed.")] = 30.0,
    device: Annotated[str, typer.Option(help="cpu, or a CUDA device such as cuda:0.")] = "cpu",
    inference: Annotated[
        Path | None, typer.Option(help="JSON with the times of inference (docs/formats/work-calibration.md).")
    ] = None,
    honest_windows: Annotated[
        int, typer.Option(min=0, max=10_000, help="Windows of an honest account, for the alarm; 0 for none.")
    ] = 0,
    window: Annotated[float, typer.Option(min=0.5, max=3600, help="Seconds of such a window.")] = 60.0,
    companion: CompanionAddress = None,
    companion_slots: CompanionSlots = None,
    as_json: Json = False,
) -> None:
    """Measure what a unit is worth, on the verifier's own twin of the machine, and sign it.

    Ends with 1 if the peak is below 0.7 of the data sheet, with 3 if there is no data sheet.
    """
    from ullage.audit.bundle.envelope import seal_payload
    from ullage.log.files import write_new
    from ullage.log.keys import load_verifier_keys
    from ullage.work import calibration as room
    from ullage.work.companion import kept_busy
    from ullage.work.datasheet import cpu_nameplate, gpu_nameplate, read_cpuinfo
    from ullage.work.shape import Shape
    from ullage.work.stream import parse_address
    from ullage.work.verifier import Terms

    if out.exists():
        raise UsageError(f"{out} exists; give --out a new file, so that no calibration is lost.")
    if honest_windows == 1:
        raise UsageError("One window says nothing about scatter; give --honest-windows 2 or more, or 0.")
    if (companion or companion_slots) and not (companion and honest_windows):
        raise UsageError(
            "A companion works beside honest windows: give --companion HOST:PORT, --companion-slots and "
            "--honest-windows 40 together."
        )
    beside = parse_address(companion) if companion else None
    signer = load_verifier_keys(keys).verdict
    name = _check_device(device, slots)
    sheet = gpu_nameplate(slots, name) if name else cpu_nameplate(cores or slots, read_cpuinfo())
    unit = Shape.parse(shape)
    terms = Terms(*beside, companion_slots or slots, unit) if beside else None
    with kept_busy(terms):
        found = room.measure(machine, unit, slots, seconds, sheet, device=device)
    if inference:
        found = found.model_copy(update={"inference": room.read_inference(_read(inference))})
    if honest_windows:
        from ullage.work.twin import check_quiet, measure_honest

        honest = check_quiet(measure_honest(found, honest_windows, window, device, terms))
        found = found.model_copy(update={"honest": honest})
    write_new(out, seal_payload(found.to_bytes(), room.PAYLOAD_TYPE, signer), 0o644)
    if as_json:
        derived = {"peak": found.peak, "share_of_sheet": found.share_of_sheet}
        document = found.model_dump(mode="json") | derived
        typer.echo(json.dumps({"claims": [], "calibration": document}))
    else:
        typer.echo("\n".join(_calibration_lines(found)))
    if found.is_credible is not True:
        raise typer.Exit(ExitCode.CANNOT_TELL if found.is_credible is None else ExitCode.FAIL)


def account(
    prover: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where the machine's agent listens.")],
    *,
    calibration: Annotated[Path, typer.Option(help="The calibration of the machine's twin.")],
    calibration_key: Annotated[Path, typer.Option(help="Public key (verdict.pub) of who signed it.")],
    seconds: Annotated[float, typer.Option(min=1, max=1e7, help="How long to account.")] = 60.0,
    window: Annotated[float, typer.Option(min=0.5, max=3600, help="Seconds of a window.")] = 60.0,
    openings: Annotated[int, typer.Option(min=1, max=100_000, help="Rows opened a window.")] = 360,
    due: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds until a unit is late.")] = 5.0,
    full: Annotated[bool, typer.Option("--full", help="Have every product sent and checked.")] = False,
    companion: CompanionAddress = None,
    inspected: Annotated[
        bool, typer.Option("--inspected", help="The number of slots was inspected, not declared.")
    ] = False,
    own_twin: Annotated[
        bool, typer.Option("--own-twin", help="The calibration was measured on hardware of the verifier.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="New folder for claims and evidence.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Account for a machine's compute: verified inference and verified filler over wall time.

    Ends with 0 if every window passed and the alarm was silent, 1 if a window failed or the alarm sounded, 3
    if windows were lost to the hypervisor or the companion was, rows that were asked for never came, or the
    calibration does not stand. Interrupted, it judges the windows that are over. `ullage work credit` adds
    inference, once an audit has verified the log; until then a serving machine looks idle.
    """
    from ullage.work import evidence
    from ullage.work.protocol import Mode
    from ullage.work.run import Accounting, Plan
    from ullage.work.stream import parse_address
    from ullage.work.verifier import Terms

    if out:
        evidence.check_place(out)
    found, digest = load_calibration(calibration, calibration_key)
    host, port = parse_address(prover)
    mode = Mode.FULL if full else Mode.OPENINGS
    terms = Terms(host, port, found.slots, found.unit_shape, mode, due_seconds=due)
    beside = _companion_terms(companion, found, due) if companion else None
    found.check_window(window, beside=beside is not None)
    if found.honest and found.honest.is_beside and not beside:
        typer.echo(
            "the calibration's honest windows had a companion: without one they set no alarm", err=True
        )
    plan = Plan(terms, found.worth, window, max(1, round(seconds / window)), openings, companion=beside)
    accounting = Accounting(plan)
    windows: list[Window] = []
    with meter(quiet=quiet) as progress:
        progress("windows", 0, plan.windows)
        try:
            for one in accounting.windows():
                windows.append(one)
                progress("windows", len(windows), plan.windows)
                if not as_json:
                    typer.echo(_window_line(one))
        except KeyboardInterrupt:
            if not windows:
                raise
            typer.echo(f"interrupted: judged by {len(windows)} of {plan.windows} windows", err=True)
    finish(
        Account(tuple(windows), found, digest, inspected, own_twin), out, accounting.costs, as_json=as_json
    )


@dataclass(frozen=True)
class Account:
    """Windows, and what they are judged by."""

    windows: tuple[Window, ...]
    calibration: Calibration
    digest: str
    inspected: bool
    own_twin: bool


def finish(
    made: Account,
    out: Path | None,
    costs: Costs,
    *,
    as_json: bool,
    inference: Mapping[str, object] | None = None,
) -> None:
    """Print the account, write it to `out`, and exit with what it says. `inference` goes into the JSON."""
    from ullage.work import evidence
    from ullage.work.claims import make_claims
    from ullage.work.verifier import DEPTH

    windows, calibration = list(made.windows), made.calibration
    seconds = min((one.seconds for one in windows), default=math.inf)
    beside = any(window.companion is not None for window in windows)
    alarm = calibration.alarm(seconds, DEPTH, beside=beside)
    expected = alarm.expected
    alarm.add_all(windows)
    claims = make_claims(
        windows,
        calibration,
        subject=calibration.machine,
        inventory_declared=not made.inspected,
        twin=made.own_twin,
        inputs={"calibration": made.digest},
    )
    if out:
        evidence.write(out, claims, windows)
    if as_json:
        document = {
            "claims": to_json(claims),
            "windows": [evidence.row(one) for one in windows],
            "alarm": {
                "fired_at": alarm.fired_at,
                "expected": expected,
                "limit": alarm.limit,
                "beside_companion": beside,
                "windows": alarm.seen,
                "raised_at": alarm.raised_at,
                "raised_to": alarm.expected,
            },
            "verifier_seconds": costs.verifier_seconds,
            "bytes": {"sent": costs.bytes_sent, "received": costs.bytes_received},
            **({"inference": dict(inference)} if inference else {}),
        }
        typer.echo(json.dumps(document))
    else:
        typer.echo("\n".join(claim.render() for claim in claims))
        for window in windows:
            if window.is_impossible or (window.is_stale and not window.is_told):
                typer.echo(
                    f"window {window.index}: {window.accounted():.2f} of the machine is accounted for, more "
                    "than there is: the calibration, the number of slots, or a clock is wrong"
                )
        if alarm.raised_at:
            typer.echo(
                f"from window {alarm.raised_at} on {alarm.expected:.3f} is expected, not {expected:.3f}: "
                "the machine did more than its twin, so calibrate again on a quiet one"
            )
        if alarm.fired_at:
            typer.echo(
                f"alarm at window {alarm.fired_at}: compute is missing that an honest machine would show"
            )
    raise typer.Exit(_exit_code(windows, calibration, alarmed=alarm.fired_at is not None))


def _exit_code(windows: list[Window], calibration: Calibration, *, alarmed: bool) -> ExitCode:
    outcomes = {window.outcome.value for window in windows}
    if alarmed or "fail" in outcomes:
        return ExitCode.FAIL
    if "cannot-tell" in outcomes or calibration.is_credible is False:
        return ExitCode.CANNOT_TELL
    return ExitCode.PASS


def load_calibration(path: Path, key: Path) -> tuple[Calibration, str]:
    """A signed calibration and its digest. Raises UllageError."""
    import hashlib

    from ullage.audit.bundle.envelope import read_envelope, unseal_payload
    from ullage.log.keys import load_verifier
    from ullage.work.calibration import PAYLOAD_TYPE, Calibration

    payload = unseal_payload(read_envelope(path), PAYLOAD_TYPE, load_verifier(key), "work calibration")
    return Calibration.from_bytes(payload), "sha256:" + hashlib.sha256(payload).hexdigest()


def _companion_terms(address: str, calibration: Calibration, due: float) -> Terms:
    """Where the companion listens, as it did when honest windows were measured. Raises UsageError."""
    from ullage.work.stream import parse_address
    from ullage.work.verifier import Terms

    slots = calibration.honest.companion_slots if calibration.honest else None
    if slots is None:
        raise UsageError(
            "The calibration has no honest windows beside a companion, so nobody knows what is honest here; "
            "calibrate with --companion HOST:PORT --honest-windows 40."
        )
    return Terms(*parse_address(address), slots, calibration.unit_shape, due_seconds=due)


def _check_device(device: str, slots: int) -> str | None:
    """The GPU's name, None for the CPU. Raises UsageError."""
    if device == "cpu":
        return None
    if slots > 1:  # workers that share a card would be priced as cards: one would account for all
        raise UsageError(
            f"{device} is one slot, not {slots}: give --slots 1, and start and account for an agent for each "
            "GPU of the machine."
        )
    import torch

    if not device.startswith("cuda") or not torch.cuda.is_available():
        raise UsageError(f"There is no device '{device}' here; use --device cpu.")
    return torch.cuda.get_device_name(device)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read((1 << 20) + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > 1 << 20:
        raise MalformedError(f"{path} is longer than 1 MiB, which no file of this kind is.")
    return data


def _calibration_lines(found: Calibration) -> list[str]:
    from ullage.work.verifier import DEPTH

    worth = found.worth
    lines = [
        f"{kernel.name}: "
        + (f"alone {kernel.alone * 1e3:.1f} ms" if kernel.exact else "not exact here, refused")
        + (f", every slot busy {kernel.smallest * 1e3:.1f} ms" if kernel.smallest else "")
        for kernel in found.kernels
    ]
    lines += [
        f"a unit ({found.shape}) is worth {worth.smallest * 1e3:.2f} slot-ms; honest median "
        f"{worth.median * 1e3:.2f} [{found.together.median_low * 1e3:.2f}, "
        f"{found.together.median_high * 1e3:.2f}] at {found.together.confidence:g}",
        f"peak {found.peak / 1e12:.4g} Top/s over {found.slots} slots",
    ]
    if found.was_disturbed:
        lines.append(
            f"WARNING: the hypervisor took {found.steal:.1%} of the time meanwhile. The median is too slow "
            "by about as much, and an alarm by it hides a tenant of that size: use a quiet machine."
        )
    if found.honest:
        alarm = found.alarm(found.honest.seconds, DEPTH, beside=found.honest.is_beside)
        what = "honest windows beside a companion" if found.honest.is_beside else "honest windows"
        lines.append(
            f"{len(found.honest.fractions)} {what} of {found.honest.seconds:g} s: the alarm expects "
            f"{alarm.expected:.3f} and sounds above {alarm.limit:.3f}"
        )
    if found.sheet:
        verdict = "stands" if found.is_credible else "FAILED: below 0.7"
        lines.append(f"data sheet {found.sheet.operations_per_second / 1e12:.4g} Top/s ({found.sheet.how})")
        lines.append(f"share of the data sheet {found.share_of_sheet:.3f}: the calibration {verdict}")
    return lines


def _window_line(window: Window) -> str:
    steal = "unknown" if window.steal is None else f"{window.steal:.2%}"
    companion = "" if window.companion is None else f"companion {window.companion:.3f}, "
    return (
        f"window {window.index}: {window.credited} units, accounted {window.accounted():.3f} (smallest "
        f"times), {window.accounted(median=True):.3f} (median times), {window.openings} rows opened, "
        f"{window.bad} wrong, {window.missing} missing, {window.late} late, {companion}steal {steal}: "
        f"{window.outcome.value}" + "".join(f"\n  {plain_line(finding)}" for finding in window.findings[:3])
    )
