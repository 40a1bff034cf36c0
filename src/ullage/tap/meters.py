"""Running totals of one tap: what its metrics, its budgets and its claims are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from ullage.tap.failures import Failure


class _Traffic(Protocol):
    sent: int
    received: int


class _Record(Protocol):
    bytes_to_client: int


class _Transcript(Protocol):
    ids: list[int]


class _Choice(Protocol):
    @property
    def record(self) -> _Record: ...
    @property
    def traffic(self) -> _Traffic: ...
    @property
    def transcript(self) -> _Transcript: ...
    @property
    def prompt_ids(self) -> object: ...


@dataclass
class Meters:
    """Totals since the tap began. Bytes on the link are HTTP with its heads, without TCP/IP."""

    requests: int = 0
    choices: int = 0
    releases: int = 0  # moments at which something left where there are no slots, at most
    failed: int = 0  # by the server behind the tap
    noncanonical: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    bytes_to_upstream: int = 0
    bytes_from_upstream: int = 0
    bytes_to_client: int = 0
    bytes_from_client: int = 0
    errors: Counter[Failure] = field(default_factory=Counter)

    def finished(self, choices: Iterable[_Choice], *, streamed: bool = False) -> None:
        """A request has ended, however it ended."""
        self.requests += 1
        self.releases += 1
        for choice in choices:
            self.choices += 1
            self.output_tokens += len(choice.transcript.ids)
            self.releases += len(choice.transcript.ids) if streamed else 0
            self.bytes_to_upstream += choice.traffic.sent
            self.bytes_from_upstream += choice.traffic.received
            self.bytes_to_client += choice.record.bytes_to_client
