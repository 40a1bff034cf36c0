"""Trust policies, the files of https://c2sp.org/tlog-policy: which logs and witnesses, and how many of them.

A policy decides about a checkpoint: it needs the signature of one of the logs and cosignatures of a quorum of
witnesses, which is a witness or a group such as "2 of these 3", groups within groups included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ullage.errors import IntegrityError, MalformedError
from ullage.log.notes.checkpoint import note_origin, signs_for
from ullage.log.notes.cosignature import CosignedCheckpoint, WitnessVerifier, open_cosigned
from ullage.log.notes.signed_note import NoteVerifier

MAX_POLICY_BYTES = 256 << 10
_MAX_LINES_OF_A_KIND = 256
_FIELDS = re.compile(rb"[^ \t]+")
_FORBIDDEN = re.compile(rb"[^\t\n\x20-\x7e\x80-\xff]")
_NUMBER = re.compile(rb"[1-9][0-9]{0,8}")
_NONE = b"none"


@dataclass(frozen=True)
class PolicyLog:
    """A log that the policy accepts."""

    key: NoteVerifier
    url: str | None


@dataclass(frozen=True)
class PolicyWitness:
    """A witness that the policy knows; `name` is the policy's own name for it."""

    name: bytes
    key: WitnessVerifier
    url: str | None


@dataclass(frozen=True)
class _Group:
    threshold: int
    members: tuple[bytes, ...]


@dataclass(frozen=True)
class Policy:
    """A parsed policy. `quorum` is a name in it, or None where no cosignature is needed."""

    logs: tuple[PolicyLog, ...]
    witnesses: tuple[PolicyWitness, ...]
    quorum: bytes | None
    _groups: dict[bytes, _Group] = field(default_factory=dict, repr=False)

    @classmethod
    def of_key(cls, *keys: NoteVerifier) -> Policy:
        """The policy that a log's key alone makes: any of `keys`, no witness."""
        return cls(tuple(PolicyLog(key, None) for key in keys), (), None)

    @classmethod
    def parse(cls, data: bytes) -> Policy:
        """Read a policy file. Raises MalformedError, which names the line."""
        if len(data) > MAX_POLICY_BYTES:
            raise MalformedError(f"A policy has at most {MAX_POLICY_BYTES} bytes, this one {len(data)}.")
        parser = _Parser()
        for number, line in enumerate(data.split(b"\n"), 1):
            try:
                parser.take(line)
            except MalformedError as error:
                raise MalformedError(f"Line {number} of the policy: {error}") from error
        return parser.finish(data)

    def with_log(self, key: NoteVerifier) -> Policy:
        """This policy with one more key that may sign for a log."""
        return replace(self, logs=(*self.logs, PolicyLog(key, None)))

    def is_quorum(self, cosigners: Iterable[WitnessVerifier]) -> bool:
        """Whether cosignatures of these witnesses are strong enough."""
        if self.quorum is None:
            return True
        public = {witness.public for witness in cosigners}
        met = {witness.name: witness.key.public in public for witness in self.witnesses}
        for name, group in self._groups.items():  # a group's members are defined before it
            met[name] = sum(met[member] for member in group.members) >= group.threshold
        return met[self.quorum]

    def open(self, note: bytes) -> CosignedCheckpoint:
        """The checkpoint, signed by a log of this policy; the quorum is `is_quorum`'s to decide.

        Raises MalformedError, IntegrityError.
        """
        origin = note_origin(note)
        keys = [log.key.named(origin) for log in self.logs if signs_for(log.key.name, origin)]
        if not keys:
            names = ", ".join(log.key.name for log in self.logs)
            raise IntegrityError(f"The checkpoint is of {origin}, for which {names} does not sign.")
        return open_cosigned(note, tuple(keys), tuple(witness.key for witness in self.witnesses))


@dataclass
class _Parser:
    logs: list[PolicyLog] = field(default_factory=list)
    witnesses: list[PolicyWitness] = field(default_factory=list)
    groups: dict[bytes, _Group] = field(default_factory=dict)
    names: set[bytes] = field(default_factory=lambda: {_NONE})
    used: set[bytes] = field(default_factory=set)
    quorum: list[bytes] = field(default_factory=list)

    def take(self, line: bytes) -> None:
        if _FORBIDDEN.search(line):
            raise MalformedError("it has a control character other than a tab.")
        fields = _FIELDS.findall(line)
        if not fields or fields[0].startswith(b"#"):
            return
        match fields:
            case [b"log", key, *rest] if len(rest) <= 1:
                self._log(_text(key), _text(rest[0]) if rest else None)
            case [b"witness", name, key, *rest] if len(rest) <= 1:
                self._witness(name, _text(key), _text(rest[0]) if rest else None)
            case [b"group", name, threshold, *members] if members:
                self._group(name, threshold, members)
            case [b"quorum", name]:
                if self.quorum:
                    raise MalformedError("a policy has one quorum.")
                if name not in self.names:
                    raise MalformedError("the quorum is not defined on a line before.")
                self.quorum.append(name)
            case _:
                raise MalformedError("it is none of 'log', 'witness', 'group', 'quorum' with their fields.")

    def finish(self, data: bytes) -> Policy:
        if data and not data.endswith(b"\n"):
            raise MalformedError("The policy does not end in a newline; it was cut.")
        if not self.quorum:
            raise MalformedError("The policy has no quorum line; `quorum none` needs no witness.")
        quorum = None if self.quorum[0] == _NONE else self.quorum[0]
        return Policy(tuple(self.logs), tuple(self.witnesses), quorum, self.groups)

    def _log(self, text: str, url: str | None) -> None:
        key = NoteVerifier.parse(text)
        if any(log.key.public == key.public for log in self.logs):
            raise MalformedError("this log's key is listed twice.")
        self._check_number(self.logs)
        self.logs.append(PolicyLog(key, url))

    def _witness(self, name: bytes, text: str, url: str | None) -> None:
        key = WitnessVerifier.parse(text)
        if any(witness.key.public == key.public for witness in self.witnesses):
            raise MalformedError("this witness's key is listed twice.")
        self._check_number(self.witnesses)
        self._define(name)
        self.witnesses.append(PolicyWitness(name, key, url))

    def _group(self, name: bytes, threshold: bytes, members: list[bytes]) -> None:
        for member in members:
            if member not in self.names or member == _NONE:
                raise MalformedError("a member of the group is not defined on a line before.")
            if member in self.used:
                raise MalformedError("a witness or group is a member once only.")
            self.used.add(member)
        known = {b"all": len(members), b"any": 1}.get(threshold)
        if known is None and _NUMBER.fullmatch(threshold):
            known = int(threshold)
        if known is None or not 1 <= known <= len(members):
            raise MalformedError(f"a group needs 'all', 'any' or a number from 1 to {len(members)}.")
        self._check_number(self.groups)
        self._define(name)
        self.groups[name] = _Group(known, tuple(members))

    def _define(self, name: bytes) -> None:
        if name in self.names:
            raise MalformedError("this name is defined already.")
        self.names.add(name)

    def _check_number(self, known: list[PolicyLog] | list[PolicyWitness] | dict[bytes, _Group]) -> None:
        if len(known) >= _MAX_LINES_OF_A_KIND:
            raise MalformedError(f"a policy has at most {_MAX_LINES_OF_A_KIND} lines of a kind.")


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise MalformedError("a key or a URL is not UTF-8.") from error
