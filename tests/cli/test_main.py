"""The command line as a process: help is quick, mistakes are one sentence, nothing loads torch unasked."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from tests.log.samples import make_keys, make_log
from ullage.cli import main
from ullage.cli.main import COMMANDS, GROUPS
from ullage.errors import ExitCode, FaultError

_HELP_SECONDS = 0.7


def ullage(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ullage", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_help_names_every_command_and_is_quick() -> None:
    times = []
    for _ in range(3):
        began = time.monotonic()
        result = ullage("--help")
        times.append(time.monotonic() - began)
    assert result.returncode == ExitCode.PASS
    for name in (*COMMANDS, *GROUPS):
        assert f"\n  {name} " in result.stdout
    assert min(times) <= _HELP_SECONDS


def test_no_arguments_is_a_usage_error_with_the_overview() -> None:
    result = ullage()
    assert result.returncode == ExitCode.USAGE
    assert "Commands:" in result.stdout


@pytest.mark.parametrize("arguments", [("nonsense",), ("log", "nonsense"), ("audit",), ("tap", "--nonsense")])
def test_mistakes_are_usage_errors_without_a_traceback(arguments: tuple[str, ...]) -> None:
    result = ullage(*arguments)
    assert result.returncode == ExitCode.USAGE
    assert "Traceback" not in result.stderr
    assert result.stderr.strip()


def test_what_the_system_refuses_is_a_sentence_and_no_verdict() -> None:
    plain = {name: value for name, value in os.environ.items() if name != "ULLAGE_TRACEBACK"}
    command = [sys.executable, "-m", "ullage", "log", "verify", "a" * 300, "--key", "log.pub"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=plain)
    assert result.returncode == ExitCode.USAGE
    assert result.stderr.endswith("cannot be used: File name too long.\n")
    assert "Traceback" not in result.stderr


def test_a_defect_is_a_fault_and_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def defect(*_: object) -> int:
        raise KeyError("counter")

    monkeypatch.setattr(main, "_call", defect)
    monkeypatch.delenv("ULLAGE_TRACEBACK")
    with pytest.raises(SystemExit) as ended:
        main.run(["doctor"])
    assert ended.value.code == ExitCode.FAULT
    said = capsys.readouterr().err
    assert "defect of Ullage: KeyError: 'counter' (test_main.py, line" in said
    assert "Traceback" not in said
    monkeypatch.setenv("ULLAGE_TRACEBACK", "1")
    with pytest.raises(SystemExit):
        main.run(["doctor"])
    assert "Traceback" in capsys.readouterr().err


def test_version() -> None:
    result = ullage("--version")
    assert (result.returncode, result.stdout.split()[0]) == (ExitCode.PASS, "ullage")


_COMMANDS = [(name,) for name in COMMANDS] + [
    (group, name) for group, (_, table) in GROUPS.items() for name in table
]


@pytest.mark.parametrize("command", _COMMANDS, ids=" ".join)
def test_every_command_has_help_and_needs_no_torch_for_it(command: tuple[str, ...]) -> None:
    arguments = [*command, "--help"]
    probe = (
        "import sys\n"
        "from ullage.cli.main import run\n"
        "try:\n"
        f"    run({arguments!r})\n"
        "finally:\n"
        "    assert 'torch' not in sys.modules, 'torch was loaded'\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == ExitCode.PASS, result.stderr
    assert "Usage" in result.stdout


def test_an_error_of_ours_is_one_sentence_and_its_exit_code(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("empty")
    result = ullage("log", "verify", str(folder))
    assert result.returncode == ExitCode.FAIL
    assert "Traceback" not in result.stderr
    missing = ullage("log", "show", str(folder / "nothing"))
    assert missing.returncode == ExitCode.USAGE
    assert missing.stderr.startswith("ullage: ")
    assert len(missing.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def sound_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    return make_log(folder / "log", make_keys(folder / "keys"), 300)


def _unread(descriptor: int, *arguments: str) -> tuple[int, bytes]:
    """Run ullage with nobody to read its output (1) or error output (2); its code, and what the other got."""
    ours, theirs = os.pipe()
    os.close(ours)
    streams: dict[str, int] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    streams["stdout" if descriptor == 1 else "stderr"] = theirs
    command = [sys.executable, "-m", "ullage", *arguments]
    try:
        done = subprocess.run(command, timeout=120, check=False, **streams)  # type: ignore[call-overload]
    finally:
        os.close(theirs)
    return done.returncode, done.stderr if descriptor == 1 else done.stdout


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("log", "verify", "--help"), ("--version",)],
    ids=" ".join,
)
def test_output_that_nobody_reads_is_a_fault_and_no_verdict(arguments: tuple[str, ...]) -> None:
    assert _unread(1, *arguments) == (ExitCode.FAULT, b"")


def test_a_sound_log_is_not_convicted_by_a_reader_that_has_gone(sound_log: Path) -> None:
    """`ullage log verify LOG | head -1` in a script that asks for the pipe's exit codes."""
    verify = ("log", "verify", str(sound_log), "--key", str(sound_log.parent / "keys" / "log.pub"))
    assert ullage(*verify).returncode == ExitCode.PASS
    assert _unread(1, *verify) == (ExitCode.FAULT, b"")
    assert _unread(1, "log", "show", str(sound_log)) == (ExitCode.FAULT, b"")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ullage", *verify],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == ExitCode.FAULT
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("tap", "--nonsense"), ("log", "show", "/nowhere")], ids=" ".join
)
def test_an_error_output_that_nobody_reads_is_no_verdict(arguments: tuple[str, ...]) -> None:
    assert _unread(2, *arguments)[0] in (ExitCode.USAGE, ExitCode.FAULT)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (typer.Exit(3), ExitCode.CANNOT_TELL, ""),
        (typer.Abort(), main.INTERRUPTED, "Aborted!\n"),
        (KeyboardInterrupt(), main.INTERRUPTED, ""),
        (EOFError("cut"), ExitCode.FAULT, "ended too early"),
        (typer.BadParameter("no such day"), ExitCode.USAGE, "Error: Invalid value: no such day\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), ExitCode.FAULT, "ullage: Broken pipe.\n"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_how_a_command_ends_is_its_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
) -> None:
    def command() -> None:
        raise error

    monkeypatch.setattr("ullage.cli.doctor.doctor", command)
    monkeypatch.delenv("ULLAGE_TRACEBACK")
    with pytest.raises(SystemExit) as ended:
        main.run(["doctor"])
    assert ended.value.code == code
    found = capsys.readouterr()
    assert found.out == ""
    assert said in found.err if said else not found.err


