"""`ullage probe`: audit a remote provider from outside."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ullage.cli.progress import meter
from ullage.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from ullage.probe.questions import Kind, Prompt

Url = Annotated[str, typer.Argument(help="The provider's URL, with or without /v1.")]
Model = Annotated[Path | None, typer.Option(help="Folder of the declared model.", show_default="built-in")]
Name = Annotated[
    str | None, typer.Option(help="The model's name at the provider.", show_default="the first it lists")
]
KeyVariable = Annotated[str | None, typer.Option(help="Environment variable that holds the API key.")]


def probe(
    url: Url,
    *,
    model: Model = None,
    dtype: Annotated[
        str, typer.Option(help="Declared precision of arithmetic: bfloat16 or float32.")
    ] = "bfloat16",
    profile: Annotated[
        str, typer.Option(help="The provider's sampler profile; auto finds it out; greedy: temperature 0.")
    ] = "auto",
    temperature: Annotated[float, typer.Option(help="To ask for, where tokens are seeded.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, max=1 << 16, help="Of one answer.")] = 64,
    endpoint: Annotated[str | None, typer.Option(help="chat or text; both kinds of prompts without.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Folder of your prompts (.txt, .jsonl) instead of ours.")
    ] = None,
    system_prompt: Annotated[
        list[str] | None, typer.Option(help="An instruction that the provider may add; may be given again.")
    ] = None,
    noise: Annotated[
        Path | None, typer.Option(help="Noise fitted with --fit-noise; a generous guess without.")
    ] = None,
    trust_noise: Annotated[
        bool, typer.Option("--trust-noise", help="Take fitted noise at its word: sooner, and less forgiving.")
    ] = False,
    fit_noise: Annotated[
        Path | None, typer.Option(help="URL is your own honest server: fit its noise into this file.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="False alarms, at most.")] = 1e-3,
    budget: Annotated[int, typer.Option(min=1, help="Most tokens to spend, prompts included.")] = 20_000,
    price_prompt: Annotated[float, typer.Option(help="Money a million prompt tokens.")] = 0.0,
    price_output: Annotated[float, typer.Option(help="Money a million output tokens.")] = 0.0,
    money: Annotated[float | None, typer.Option(help="Most money to spend.")] = None,
    name: Name = None,
    api_key_env: KeyVariable = None,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Requests at once.")] = 4,
    key: Annotated[
        str | None, typer.Option(help="What seeds are made from.", show_default="random, or the folder's")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder that keeps every answer; an interrupted probe goes on there.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")] = False,
) -> None:
    """Audit a remote provider from outside, without a tap.

    Ends with 0 for pass, 1 when the provider does not run what it declares, 3 for cannot-tell.
    """
    from ullage.model.builtin import builtin_path
    from ullage.model.settings import check_precision
    from ullage.probe.budget import Budget, Prices
    from ullage.probe.journal import seed_key

    check_precision(dtype)
    asked = chosen_prompts(prompts, endpoint)
    if money is not None and not (price_prompt or price_output):
        raise UsageError("--money needs prices: --price-prompt and --price-output.")
    from ullage.probe.report import document, text
    from ullage.probe.run import ProbeRequest
    from ullage.probe.run import probe as run_probe

    request = ProbeRequest(
        url=url,
        model=model or builtin_path(),
        prompts=asked,
        dtype="float32" if dtype == "float32" else "bfloat16",
        profile=profile,
        temperature=temperature,
        max_tokens=max_tokens,
        key=seed_key(out, key),
        alpha=alpha,
        budget=Budget(budget, money),
        prices=Prices(price_prompt, price_output),
        noise=noise,
        trust_noise=trust_noise,
        name=name,
        api_key=api_key(api_key_env),
        parallel=parallel,
        system_prompts=tuple(system_prompt or ()),
        out=out,
    )
    with meter(quiet=quiet) as progress:
        if fit_noise is not None:
            from ullage.probe.fitting import fit_to_server

            said = fit_to_server(request, fit_noise, progress)
            typer.echo(json.dumps({"claims": [], "noise": said}) if as_json else said)
            raise typer.Exit(int(ExitCode.PASS))
        result = run_probe(request, progress)
    typer.echo(json.dumps(document(result), indent=1) if as_json else text(result))
    raise typer.Exit(int(result.outcome.exit_code))


def chosen_prompts(folder: Path | None, endpoint: str | None) -> tuple[Prompt, ...]:
    """The user's prompts or ours, for one endpoint or both."""
    from ullage.probe.questions import own_prompts, read_prompts

    if endpoint not in (None, "chat", "text"):
        raise UsageError("--endpoint is chat or text.")
    kind: Kind | None = None if endpoint is None else ("chat" if endpoint == "chat" else "text")
    return own_prompts(kind) if folder is None else read_prompts(folder, kind or "chat")


def api_key(variable: str | None) -> str | None:
    """The key in an environment variable: a command line can be read by everybody on a machine."""
    if variable is None:
        return None
    found = os.environ.get(variable)
    if not found:
        raise UsageError(f"The environment variable {variable[:80]} is not set.")
    return found
