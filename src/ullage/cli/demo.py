"""`ullage demo`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder that keeps logs, audits, claims.json and report.html.")
    ] = Path("demo"),
    model: Annotated[
        Path | None, typer.Option(help="A local model folder; default: the built-in one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print verdicts and claims as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")] = False,
) -> int:
    """Serve, tap and audit five servers, three of them cheating, and write a report."""
    from rich.console import Console

    from ullage.demo.run import run_demo
    from ullage.demo.story import Folder
    from ullage.demo.summary import as_json as to_json
    from ullage.demo.summary import next_commands, terminal_lines
    from ullage.model.builtin import builtin_path

    console = Console(stderr=True, quiet=quiet)
    with console.status("starting the first server") as status:

        def progress(text: str) -> None:
            if console.is_terminal:
                status.update(text)
            elif not text.endswith("through the tap"):
                console.print(text)

        result, page = run_demo(out, model or builtin_path(), progress)
    if as_json:
        sys.stdout.write(to_json(result) + "\n")
    else:
        lines = [*terminal_lines(result), "", f"report: {page} ({result.seconds:.0f} s)", "", "Try next:"]
        lines += [f"  {text}:\n    {command}" for text, command in next_commands(Folder(out))]
        sys.stdout.write("\n".join(lines) + "\n")
    return 0 if result.as_expected else 1
