"""`ullage memory`: secure erasure, the wipe cycle and residency, from the verifier's side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ullage.cli.progress import Quiet, meter

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ullage.claims import Claim
    from ullage.memory.calibration import Calibration
    from ullage.memory.erasure import By
    from ullage.memory.erasure import Mode as MemoryMode
    from ullage.memory.residency.cache_check import Recompute

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Keys = Annotated[Path, typer.Option(help="Folder of the verifier's keys, made by `ullage keys init`.")]
AgentAt = Annotated[str, typer.Argument(help="HOST:PORT of the prover's agent.")]
Calibrated = Annotated[Path, typer.Option(help="Made by `ullage memory calibrate` on the verifier's twin.")]
MachineMib = Annotated[
    int | None, typer.Option(min=1, help="The machine's memory as declared or inspected. Default: its word.")
]
Space = Annotated[
    int, typer.Option(min=0, max=254, help="0 is main memory, 1 … are devices, 254 is all at once.")
]
AtLeast = Annotated[
    float, typer.Option(min=0, max=1, help="Share of the machine that has to be proven, or the end is 3.")
]
Mode = Annotated[str, typer.Option(help="'stream' sends the noise, 'rate-gap' a seed for it.")]


def calibrate(
    *,
    keys: Keys,
    out: Annotated[Path, typer.Option(help="Where the signed calibration goes.")],
    store: Annotated[
        Path | None,
        typer.Option(help="A folder on the fastest disk of such a machine. Default: it has none."),
    ] = None,
    region_mib: Annotated[int, typer.Option(min=16, help="Memory to measure over.")] = 1024,
    cores: Annotated[
        int | None, typer.Option(min=1, help="Cores of such a machine. Default: all that this one has.")
    ] = None,
    accelerators: Annotated[
        float, typer.Option(min=0, help="AES-256 in GB/s that its accelerators can do beside the cores.")
    ] = 0.0,
    outside_us: Annotated[
        float,
        typer.Option(min=1, max=1e6, help="Shortest round trip in microseconds to anything outside of it."),
    ] = 50.0,
) -> None:
    """Measure a machine of the prover's kind, while it is idle, and sign the figures.

    Run this on the verifier's own twin of the prover's machine, never on the prover.
    """
    from ullage.audit.bundle.envelope import seal_payload
    from ullage.log.keys import load_verifier_keys
    from ullage.memory.calibration import PAYLOAD_TYPE
    from ullage.memory.measure import calibrate as measure
    from ullage.memory.report import calibration_lines

    signer = load_verifier_keys(keys).verdict
    found = measure(
        region_mib << 20, store, cores=cores, accelerators=accelerators * 1e9, outside=outside_us * 1e-6
    )
    out.write_bytes(seal_payload(found.payload(), PAYLOAD_TYPE, signer))
    typer.echo("\n".join(calibration_lines(found)))


def erase(
    agent: AgentAt,
    *,
    keys: Keys,
    calibration: Calibrated,
    mode: Mode = "stream",
    size_mib: Annotated[int, typer.Option(min=0, help="How much to erase; 0 for all it reaches.")] = 0,
    machine_mib: MachineMib = None,
    space: Space = 0,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Questions at most.")] = 20,
    quorum: Annotated[int, typer.Option(min=1, help="How many must be answered in time.")] = 1,
    by: Annotated[
        str | None,
        typer.Option(
            help="'pass' asks for everything; 'spots' and 'chain' for small blocks here and there, all at "
            "once or one after the other: a disk is slow at these.",
            show_default="what proves more on such a machine",
        ),
    ] = None,
    slack: Annotated[float, typer.Option(min=1, help="Deadline over the calibrated time.")] = 1.2,
    advantage: Annotated[
        float, typer.Option(min=1, help="How much faster than calibrated the prover may rebuild.")
    ] = 1.25,
    at_least: AtLeast = 0.0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Overwrite a machine's memory and have it prove that it did.

    Ends with 1 when an answer was wrong, and with 3 when all were right but too few came in time, or less
    than --at-least is proven.
    """
    from ullage.memory.erasure import Plan
    from ullage.memory.report import erasure_lines, erasure_record
    from ullage.memory.verifier import run_erasure

    plan = Plan(_mode(mode), size_mib << 20, space, rounds, quorum, slack, advantage, by=_by(by))
    rates, inputs = _read_calibration(calibration, keys)
    machine = None if machine_mib is None else machine_mib << 20
    with meter(quiet=quiet) as progress:
        found, claims = run_erasure(agent, plan, rates, machine, inputs, progress=progress)
    if as_json:
        typer.echo(json.dumps(erasure_record(found, rates, claims)))
    else:
        typer.echo("\n".join(erasure_lines(found, rates, claims)))
    _finish({found.verdict}, claims, at_least)


