"""What each command takes, as data: for completion, for the reference page, and for the tests of both.

Read from the parsers that really run, so it cannot say anything else than `--help` does.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from ullage.cli.main import COMMANDS, GROUPS, Command


@dataclass(frozen=True)
class Parameter:
    """One argument or option. `flags` is empty for an argument; `kind` is empty for a switch."""

    name: str
    flags: tuple[str, ...]
    kind: str
    help: str
    default: str
    required: bool
    repeated: bool
    choices: tuple[str, ...] = ()

    @property
    def is_path(self) -> bool:
        """Whether a file or folder is meant."""
        return self.kind == "path"


@dataclass(frozen=True)
class Described:
    """A command as a reader knows it: `words` as they are typed after `ullage`."""

    words: str
    summary: str
    text: str
    parameters: tuple[Parameter, ...]

    @property
    def usage(self) -> str:
        """One line, as `--help` begins."""
        arguments = [
            f"{one.name.upper()}{'...' if one.repeated else ''}" if one.required else f"[{one.name.upper()}]"
            for one in self.parameters
            if not one.flags
        ]
        return " ".join(["ullage", self.words, *arguments, "[OPTIONS]"])


def every_command() -> Iterator[tuple[str, Command]]:
    """All commands with their words, in the order of the overview."""
    yield from COMMANDS.items()
    for group, (_, table) in GROUPS.items():
        yield from ((f"{group} {name}", command) for name, command in table.items())


def describe(words: str, command: Command) -> Described:
    """Import the command and read its parser."""
    module, name = command.target.split(":")
    function = getattr(importlib.import_module(f"ullage.cli.{module}"), name)
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(function)
    hints = typing.get_type_hints(function)
    parameters = tuple(_parameter(one, hints.get(one.name)) for one in typer.main.get_command(app).params)
    text = inspect.getdoc(function) or ""
    return Described(words, command.summary, text, parameters)


def _parameter(given: Any, hint: Any) -> Parameter:
    repeated, bare = _bare(hint)
    is_switch = bool(getattr(given, "is_flag", False))
    is_enum = isinstance(bare, type) and issubclass(bare, Enum)
    literals = typing.get_args(bare) if typing.get_origin(bare) is typing.Literal else ()
    choices = tuple(str(one.value) for one in bare) if is_enum else tuple(map(str, literals))
    return Parameter(
        name=given.name,
        flags=tuple(one for one in (*given.opts, *given.secondary_opts) if one.startswith("-")),
        kind="" if is_switch else (given.metavar or _kind(bare, choices)),
        help=getattr(given, "help", None) or "",
        default=_default(given, is_switch),
        required=bool(given.required),
        repeated=repeated,
        choices=choices,
    )


def _bare(hint: Any) -> tuple[bool, Any]:
    """Whether several are taken, and the type of one: `list[Path] | None` is (True, Path)."""
    arguments = [one for one in typing.get_args(hint) if one is not type(None)]
    if typing.get_origin(hint) in (list, tuple, typing.Sequence):
        return True, arguments[0]
    if len(arguments) == 1 and typing.get_origin(hint) is not typing.Literal:
        return _bare(arguments[0])
    return False, hint


def _kind(bare: Any, choices: tuple[str, ...]) -> str:
    if choices:
        return "|".join(choices)
    words = {Path: "path", int: "integer", float: "number"}
    return words.get(bare, "text")


def _default(given: Any, is_switch: bool) -> str:
    shown = getattr(given, "show_default", True)
    if isinstance(shown, str):
        return shown
    value = given.default
    if is_switch or callable(value) or value in (None, "", (), [], ...):
        return ""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
