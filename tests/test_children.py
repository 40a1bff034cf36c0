"""Processes that Ullage starts import nothing from the folder that the user happens to be in.

`python -m` puts the working folder first: an auditor who stands in a folder that the prover handed over
would run whatever file in it is called like a module.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "ullage"
HOSTILE = "open('ran', 'w').close()\nraise SystemExit(99)\n"
NAMES = ("ullage", "json", "numpy", "typer", "asyncio")


def commands() -> list[tuple[str, list[ast.expr]]]:
    """Lists that begin with `sys.executable`, and argument lists in which it is the first."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            parts = (
                node.elts if isinstance(node, ast.List) else node.args if isinstance(node, ast.Call) else []
            )
            if parts and ast.unparse(parts[0]) == "sys.executable":
                found.append((str(path.relative_to(SOURCE)), parts))
    return found


def test_every_child_is_started_with_a_safe_path() -> None:
    found = commands()
    assert len(found) > 8
    unsafe = [name for name, parts in found if len(parts) < 2 or ast.unparse(parts[1]) != "'-P'"]
    assert unsafe == []


def test_files_of_the_folder_do_not_run(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    subprocess.run(
        [sys.executable, "-P", "-m", "ullage", "doctor", "--json"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert not (tmp_path / "ran").exists()