def cycle(
    agent: AgentAt,
    *,
    keys: Keys,
    calibration: Calibrated,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of the declared model, sent after the wipe.", show_default="built-in"),
    ] = None,
    server: Annotated[str | None, typer.Option(help="URL of the server, to time its first token.")] = None,
    mode: Mode = "stream",
    every: Annotated[str, typer.Option(help="From one beginning to the next: 180s, 3m, 1h.")] = "3m",
    count: Annotated[int, typer.Option(min=1, help="Cycles.")] = 1,
    size_mib: Annotated[int, typer.Option(min=0, help="How much to erase; 0 for all it reaches.")] = 0,
    space: Space = 0,
    serve_mib: Annotated[int, typer.Option(min=1, help="Memory that the server gets back.")] = 1024,
    machine_mib: MachineMib = None,
    at_least: AtLeast = 0.0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Wipe a serving machine again and again: stop, erase, challenge, reload the declared weights, serve.

    The server runs with `ullage serve --agent`. Ends with 1 when an erasure failed, with 3 when
    one came late or proves less than --at-least.
    """
    from ullage.claims import to_json
    from ullage.memory.claims import cycle_claims
    from ullage.memory.cycle import Cycle, CycleSettings, repeat, run_cycle
    from ullage.memory.erasure import Plan
    from ullage.memory.report import cycle_line, erasure_record
    from ullage.model.builtin import builtin_path

    rates, inputs = _read_calibration(calibration, keys)
    plan = Plan(_mode(mode), size_mib << 20, space)
    settings = CycleSettings(model or builtin_path(), serve_mib << 20, server)
    period = _seconds(every)
    machine = None if machine_mib is None else machine_mib << 20

    def show(done: Cycle) -> None:
        typer.echo(cycle_line(done), err=as_json)

    with meter(quiet=quiet) as progress:
        cycles = repeat(
            lambda: run_cycle(agent, plan, rates, settings, progress, machine=machine),
            period,
            count,
            show,
            progress,
        )
    worst = max(cycles, key=lambda done: done.phases.total)
    claims = cycle_claims(worst, period, machine, inputs)
    if as_json:
        rows = [{"phases": vars(done.phases), **erasure_record(done.erasure, rates, ())} for done in cycles]
        typer.echo(json.dumps({"claims": to_json(claims), "cycles": rows}))
    else:
        typer.echo("\n".join(claim.render() for claim in claims))
    each = [claim for done in cycles for claim in cycle_claims(done, period, machine, inputs)]
    _finish({done.erasure.verdict for done in cycles}, each, at_least)


def hold(
    agent: AgentAt,
    *,
    keys: Keys,
    calibration: Calibrated,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the declared model.", show_default="built-in")
    ] = None,
    budget_mib: Annotated[
        int, typer.Option(min=1, help="What weights, key-value memory and noise fill together.")
    ] = 64,
    dtype: Annotated[str, typer.Option(help="Precision that the server runs in.")] = "float32",
    machine_mib: MachineMib = None,
    steps: Annotated[
        int, typer.Option(min=1, max=1 << 20, help="Steps of a chain, of 64 blocks of 128 bytes each.")
    ] = 2048,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Chains at most.")] = 20,
    quorum: Annotated[int, typer.Option(min=1, help="How many must be in time.")] = 3,
    pause: Annotated[float, typer.Option(min=0, help="Mean seconds between chains.")] = 0,
    cache_mib: Annotated[
        int, typer.Option(min=1, help="Most key-value memory that is read out and computed again.")
    ] = 4096,
    dump: Annotated[bool, typer.Option("--dump", help="Compare all declared memory with the model.")] = False,
    at_least: AtLeast = 0.0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Have a serving machine prove at random times that it holds declared weights and noise.

    Weights are those that `ullage memory cycle` sent; key-value memory is recomputed from its tokens; noise
    fills what they leave of the budget. Ends with 1 when an answer was wrong, with 3 when too few came in
    time or less than --at-least is proven.
    """
    from ullage.memory.report import holding_lines, holding_record
    from ullage.memory.residency.verify import HoldPlan
    from ullage.memory.verifier import Declared, run_hold
    from ullage.model.builtin import builtin_path

    rates, inputs = _read_calibration(calibration, keys)
    machine = None if machine_mib is None else machine_mib << 20
    folder = model or builtin_path()
    declared = Declared(folder, machine, _recompute(folder, dtype))
    plan = HoldPlan(steps, rounds, quorum, pause=pause, budget=budget_mib << 20, cache_limit=cache_mib << 20)
    with meter(quiet=quiet) as progress:
        held = run_hold(agent, plan, rates, declared, inputs=inputs, dump=dump, progress=progress)
    typer.echo(json.dumps(holding_record(held)) if as_json else "\n".join(holding_lines(held)))
    _finish({held.holding.verdict}, held.claims, at_least)


