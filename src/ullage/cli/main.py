"""The command line: which command lives in which file, and what an error looks like.

Nothing is imported before it is needed: `ullage --help` reads the table below and no room, so it
answers at once although some commands bring torch along.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import select
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

from ullage import __version__
from ullage.errors import ExitCode, UllageError
from ullage.model import instruction_set
from ullage.terminal import plain

INTERRUPTED = 130
_NAMED_WRONGLY = frozenset(
    (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
)
"""What the system says to a path that the caller should not have named."""
_EXTRAS = {
    "matplotlib": "report",
    "openai": "audit",
    "pyarrow": "audit",
    "rapidfuzz": "bench",
    "safetensors": "audit",
    "scipy": "audit",
    "securesystemslib": "audit",
    "sklearn": "redteam",
    "torch": "audit",
    "transformers": "audit",
}
SUMMARY = "Verify that an AI server does only the inference it declares, and say how sure one can be."


@dataclass(frozen=True)
class Command:
    """Where a command's function is (`module:function`) and its line in the overview."""

    target: str
    summary: str


COMMANDS: dict[str, Command] = {
    "demo": Command("demo:demo", "The whole story on the built-in model: five servers, audited."),
    "serve": Command("serve:serve", "Serve a model behind an OpenAI-compatible API (the embedded server)."),
    "tap": Command("tap:tap", "Put the trusted gateway, with its log, in front of a server."),
    "enforcer": Command("enforcer:enforcer", "Run the reference that an enforcing tap asks."),
    "audit": Command("audit:audit", "Recompute a sample of a log and sign a verdict."),
    "audit cross": Command("audit_sealed:cross", "Whether the bundles of two parties agree, and no more."),
    "calibrate": Command("calibrate:calibrate", "Fit and sign the noise of an honest server, for bounds."),
    "bound": Command("bound:bound", "Bound what anybody's table of token scores could hide."),
    "residual": Command("residual:residual", "Bound what a log's answers said by time, order and failure."),
    "total": Command("total:total", "Add up what a rack and a fleet let out in a day, over every way out."),
    "probe": Command("probe:probe", "Audit a remote provider from outside, without a tap."),
    "profile": Command("profile:profile", "Tell which sampler profile a server follows."),
    "slowdown": Command("slowdown:slowdown", "From claims to how much slower covert training gets."),
    "fleet": Command("fleet:fleet", "Simulate audits over a fleet: detection, false alarms, cost."),
    "agent": Command("agent:agent", "The prover's side of memory erasure and residency."),
    "scan": Command("scan:scan", "Find and decode payloads hidden in text, files or a log."),
    "report": Command("report:report", "Write one page from claims, bundles and a log."),
    "watch": Command("watch:watch", "A live page of what a tap does, beside the claims that stand."),
    "doctor": Command("doctor:doctor", "Say what this machine can do, and what that means for claims."),
    "replay": Command("replay:replay", "Reproduce one answer from its record."),
    "completion": Command("completion:completion", "Print a script that completes commands in your shell."),
}
GROUPS: dict[str, tuple[str, dict[str, Command]]] = {
    "keys": (
        "Make the keys of a tap, a verifier, or a witness.",
        {
            "init": Command("keys:init", "Create a directory of keys."),
            "client": Command("keys:client", "Make an API key for a client of a tap."),
        },
    ),
    "log": (
        "Verify, read, prove, serve and witness what a tap recorded.",
        {
            "verify": Command("log.verify:verify", "Check a log, a proof, or evidence against signatures."),
            "show": Command("log.show:show", "Print records."),
            "open": Command("log.records:open_records", "Hand the keys of records to one verifier."),
            "forget": Command("log.records:forget", "Destroy the keys of records."),
            "fsck": Command("log.files:fsck", "Say which files are damaged, and mend what can be."),
            "export": Command("log.files:export", "Write the public part as tables (Parquet, JSON)."),
            "note-verdict": Command("log.verdicts:note_verdict", "Note verdicts in the log that they judge."),
            "rotate-key": Command("log.records:rotate_key", "Hand a tap's logs to a new signing key."),
            "rotate-seal": Command("log.records:rotate_seal", "Wrap record keys under a new seal key."),
            "prove": Command("log.verify:prove", "Prove that a record is in the log."),
            "serve": Command("log.witness:serve", "Serve a log to strangers, read-only."),
            "witness": Command("log.witness:witness", "Cosign logs that only ever grow."),
            "cosign": Command("log.witness:cosign", "Ask witnesses to cosign a log's checkpoint."),
        },
    ),
    "fingerprint": (
        "Hold a cooperating prover's hidden states against the reference's.",
        {
            "calibrate": Command("fingerprint:calibrate", "Measure how far an honest server's states lie."),
            "collect": Command("fingerprint:collect", "Take down what a prover has committed to."),
            "check": Command("fingerprint:check", "Challenge a prover about answers of a log."),
        },
    ),
    "wire": (
        "Account for every byte of the cable between server and tap.",
        {
            "meter": Command("wire:meter", "Attribute the bytes of a link, live or from a capture file."),
            "check": Command("wire:check", "Try what else answers from where the server stands."),
        },
    ),
    "work": (
        "Account for a machine's compute.",
        {
            "agent": Command("work:agent", "Run the prover's side: filler that yields to inference."),
            "calibrate": Command("work:calibrate", "Measure and sign what a unit of work is worth."),
            "account": Command("work:account", "Account for a machine over windows of time."),
            "credit": Command("work_credit:credit", "Add audited inference to an account."),
        },
    ),
    "memory": (
        "Erase a machine's memory, and have it prove what it holds.",
        {
            "calibrate": Command("memory:calibrate", "Measure a twin of the prover's machine."),
            "hold": Command("memory:hold", "Prove what is in memory while the server serves."),
            "cycle": Command("memory:cycle", "Stop, erase, reload and serve again, every few minutes."),
            "erase": Command("memory:erase", "Overwrite memory and check that it was."),
        },
    ),
    "bench": (
        "What a model, or so many machines, can do.",
        {
            "base64": Command("bench:base64", "How well it encodes and decodes base64: 34 kinds of text."),
            "scale": Command("bench_scale:scale", "What machines of a measured rate verify in a day."),
        },
    ),
    "redteam": (
        "Servers that cheat, and what they get away with.",
        {
            "serve": Command("redteam.tokens:serve_adversary", "Serve a cheating model behind the same API."),
            "provider": Command("redteam.provider:provider", "Stand between a probe and a server."),
            "recover": Command("redteam.tokens:recover", "Decode what a payload server hid in a log."),
            "wire": Command(
                "redteam.wire:wire", "Signal beside the tokens, through taps with and without slots."
            ),
            "tokens": Command("redteam.tokens:tokens", "Let every token adversary play against the bound."),
            "subliminal": Command(
                "redteam.subliminal:subliminal", "Measure traits that travel in plain numbers."
            ),
            "work": Command("redteam.work:work", "Let every cheater play against the accounting of compute."),
            "memory": Command("redteam.memory:memory", "Let every memory cheat answer erasures."),
            "memory-agent": Command("redteam.memory:memory_agent", "Answer a verifier as one cheat does."),
        },
    ),
}


