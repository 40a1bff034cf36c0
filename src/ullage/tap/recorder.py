"""Writes records: counters and seeds are issued here, and every part is durable before anything follows.

A record is in the log from the moment its parts are handed over, even if whoever waits is cancelled; so the
state kept here changes before the wait, never after it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ullage.errors import UllageError
from ullage.log.record import ChunkPart, ClosePart, HeaderPart, OpenPart, Outcome, Parameters, Part
from ullage.sampling.seeds import issue_seed
from ullage.tap.choices.finish import FinishReason
from ullage.tap.clients.request import CompletionRequest
from ullage.tap.failures import LogUnavailableError
from ullage.tap.upstream.connections import Traffic

NANOSECONDS = 1_000_000_000


class RecordLog(Protocol):
    """The part of `ullage.log.writer.LogWriter` that the tap needs."""

    @property
    def header(self) -> HeaderPart:
        """The log's declaration."""

    @property
    def next_counter(self) -> int:
        """The counter of the next open part, until one is appended."""

    @property
    def failure(self) -> UllageError | None:
        """Why nothing can be appended at the moment; the log tries to mend itself."""

    async def append_all(self, parts: Sequence[Part]) -> int:
        """Append parts next to each other; returns when they are durable. Raises UllageError."""

    def close(self) -> None:
        """Let go of the log. Raises UllageError."""


def digest_of(data: bytes) -> str:
    """`sha256:` and the digest in hex, as records have it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class ChoiceRecord:
    """The record of one choice while it is open."""

    counter: int
    seed: int
    output_ids: list[int] = field(default_factory=list)  # those of the chunks so far
    chunks: int = 0
    bytes_to_client: int = 0
    closed: bool = False

    def chunk(self, ids: Sequence[int], data: bytes) -> ChunkPart:
        """The part that describes bytes of a stream about to be released. To be appended at once."""
        part = ChunkPart(
            bytes=len(data),
            counter=self.counter,
            digest=digest_of(data),
            index=self.chunks,
            output_ids=tuple(ids),
        )
        self.chunks += 1
        self.output_ids.extend(ids)
        self.bytes_to_client += len(data)
        return part

    def close(
        self,
        outcome: Outcome,
        released_digest: str,
        traffic: Traffic,
        *,
        output_ids: Sequence[int] | None = None,
        finish_reason: FinishReason | None = None,
        fingerprint: str | None = None,
        detail: str = "",
    ) -> ClosePart:
        """The last part; `output_ids` for a plain response, since a stream's are those of its chunks."""
        self.closed = True
        return ClosePart(
            bytes_from_upstream=traffic.received,
            bytes_to_client=self.bytes_to_client,
            bytes_to_upstream=traffic.sent,
            counter=self.counter,
            detail=detail,
            finish_reason=finish_reason,
            outcome=outcome,
            output_ids=tuple(self.output_ids if output_ids is None else output_ids),
            released_digest=released_digest,
            time_closed=time.time_ns(),
            upstream_fingerprint=fingerprint,
        )


@dataclass
class Recorder:
    """Issues counters and seeds for one log, and appends to it."""

    log: RecordLog
    seed_key: bytes = field(repr=False)

    def issue(
        self, request: CompletionRequest, time_received: int, bytes_from_client: int
    ) -> tuple[list[ChoiceRecord], list[Part]]:
        """A record for every choice, and their open parts, which must be appended at once."""
        group = self.log.next_counter
        digest = request.digest()
        records: list[ChoiceRecord] = []
        parts: list[Part] = []
        for choice in range(request.choices):
            counter = group + choice
            record = ChoiceRecord(counter, issue_seed(self.seed_key, self.log.header.log_id, counter, digest))
            records.append(record)
            parts.append(
                OpenPart(
                    bytes_from_client=bytes_from_client if choice == 0 else 0,
                    choice=choice,
                    client_seed=request.client_seed,
                    counter=counter,
                    endpoint=request.endpoint,
                    group=group,
                    parameters=Parameters(**request.parameters()),
                    prompt_ids=request.prompt_ids,
                    # All of a prompt came through the tap; what a request says of itself is not trusted.
                    prompt_sources=((len(request.prompt_ids), "client"),),
                    request_digest="sha256:" + digest.hex(),
                    seed=record.seed,
                    stream=request.stream,
                    time_received=time_received,
                )
            )
        return records, parts

    def close(self) -> None:
        """Sign the log as it is and let go of it. Raises UllageError when it has failed."""
        self.log.close()

    async def append(self, parts: Sequence[Part]) -> None:
        """Returns when all parts are durable. Raises LogUnavailableError."""
        try:
            await self.log.append_all(parts)
        except UllageError as error:
            raise LogUnavailableError(str(error)) from error