def test_an_error_of_one_of_several_tasks_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors: list[Exception] = [OSError("first"), FaultError("the server did not start")]

    def fail(*_: object) -> int:
        raise ExceptionGroup("tasks", [ExceptionGroup("inner", errors)])

    monkeypatch.setattr(main, "_call", fail)
    with pytest.raises(SystemExit) as ended:
        main.run(["doctor"])
    assert ended.value.code == FaultError.exit_code
    assert capsys.readouterr().err == "ullage: the server did not start\n"
    errors.pop()
    with pytest.raises(SystemExit) as ended:
        main.run(["doctor"])
    assert ended.value.code == ExitCode.FAULT
    assert "defect of Ullage: OSError: first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        (("serve", "--listen", "127.0.0.1:0"), "torch", "audit"),
        (("audit", "nothing"), "scipy", "audit"),
        (("bound", "nothing"), "pyarrow", "bound"),
    ],
)
def test_a_missing_extra_is_named(arguments: tuple[str, ...], missing: str, extra: str) -> None:
    """The package is made unfindable in the process, as where its extra was not installed."""
    hide = f"import sys; sys.modules[{missing!r}] = None; "
    hide += f"from ullage.cli.main import run; run({list(arguments)!r})"
    done = subprocess.run(
        [sys.executable, "-c", hide], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == ExitCode.FAULT
    assert "Traceback" not in done.stderr
    assert f"pip install 'ullage[{extra}]'" in done.stderr