def overview(name: str, summary: str, entries: Mapping[str, str]) -> str:
    """The text of `--help` for ullage itself or for one group."""
    width = max(map(len, entries)) + 2
    lines = [f"Usage: {name} COMMAND [ARGS]...", "", f"  {summary}", "", "Commands:"]
    lines += [f"  {command:<{width}}{text}" for command, text in entries.items()]
    lines += ["", f"`{name} COMMAND --help` says more about one of them."]
    return "\n".join(lines) + "\n"


def _summaries(table: Mapping[str, Command]) -> dict[str, str]:
    return {name: command.summary for name, command in table.items()}


def _top_entries() -> dict[str, str]:
    groups = {name: f"{summary} ({', '.join(group)})" for name, (summary, group) in GROUPS.items()}
    return _summaries(COMMANDS) | groups


def _find(arguments: list[str]) -> tuple[str, Command, list[str]] | int:
    """The command that the arguments name, or the exit code after printing help or a complaint."""
    name, summary, table, rest = "ullage", SUMMARY, COMMANDS, arguments
    if rest and rest[0] in GROUPS:
        name = f"ullage {rest[0]}"
        summary, table = GROUPS[rest[0]]
        rest = rest[1:]
    entries = _top_entries() if table is COMMANDS else _summaries(table)
    if " ".join(rest[:2]) in table:  # a command of two words
        rest = [" ".join(rest[:2]), *rest[2:]]
    if not rest or rest[0] in ("--help", "-h", "help"):
        sys.stdout.write(overview(name, summary, entries))
        return ExitCode.PASS if rest else ExitCode.USAGE
    if rest[0] == "--version":
        sys.stdout.write(f"ullage {__version__}\n")
        return ExitCode.PASS
    if rest[0] not in table:
        sys.stderr.write(f"{name}: there is no command '{rest[0]}'; `{name} --help` lists them.\n")
        return ExitCode.USAGE
    return f"{name} {rest[0]}", table[rest[0]], rest[1:]


