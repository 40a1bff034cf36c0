"""`ullage redteam wire`: what gets out beside the tokens, by attack and by reckoning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ullage.cli.progress import Quiet, notes


def wire(
    *,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the declared model.", show_default="built-in")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Short games and short slots: a minute or two.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option(help="One channel; may be given again.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of a message, for the share.")] = 300,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    quiet: Quiet = False,
) -> None:
    """Let servers signal by time, length, order, errors and words, through a tap without slots and one with.

    Prints one table and ends with 1 if more got through slots than the residual says, or than half a bit a
    message.
    """
    from ullage.claims import to_json
    from ullage.errors import ExitCode
    from ullage.model.builtin import builtin_path
    from ullage.model.tokenizer import ModelTokenizer
    from ullage.redteam.channels.registry import channel_named
    from ullage.redteam.channels.suite import BAR, FULL, QUICK, claims_of, message_bits, run_suite, table

    game = QUICK if quick else FULL
    for name in only or ():
        channel_named(name, game.pace.slot)
    tokenizer = ModelTokenizer.load(builtin_path() if model is None else model)
    results = run_suite(min(tokenizer.eos_ids), game, only or (), notes(quiet=quiet))
    claims = claims_of(results, game)
    if as_json:
        rows = [result.to_dict() for result in results]
        typer.echo(json.dumps({"channels": rows, "claims": to_json(claims)}))
    else:
        typer.echo("\n".join(table(results, message_bits(tokens, tokenizer.vocabulary_size))))
        typer.echo("\n".join(claim.render() for claim in claims))
    paced = [result for result in results if result.slots and not result.counted_as]
    if not all(result.is_bounded and result.got <= BAR for result in paced):
        raise typer.Exit(ExitCode.FAIL)
