"""`ullage redteam`: servers that cheat, and the decoder of what they hide."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ullage.cli.progress import Quiet, notes

if TYPE_CHECKING:
    from ullage.model.reference import Reference
    from ullage.redteam.outcome import Outcome


class TokenMode(StrEnum):
    """Which defence the token adversaries play against."""

    AUDIT = "audit"
    ENFORCE = "enforce"
    BOTH = "both"


Model = Annotated[Path | None, typer.Option(help="Folder of the declared model.", show_default="built-in")]


def serve_adversary(
    name: Annotated[str, typer.Argument(help="Which one; a wrong name lists them.")],
    *,
    model: Model = None,
    dtype: Annotated[str, typer.Option(help="Precision of weights: float32 or bfloat16.")] = "float32",
    listen: Annotated[
        str, typer.Option(help="HOST:PORT to serve at; port 0 takes a free one.")
    ] = "127.0.0.1:8000",
    payload: Annotated[Path | None, typer.Option(help="The file to hide, for those that hide one.")] = None,
    max_batch: Annotated[int, typer.Option(min=1, max=1024, help="Most sequences decoded together.")] = 32,
    fingerprints: Annotated[
        str | None, typer.Option(help="HOST:PORT for a verifier of hidden states, as of `ullage serve`.")
    ] = None,
) -> None:
    """Serve a cheating model behind the same API.

    Prints one line, `listening on http://HOST:PORT`, when it is ready. int4 and int8 round the
    weights, unseeded draws without the request's seed, payload hides a file in the choice of tokens;
    docs/red-team.md has all of them.
    """
    from ullage.redteam.adversary import Setting
    from ullage.redteam.registry import build_cheat, get_adversary
    from ullage.redteam.servers.payload_files import read_payload

    get_adversary(name)
    secret = read_payload(payload) if payload else None

    from ullage.model.builtin import builtin_path, model_name
    from ullage.model.tokenizer import ModelTokenizer
    from ullage.server import run
    from ullage.server.app import create_app
    from ullage.server.engine import Engine

    host, port = run.parse_address(listen)
    folder = builtin_path() if model is None else model
    tokenizer = ModelTokenizer.load(folder)
    cheat = build_cheat(name, Setting(folder, dtype, secret))
    chooser = cheat.chooser
    if fingerprints is not None:
        from ullage.server.fingerprint_app import MEMORY_BYTES, fingerprinting

        chooser = fingerprinting(chooser, cheat.model, fingerprints, MEMORY_BYTES)
    engine = Engine(cheat.model, tokenizer, chooser, max_batch)
    # Under the name that the honest server goes by.
    run.serve(create_app(engine, model_name(folder)), host, port)


def recover(
    log: Annotated[Path, typer.Argument(help="Folder of the log with the transcripts.")],
    *,
    out: Annotated[Path, typer.Option(help="Where to write the recovered file.")],
    model: Model = None,
    record_keys: Annotated[
        Path | None,
        typer.Option(help="What opens the records: a file of `ullage log open`, or the tap's keys."),
    ] = None,
    original: Annotated[
        Path | None, typer.Option(help="The file that was hidden, to count the bytes that arrived.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Decode what a payload server hid in a log.

    Works from prompts, outputs and sampling parameters alone, with the declared model. Ends with 3 when
    nothing was found.
    """
    from ullage.log.sealed.openers import load_opener
    from ullage.model.builtin import builtin_path
    from ullage.redteam.servers.payload_files import describe, read_payload, write_recovered
    from ullage.redteam.servers.transcripts import recover_from_log

    secret = read_payload(original) if original else None
    opener = load_opener(None, record_keys)
    found = recover_from_log(log, builtin_path() if model is None else model, opener)
    write_recovered(out, found)
    figures = describe(found, secret)
    if as_json:
        typer.echo(json.dumps({"claims": [], **figures}))
    else:
        for what, value in figures.items():
            typer.echo(f"{what.replace('_', ' ')}: {value}")