def _call(name: str, command: Command, arguments: list[str]) -> int:
    """Run a command; its exit code. Raises what the command raises.

    Without typer's `main`, which ends with 1 when nobody reads the output any more, or when an input ends:
    here that is the code for a failed check.
    """
    import typer

    module_name, function_name = command.target.split(":")
    module = importlib.import_module(f"ullage.cli.{module_name}")
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(getattr(module, function_name))
    parser = typer.main.get_command(app)
    try:
        with parser.make_context(name, list(arguments)) as context:
            parser.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    except typer.Abort:
        typer.echo("Aborted!", err=True)
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED  # without a word: this is how a server is ended
    except Exception as error:
        # The parser's own errors show themselves; in which module their class is depends on typer's version.
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        return ExitCode.USAGE
    return ExitCode.PASS


def _ours(error: BaseException) -> UllageError | None:
    """The error that we raised on purpose, the first of several tasks' where they ran side by side."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_ours, error.exceptions)), None)
    return error if isinstance(error, UllageError) else None


def _needed(error: ModuleNotFoundError, words: list[str]) -> str | None:
    """Which extra of ours brings the missing package; None for one that no extra brings."""
    package = (error.name or "").partition(".")[0]
    if package in ("scipy", "pyarrow") and words[:1] == ["bound"]:
        return "bound"
    return _EXTRAS.get(package)


def _unforeseen(error: BaseException) -> tuple[str, int]:
    """A sentence, if anything is to be said, and a code for what no room raised on purpose.

    Never the code 1, with which Python itself would end: a folder that may not be entered, or a defect of
    ours, must not read as a verdict. With `ULLAGE_TRACEBACK` set, where it happened is printed first.
    """
    import traceback

    if isinstance(error, BrokenPipeError) and _is_left(sys.stdout):
        return "", ExitCode.FAULT  # as in `ullage ... | head`: who has stopped reading need not be told
    if os.environ.get("ULLAGE_TRACEBACK"):
        with contextlib.suppress(OSError, ValueError):  # standard error may lead nowhere, too
            traceback.print_exception(error)
    while isinstance(error, BaseExceptionGroup):  # tasks side by side: the first one's
        error = error.exceptions[0]
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, EOFError):
        return "What was read ended too early: a file is cut off, or a peer has gone.", ExitCode.FAULT
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename} cannot be used: " if error.filename else ""
        return (
            f"{named}{error.strerror}.",
            ExitCode.USAGE if error.errno in _NAMED_WRONGLY else ExitCode.FAULT,
        )
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    return (
        f"This is a defect of Ullage: {type(error).__name__}: {error}{where}. "
        "Set ULLAGE_TRACEBACK=1 to see the way to it, and report it."
    ), ExitCode.FAULT


def _is_left(stream: TextIO | None) -> bool:
    """Whether nobody reads at the other end of a stream any more."""
    if stream is None:
        return False
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError):  # no file of the process's
        return False


def _say(sentence: str) -> None:
    """A line for whoever called, unless it is empty. That nobody reads it any more changes no exit code."""
    if sentence and sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"ullage: {plain(sentence)}\n")


def _flush(stream: TextIO | None) -> OSError | None:
    """Write out what a stream still holds; the error, if that cannot be done.

    Nothing is left for the very end then, when Python would try again, complain, and end with 120.
    """
    if stream is None or stream.closed:
        return None
    try:
        stream.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # no file of the process's
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


def _delivered(code: int) -> int:
    """The exit code once all has been said: FAULT if what a command printed did not arrive whole."""
    failed = _flush(sys.stdout)
    if failed is not None:
        code = ExitCode.FAULT
        if not isinstance(failed, BrokenPipeError):
            _say(f"The output cannot be written: {failed.strerror}.")
    _flush(sys.stderr)
    return code


def run(arguments: list[str] | None = None) -> None:
    """Entry point. Every error that we raise on purpose is one sentence and its exit code."""
    instruction_set.pin()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        found = _find(words)
        code = found if isinstance(found, int) else _call(*found)
    except (UllageError, BaseExceptionGroup) as error:
        ours = _ours(error)
        sentence, code = (str(ours), ours.exit_code) if ours is not None else _unforeseen(error)
        _say(sentence)
    except ModuleNotFoundError as error:
        if (extra := _needed(error, words)) is not None:
            sentence, code = f"This needs {error.name}: pip install 'ullage[{extra}]'.", ExitCode.FAULT
        else:
            sentence, code = _unforeseen(error)
        _say(sentence)
    except KeyboardInterrupt:
        _say("interrupted")
        code = INTERRUPTED
    except Exception as error:
        sentence, code = _unforeseen(error)
        _say(sentence)
    sys.exit(int(_delivered(code)))
