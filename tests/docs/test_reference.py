"""The reference: the page of commands is what the parsers say, and every public name is documented."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.printed import ROOT
from ullage.cli.parsers import describe, every_command

SOURCES = sorted((ROOT / "src" / "ullage").rglob("*.py"))
PAGES = sorted((ROOT / "docs" / "reference" / "python").glob("*.md"))
MODULES = sorted(name for page in PAGES for name in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.M))

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(body: list[ast.stmt]) -> Iterator[Definition]:
    """What a module or class offers under a public name."""
    for one in body:
        if isinstance(one, Definition) and not one.name.startswith("_"):
            yield one


def undocumented(path: Path, *, members: bool) -> list[str]:
    """Public names of a file without a docstring; with `members` those of its classes as well."""
    tree = ast.parse(path.read_text("utf-8"))
    found = [str(path)] if tree.body and ast.get_docstring(tree) is None else []
    for one in definitions(tree.body):
        inner = definitions(one.body) if members and isinstance(one, ast.ClassDef) else iter(())
        found += [
            f"{path}:{each.lineno} {each.name}" for each in (one, *inner) if not ast.get_docstring(each)
        ]
    return found


def test_the_page_of_commands_is_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "cli_reference.py", "--check"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_page_of_commands_has_every_command_and_option() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8")
    sections = dict(re.findall(r"^## ([a-z -]+[a-z0-9]+)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    for words, command in every_command():
        described = describe(words, command)
        for one in described.parameters:
            assert all(flag in sections[words] for flag in one.flags), words
            assert one.help, f"ullage {words}: {one.name} says nothing in --help"


@pytest.mark.parametrize("room", sorted({path.relative_to(ROOT).parts[2] for path in SOURCES}))
def test_every_public_name_is_documented(room: str) -> None:
    files = [path for path in SOURCES if path.relative_to(ROOT).parts[2] == room]
    assert [line for path in files for line in undocumented(path, members=False)] == []


@pytest.mark.parametrize("module", MODULES)
def test_what_the_reference_lists_is_documented_to_the_last_method(module: str) -> None:
    path = ROOT / "src" / f"{module.replace('.', '/')}.py"
    assert undocumented(path, members=True) == []


def test_the_reference_has_the_interface_and_the_mathematics() -> None:
    assert {"ullage.api", "ullage.claims", "ullage.audit.bounds.capacity", "ullage.sampling.profiles"} <= set(
        MODULES
    )
    assert len(MODULES) == len(set(MODULES)) > 30


def test_a_name_without_a_docstring_is_found(tmp_path: Path) -> None:
    path = tmp_path / "one.py"
    path.write_text('"""A module."""\nclass A:\n    """A class."""\n    def b(self): ...\ndef _c(): ...\n')
    assert undocumented(path, members=False) == []
    assert undocumented(path, members=True) == [f"{path}:4 b"]