def _finish(verdicts: set[str], claims: Sequence[Claim], at_least: float) -> None:
    """End with what the verdicts say, and then with whether every share that was asked for is proven."""
    from ullage.errors import ExitCode

    if verdicts != {"pass"}:
        raise typer.Exit(ExitCode.FAIL if "fail" in verdicts else ExitCode.CANNOT_TELL)
    shares = ("memory.erased_fraction", "memory.resident_fraction")
    proven = min((claim.value or 0.0 for claim in claims if claim.name in shares), default=0.0)
    if proven < at_least:
        typer.echo(f"{proven:.4f} of the machine is proven, {at_least:g} was asked for", err=True)
        raise typer.Exit(ExitCode.CANNOT_TELL)


def _recompute(folder: Path, dtype: str) -> Recompute:
    """The reference's keys and values, from a model that is loaded when the first are wanted."""
    from functools import cache

    @cache
    def load() -> Any:
        from ullage.model.loading import load_causal_lm

        return load_causal_lm(folder, dtype)

    def recompute(tokens: Sequence[int]) -> list[NDArray[np.float32]]:
        from ullage.model.key_values import key_values

        return key_values(load(), tokens)

    return recompute


def _seconds(text: str) -> float:
    """`90`, `90s`, `3m` or `1h` in seconds. Raises UsageError."""
    from ullage.errors import UsageError

    number, unit = (text[:-1], text[-1]) if text[-1:] in ("s", "m", "h") else (text, "s")
    try:
        value = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError:
        value = 0.0
    if not 0 < value < 1e7:
        raise UsageError(f"'{text}' is no time; write 180s, 3m or 1h.")
    return value


def _mode(text: str) -> MemoryMode:
    from ullage.errors import UsageError
    from ullage.memory.erasure import MODES

    for known in MODES:
        if text == known:
            return known
    raise UsageError(f"A mode is one of {', '.join(MODES)}, not '{text}'.")


def _by(text: str | None) -> By | None:
    from ullage.errors import UsageError
    from ullage.memory.erasure import WAYS

    for known in WAYS:
        if text == known:
            return known
    if text is None:
        return None
    raise UsageError(f"An erasure is asked for by {' or '.join(WAYS)}, not '{text}'.")


def _read_calibration(path: Path, keys: Path) -> tuple[Calibration, dict[str, str]]:
    import hashlib
    import time

    from ullage.audit.bundle.envelope import read_envelope, unseal_payload
    from ullage.log.keys import load_verifier_keys
    from ullage.memory.calibration import PAYLOAD_TYPE, Calibration

    verifier = load_verifier_keys(keys).verdict.verifier
    payload = unseal_payload(read_envelope(path), PAYLOAD_TYPE, verifier, "memory calibration")
    digest = "sha256:" + hashlib.sha256(payload).hexdigest()
    return Calibration.parse(payload, time.time_ns()), {"calibration": digest}
