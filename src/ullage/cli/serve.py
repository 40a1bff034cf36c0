"""`ullage serve`: the embedded OpenAI-compatible server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ullage.errors import UsageError


def serve(
    *,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of a Hugging Face causal language model.", show_default="built-in"),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Precision of weights: float32 or bfloat16.")] = "float32",
    listen: Annotated[
        str, typer.Option(help="HOST:PORT to serve at; port 0 takes a free one.")
    ] = "127.0.0.1:8000",
    max_batch: Annotated[int, typer.Option(min=1, max=1024, help="Most sequences decoded together.")] = 32,
    agent: Annotated[
        str | None, typer.Option(help="HOST:PORT for a memory verifier, which may stop and start the server.")
    ] = None,
    agent_machine: Annotated[str, typer.Option(help="As --machine of `ullage agent`.")] = "group",
    agent_limit_mib: Annotated[int | None, typer.Option(min=1, help="Map at most this much.")] = None,
    fingerprints: Annotated[
        str | None, typer.Option(help="HOST:PORT for a verifier of hidden states (docs/fingerprints.md).")
    ] = None,
    fingerprint_mib: Annotated[int, typer.Option(min=1, help="Memory for hidden states.")] = 256,
) -> None:
    """Serve a model behind an OpenAI-compatible API.

    With --agent, `ullage memory cycle` can stop it, erase its memory, send the weights and start it again.
    Prints one line, `listening on http://HOST:PORT`, when it is ready. Tokens are drawn with the profile
    murmur3-gumbel/f64 from the request's seed.
    """
    from ullage.model.builtin import builtin_path, model_name
    from ullage.model.settings import check_precision
    from ullage.model.tokenizer import ModelTokenizer
    from ullage.server import run

    # What can be wrong is found before torch is loaded, which takes seconds.
    host, port = run.parse_address(listen)
    check_precision(dtype)
    folder = builtin_path() if model is None else model
    tokenizer = ModelTokenizer.load(folder)
    if fingerprints is not None and agent is not None:
        raise UsageError(
            "The states of a model that --agent may erase cannot be kept; leave out --fingerprints."
        )
    listener = run.bind(host, port)

    from ullage.model.loading import load_causal_lm
    from ullage.server.app import create_app
    from ullage.server.chooser import SeededChooser, TokenChooser
    from ullage.server.engine import Engine

    loaded = load_causal_lm(folder, dtype)
    chooser: TokenChooser = SeededChooser()
    if fingerprints is not None:
        from ullage.server.fingerprint_app import fingerprinting

        chooser = fingerprinting(chooser, loaded, fingerprints, fingerprint_mib << 20)
    engine = Engine(loaded, tokenizer, chooser, max_batch)
    if agent is not None:
        from ullage.memory.agent.host import ServerHost
        from ullage.memory.agent.service import Settings, attach
        from ullage.server.maintenance import Maintenance

        limit = None if agent_limit_mib is None else agent_limit_mib << 20
        attach(Settings(agent, agent_machine, limit), ServerHost(Maintenance(engine, dtype)))
    run.serve_on(create_app(engine, model_name(folder)), listener)
