"""`ullage audit`: recompute a log and say whether the server did what it declares."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ullage.claims import to_json
from ullage.cli.progress import meter
from ullage.errors import UsageError
from ullage.terminal import plain_line

if TYPE_CHECKING:
    from ullage.audit.bounds.window import CovertFigures
    from ullage.audit.run import AuditResult
    from ullage.audit.watch import Alarm


def audit(
    log: Annotated[Path, typer.Argument(help="A log's folder.")],
    *,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the declared model; the built-in one without.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Precision whose limit applies: float32 or bfloat16; the declared one without."),
    ] = None,
    sample: Annotated[str, typer.Option(help="How many records to draw, or 'all'.")] = "all",
    key: Annotated[
        Path | None, typer.Option(help="The tap's public key (log.pub), from a source that you trust.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="The verifier's keys: draw a sample, sign the verdict.")
    ] = None,
    record_keys: Annotated[
        Path | None,
        typer.Option(help="What opens the records: a file of `ullage log open`, or the tap's keys."),
    ] = None,
    seed_key: Annotated[
        Path | None, typer.Option(help="The tap's seed.key, if it was handed over: check every seed.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New folder for the evidence bundle.")] = None,
    entropy: Annotated[
        bool, typer.Option("--entropy", help="Also write each distribution's entropy (slower).")
    ] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="A signed calibration: bound covert bits, watch for deviations.")
    ] = None,
    calibration_key: Annotated[
        Path | None, typer.Option(help="The key that signed it (verdict.pub); yours without.")
    ] = None,
    bound: Annotated[
        float | None, typer.Option(help="Raw logits by which both sides may differ: count admissible tokens.")
    ] = None,
    draws: Annotated[
        int | None, typer.Option(help="Draws with replacement, by size, for a bound; instead of --sample.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="Of the bound from draws.")] = 0.99,
    target: Annotated[
        float, typer.Option(help="Covert share to show; says how many draws that takes.")
    ] = 1e-4,
    alpha: Annotated[float, typer.Option(help="False alarms of the deviation alarm, at most.")] = 1e-4,
    capacity: Annotated[
        bool, typer.Option("--capacity", help="Also path figure, uniform walk and count; with --bound.")
    ] = False,
    walks: Annotated[int, typer.Option(help="Messages to walk from, 8 times each.")] = 16,
    exact: Annotated[
        bool, typer.Option("--exact", help="Derive an enforced log's transcripts again, bit for bit.")
    ] = False,
    reference_url: Annotated[
        str | None,
        typer.Option(
            help="Logits from an OpenAI-compatible engine of your own, http://HOST:PORT (docs/engines.md)."
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads: for --exact as the enforcer had (2), of each Ray worker (1)."),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="What recomputes: local, or ray for many machines (docs/scale-out.md).")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="With --engine ray; all that fit without.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of your Ray cluster's head, or auto; without, one for this audit."),
    ] = None,
    sealed: Annotated[
        Path | None,
        typer.Option(help="Audit in a sealed process; this file gets its verdict of 256 bytes, no more."),
    ] = None,
    release_after: Annotated[
        float | None, typer.Option(min=1, help="With --sealed: seconds until the verdict is shown.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")] = False,
) -> None:
    """Recompute a log with the declared model, and sign a verdict.

    Ends with 0 for pass, 1 for fail, 2 when log and request do not go together, 3 for cannot-tell.
    """
    records = parse_sample(sample)
    if draws is not None and records is not None:
        raise UsageError("--draws and --sample are two ways to draw: give one of them.")
    if exact and (dtype is not None or entropy):
        raise UsageError("--exact compares bits, with no limit and no logits kept: no --dtype, no --entropy.")
    from ullage.model.builtin import builtin_path

    if release_after is not None and sealed is None:
        raise UsageError("--release-after is the time of a sealed verdict: give it with --sealed.")
    if sealed is not None:
        others = (
            seed_key,
            out,
            calibration,
            calibration_key,
            bound,
            draws,
            reference_url,
            threads,
            workers,
            address,
        )
        if (
            keys is None
            or any(one is not None for one in others)
            or capacity
            or exact
            or entropy
            or engine != "local"
        ):
            raise UsageError(
                "--sealed signs one verdict: it takes --keys, --sample, --dtype, --key and --record-keys."
            )
        from ullage.cli.audit_sealed import run_sealed
        from ullage.sealed.run import SealedRequest

        run_sealed(
            SealedRequest(
                log, model or builtin_path(), keys, records, dtype, key, record_keys, release_after
            ),
            sealed,
            as_json=as_json,
        )
        return
    from ullage.audit.cluster.ray_cluster import ray_options
    from ullage.audit.run import AuditRequest, audit_log
    from ullage.audit.unfinished import place_of

    request = AuditRequest(
        log=log,
        model=model or builtin_path(),
        sample=records,
        limit_dtype=dtype,
        log_key=key,
        keys=keys,
        record_keys=record_keys,
        seed_key=seed_key,
        out=out,
        entropy=entropy,
        calibration=calibration,
        calibration_key=calibration_key,
        bound=bound,
        draws=draws,
        confidence=confidence,
        target=target,
        alpha=alpha,
        capacity=capacity,
        walks=walks,
        exact=exact,
        reference_url=reference_url,
        ray=ray_options(engine, address, workers, threads),
        threads=threads or 2 if exact else None,
    )
    try:
        with meter(quiet=quiet) as progress:
            result = audit_log(request, progress)
    except KeyboardInterrupt:
        if out is not None and place_of(out).is_dir():
            typer.echo(f"The same command goes on from here: {place_of(out)} has what is done.", err=True)
        raise
    if not quiet:
        for note in result.notes:
            typer.echo(plain_line(f"note: {note}"), err=True)
    typer.echo(json.dumps(document(result), indent=1) if as_json else text(result))
    raise typer.Exit(int(result.verdict.outcome.exit_code))


def parse_sample(value: str) -> int | None:
    """A number of records, or None for `all`."""
    if value == "all":
        return None
    if not value.isascii() or not value.isdigit() or int(value) == 0:
        raise UsageError(f"--sample takes a number of records or 'all', not {value!r}.")
    return int(value)


def document(result: AuditResult) -> dict[str, object]:
    """The result as `--json` prints it (`docs/audit.md`)."""
    largest = result.largest_margin
    clusters = result.clusters
    return {
        "claims": to_json(result.claims),
        "verdict": result.verdict.outcome.value,
        "reasons": list(result.verdict.reasons),
        "notes": list(result.notes),
        "mismatches": result.rate.mismatches,
        "tokens": result.rate.tokens,
        "interval": [result.rate.low, result.rate.high],
        "interval_over_records": list(clusters) if clusters else None,
        "interval_confidence": result.rate.confidence,
        "limit": result.limit,
        "largest_margin": largest if largest is not None and math.isfinite(largest) else None,
        "outside_filters": result.outside,
        "sample": result.sample.model_dump(mode="json"),
        "bundle": str(result.bundle) if result.bundle else None,
        "covert": None if result.covert is None else covert_document(result.covert),
        "alarm": None if result.alarm is None else alarm_document(result.alarm),
        "exact": None if result.derivation is None else asdict(result.derivation),
    }


def covert_document(covert: CovertFigures) -> dict[str, object]:
    """The bound in numbers and in words."""
    return {
        "bits": covert.window.bits,
        "bits_per_token": covert.window.per_token,
        "fraction": covert.window.fraction,
        "worst_class": covert.worst_class,
        "worst_class_fraction": covert.worst.fraction,
        "ending_bits": covert.ending_bits,
        "confidence": covert.confidence,
        "draws": covert.draws,
        "statement": covert.statement(),
        "advice": covert.advice,
    }


def alarm_document(alarm: Alarm) -> dict[str, object]:
    """What the deviation alarm said."""
    return {
        "fired": alarm.fired,
        "alpha": alarm.alpha,
        "kappa": alarm.kappa,
        "log_supremum": alarm.log_supremum,
        "tokens": alarm.tokens,
        "tokens_to_detection": alarm.tokens_to_detection or None,
        "record": alarm.first_record,
        "audited_share": alarm.audited_share,
        "expected_leak_bits": alarm.expected_leak if math.isfinite(alarm.expected_leak) else None,
        "streams": alarm.streams,
        "streams_above": alarm.streams_above,
        "streams_limit": alarm.streams_limit,
    }


def text(result: AuditResult) -> str:
    """The result for a terminal."""
    lines = [claim.render() for claim in result.claims]
    largest = result.largest_margin
    if result.rate.tokens and largest is not None:
        size = "infinite" if math.isinf(largest) else f"{largest:.4g} logits"
        lines.append(f"margins: the largest is {size}, {result.outside} tokens lie outside the filters")
    lines += [f"{result.verdict.outcome.value}: {reason}" for reason in result.verdict.reasons]
    if result.bundle:
        lines.append(f"signed bundle: {result.bundle}")
    return "\n".join(lines)
