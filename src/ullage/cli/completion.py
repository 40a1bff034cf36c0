"""`ullage completion`: what a shell needs to complete commands, options, choices and files."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, _ArgumentGroup
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ullage.errors import FaultError

if TYPE_CHECKING:
    from ullage.cli.parsers import Parameter


class Shell(StrEnum):
    """The shells that are known."""

    BASH = "bash"
    ZSH = "zsh"
    TCSH = "tcsh"


def completion(shell: Annotated[Shell, typer.Argument(help="Which shell: bash, zsh or tcsh.")]) -> None:
    """Print a script that completes `ullage` in a shell.

    Keep it where the shell looks for such files: `ullage completion bash > FILE`, then `. FILE`.
    It holds the commands of this version; print it again after an upgrade.
    """
    try:
        import shtab
    except ImportError as error:
        raise FaultError("Completion needs the package shtab: pip install shtab.") from error
    sys.stdout.write(shtab.complete(parser(), shell=shell.value) + "\n")


def parser() -> ArgumentParser:
    """Commands and options as argparse knows them, which is what shtab reads."""
    from ullage.cli.main import COMMANDS, GROUPS, SUMMARY

    top = ArgumentParser("ullage", description=SUMMARY)
    top.add_argument("--version", action="store_true", help="print the version")
    commands = top.add_subparsers()
    for name, command in COMMANDS.items():
        if " " not in name:  # the second word of a command of two is an argument to a shell
            _add(commands, name, name, command)
    for group, (summary, table) in GROUPS.items():
        inner = commands.add_parser(group, help=summary).add_subparsers()
        for name, command in table.items():
            _add(inner, name, f"{group} {name}", command)
    return top


def _add(commands: Any, name: str, words: str, command: Any) -> None:
    from ullage.cli.parsers import describe

    described = describe(words, command)
    made = commands.add_parser(name, help=described.summary)
    for one in described.parameters:
        _argument(made, one)


def _argument(made: ArgumentParser | _ArgumentGroup, one: Parameter) -> None:
    import shtab

    more: dict[str, Any] = {"help": one.help.replace("%", "%%")}
    if one.choices:
        more["choices"] = one.choices
    if one.flags and not one.kind:
        more["action"] = "store_true"
    elif not one.flags and one.repeated:
        more["nargs"] = "*"
    added = made.add_argument(*(one.flags or (one.name,)), **more)
    if one.is_path:
        added.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's own way to say so
