"""What commands about logs share: where a log is, and whose signatures count."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ullage.errors import MalformedError, UsageError
from ullage.log.files import read_limited
from ullage.log.keys import load_verifier
from ullage.log.notes.policy import MAX_POLICY_BYTES, Policy
from ullage.log.notes.signed_note import MAX_NOTE_BYTES, NoteVerifier
from ullage.log.source import LogSource, open_source

Key = Annotated[
    Path | None, typer.Option(help="The tap's public key (log.pub), from a source that you trust.")
]
PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", help="Instead of --key: a C2SP tlog-policy, log keys and witnesses."),
]
From = Annotated[
    list[Path] | None,
    typer.Option("--from", metavar="FILE", help="An earlier checkpoint of the log, or more than one."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def log_source(location: str) -> LogSource:
    """The log at a URL or in a folder. Raises UsageError."""
    return open_source(location)


def choose_policy(key: Path | None, policy: Path | None, source: LogSource | None = None) -> Policy:
    """Whose signatures count: --policy, or --key alone, or else the key beside the log in `source`.

    The last says so on standard error. Raises UsageError, MalformedError.
    """
    if key is not None and policy is not None:
        raise UsageError("Give --key or --policy; a policy names the log's key itself.")
    if policy is not None:
        return Policy.parse(read_limited(policy, MAX_POLICY_BYTES))
    if key is not None:
        return Policy.of_key(load_verifier(key))
    if source is None:
        raise UsageError("This is checked with the tap's key or a policy: give --key FILE or --policy FILE.")
    data = source.read("log.pub", MAX_NOTE_BYTES)
    if data is None:
        raise UsageError(f"There is no key beside the log in {source}: give --key FILE or --policy FILE.")
    sys.stderr.write("The key was found beside the log, which vouches for itself; give --key or --policy.\n")
    try:
        return Policy.of_key(NoteVerifier.parse(data.decode()))
    except UnicodeDecodeError as error:
        raise MalformedError(f"The key beside the log in {source} is not text.") from error