def tokens(
    *,
    model: Model = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small games: minutes instead of an hour.")] = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="One short game an adversary for each of so many seeds; says if all bounds held.",
        ),
    ] = None,
    mode: Annotated[TokenMode, typer.Option(help="Recomputation, enforcement, or both.")] = TokenMode.BOTH,
    statement: Annotated[
        bool, typer.Option("--statement", help="Instead: an honest float32 server, and what an audit shows.")
    ] = False,
    messages: Annotated[
        int | None, typer.Option(min=1, max=10_000_000, help="With --statement: how many are audited.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="One adversary; may be given again.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    quiet: Quiet = False,
) -> None:
    """Let every token adversary play, and hold what it leaks against the bound on the same traffic.

    Prints one table and ends with 1 if a leak exceeds its bound. --statement plays no adversary: it audits
    an honest float32 server for the share of its output bits that could be covert.
    """
    from ullage.errors import UsageError

    if statement and (quick or seeds or only):
        raise UsageError("--statement plays no adversary: give it without --quick, --seeds and --only.")
    if messages is not None and not statement:
        raise UsageError("--messages is the size of the window of --statement: give both.")
    from ullage.model.builtin import builtin_path
    from ullage.model.reference import Reference

    reference = Reference.load(builtin_path() if model is None else model)
    if statement:
        _statement(reference, messages, as_json=as_json, quiet=quiet)
    else:
        _games(reference, quick=quick, seeds=seeds, mode=mode, only=only or (), as_json=as_json, quiet=quiet)


def _games(
    reference: Reference,
    *,
    quick: bool,
    seeds: int | None,
    mode: TokenMode,
    only: Sequence[str],
    as_json: bool,
    quiet: bool,
) -> None:
    from ullage.claims import to_json
    from ullage.errors import ExitCode
    from ullage.redteam.outcome import claims_of, table
    from ullage.redteam.tokens.soundness import soundness_of
    from ullage.redteam.tokens.suite import (
        CALIBRATION_FULL,
        CALIBRATION_QUICK,
        FULL,
        FULL_GAMES,
        QUICK,
        SHORT,
        Suite,
        chosen_adversaries,
        enforced_rows,
        run_suite,
    )

    note = notes(quiet=quiet)
    small = quick or seeds is not None
    size = SHORT if seeds else QUICK if quick else FULL
    numbers = range(seeds or (1 if quick else FULL_GAMES))
    suite = Suite(reference, CALIBRATION_QUICK if small else CALIBRATION_FULL, note)
    chosen_adversaries(only)  # a wrong name is said at once
    outcomes: list[Outcome] = []
    soundness = None
    if mode is not TokenMode.ENFORCE:
        outcomes, games = run_suite(suite, size, numbers, only, note)
        soundness = soundness_of(games) if games else None
    if mode is not TokenMode.AUDIT:
        outcomes += enforced_rows(suite, size, numbers, only, note)
    claims = claims_of(outcomes) + (soundness.claims() if soundness else [])
    if as_json:
        document = {
            "adversaries": [outcome.to_dict() for outcome in outcomes],
            "soundness": soundness.to_dict() if soundness else None,
            "calibrations": suite.described_calibrations(),
            "claims": to_json(claims),
        }
        typer.echo(json.dumps(document))
    else:
        typer.echo("\n".join([*table(outcomes), *(soundness.lines() if soundness else [])]))
    if not all(outcome.is_bounded for outcome in outcomes) or not (soundness is None or soundness.holds):
        raise typer.Exit(ExitCode.FAIL)


def _statement(reference: Reference, messages: int | None, *, as_json: bool, quiet: bool) -> None:
    from ullage.claims import to_json
    from ullage.errors import ExitCode
    from ullage.redteam.tokens.game import Size
    from ullage.redteam.tokens.statement import WINDOW, StatementPlan, make_statement

    plan = StatementPlan(Size(messages or WINDOW.messages, WINDOW.tokens))
    made = make_statement(reference, plan, notes(quiet=quiet))
    if as_json:
        typer.echo(json.dumps({**made.to_dict(), "claims": to_json(made.claims())}))
    else:
        typer.echo("\n".join(made.lines()))
    if not made.holds:
        raise typer.Exit(ExitCode.FAIL)
