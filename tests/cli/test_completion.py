"""Completion in a real shell: commands, commands of groups, options, choices."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.test_main import ullage


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    printed = ullage("completion", "bash")
    assert printed.returncode == 0, printed.stderr
    path = tmp_path_factory.mktemp("completion") / "ullage.bash"
    path.write_text(printed.stdout, "utf-8")
    return path


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="no bash here")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("aud",), {"audit"}),
        (("log", "ver"), {"verify"}),
        (("audit", "--calibration"), {"--calibration", "--calibration-key"}),
        (("redteam", "tokens", "--mode", "a"), {"audit"}),
        (("completion", ""), {"bash", "zsh", "tcsh"}),
    ],
    ids=["command", "of a group", "option", "value", "no value yet"],
)
def test_bash_completes(script: Path, words: tuple[str, ...], expected: set[str]) -> None:
    line = " ".join(f"'{word}'" for word in ("ullage", *words))
    asked = (
        f'. {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _shtab_ullage; echo "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(
        ["/bin/bash", "--norc", "-c", asked], capture_output=True, text=True, check=True, timeout=20
    )
    assert expected <= set(done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script_that_names_every_command(shell: str) -> None:
    printed = ullage("completion", shell)
    assert printed.returncode == 0
    for name in ("audit", "witness", "doctor", "redteam"):
        assert name in printed.stdout


def test_an_unknown_shell_is_a_usage_error() -> None:
    assert ullage("completion", "nonsense").returncode == 2
