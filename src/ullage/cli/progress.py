"""What long commands say while they work: on standard error, and never with `--quiet`.

A bar is drawn where standard error is a terminal; lines are written anywhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")]
"""The option of every command that takes longer than a few seconds."""


@contextmanager
def meter(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar with share, rate and time left, as the callback (stage, done, total) that rooms take.

    A total of 0 is not known: then the bar only moves. Nothing is drawn where standard error is no terminal.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, Task, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import ProgressColumn as Column
    from rich.text import Text

    class Rate(Column):
        """Steps a second."""

        def render(self, task: Task) -> Text:
            """Nothing before two steps were seen."""
            return Text(rate_words(task.finished_speed or task.speed))

    drawn = (BarColumn(), TaskProgressColumn(), Rate(), TimeRemainingColumn())
    # What a command prints meanwhile goes above the bar on a terminal, and is left alone elsewhere.
    with Progress(
        TextColumn("{task.description}"),
        *drawn,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task, known = bar.add_task("", total=None), ""

        def progress(stage: str, done: int, total: int) -> None:
            nonlocal known
            if stage != known:  # rate and time left are those of this stage
                bar.reset(task, description=stage, total=total or None)
                known = stage
            bar.update(task, completed=done, total=total or None)

        yield progress


def rate_words(speed: float | None) -> str:
    """Steps a second in words; "" where it is not known yet."""
    if not speed:
        return ""
    return (
        f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s" if speed >= 0.1 else f"{1 / speed:,.0f} s each"
    )


def notes(*, quiet: bool) -> Callable[[str], None]:
    """For jobs whose steps differ too much for a bar: a line for each as it begins, with the time so far."""
    if quiet:
        return lambda text: None
    began = time.monotonic()

    def note(text: str) -> None:
        typer.echo(f"{text.removesuffix(' …')} … ({elapsed(time.monotonic() - began)})", err=True)

    return note


def elapsed(seconds: float) -> str:
    """A time as "42 s", "3 min 05 s" or "2 h 07 min"."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole // 60 % 60:02d} min"
