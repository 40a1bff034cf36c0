"""Parts and logs that several tests need."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ullage.log.keys import Role, TapKeys, create_keys, load_tap_keys
from ullage.log.reader import LogReader
from ullage.log.record import ChunkPart, ClosePart, HeaderPart, OpenPart, Parameters, Part
from ullage.log.sealed.openers import SealKey
from ullage.log.store import CheckpointPolicy, LogWriter

NAME = "tap.example/one"
NEVER = CheckpointPolicy(seconds=1e9, entries=1 << 40)


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def make_keys(directory: Path) -> TapKeys:
    create_keys(directory, Role.TAP, NAME)
    return load_tap_keys(directory)


def header(log_id: str = NAME) -> HeaderPart:
    return HeaderPart(
        created=1_700_000_000_000_000_000,
        dtype="float32",
        log_id=log_id,
        model_digest=digest(b"model"),
        profile="murmur3-gumbel/f64",
        software="ullage/0.1.0",
    )


def opening(counter: int, *, stream: bool = False, prompt: tuple[int, ...] = (1, 2, 3)) -> OpenPart:
    return OpenPart(
        bytes_from_client=120,
        choice=0,
        client_seed=-7 if counter % 2 else None,
        counter=counter,
        endpoint="chat",
        group=counter,
        parameters=Parameters(max_tokens=16, stop=("\n\n",), temperature="0.7", top_k=0, top_p="1.0"),
        prompt_ids=prompt,
        prompt_sources=((len(prompt), "client"),) if prompt else (),
        request_digest=digest(f"request {counter}".encode()),
        seed=(1 << 63) - 1 - counter,
        stream=stream,
        time_received=1_700_000_000_000_000_001 + counter,
    )


def chunk(counter: int, index: int, output_ids: tuple[int, ...]) -> ChunkPart:
    return ChunkPart(bytes=10, counter=counter, digest=digest(b"chunk"), index=index, output_ids=output_ids)


def closing(counter: int, output_ids: tuple[int, ...], *, bytes_to_client: int = 100) -> ClosePart:
    return ClosePart(
        bytes_from_upstream=200,
        bytes_to_client=bytes_to_client,
        bytes_to_upstream=150,
        counter=counter,
        finish_reason="stop",
        outcome="complete",
        output_ids=output_ids,
        released_digest=digest(b"released"),
        time_closed=1_700_000_000_000_000_002 + counter,
        upstream_fingerprint="fp_1",
    )


def records(count: int) -> Iterator[Part]:
    """Plain and streamed records in turn, each with output (5, 6, 7)."""
    for counter in range(count):
        yield opening(counter, stream=bool(counter % 2))
        if counter % 2:
            yield chunk(counter, 0, (5, 6))
            yield chunk(counter, 1, (7,))
        yield closing(counter, (5, 6, 7))


def make_log(directory: Path, keys: TapKeys, count: int = 3) -> Path:
    """A log of `count` finished records, closed and signed."""
    with LogWriter.create(directory, keys, header()) as writer:
        for part in records(count):
            writer.append_sync(part)
    return directory


def read_log(directory: Path, keys: TapKeys) -> LogReader:
    """A reader who trusts the tap's key and may open every record."""
    return LogReader.open(directory, keys.log.verifier, SealKey(keys.seal))


def segment(directory: Path, first_index: int = 0) -> Path:
    """A segment of a log's journal."""
    return directory / "sealed" / f"{first_index:020d}.segment"
