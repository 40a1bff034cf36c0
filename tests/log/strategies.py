"""Random parts of records and random public entries, for tests with hypothesis."""

from __future__ import annotations

import string

from hypothesis import strategies as st

from tests.log.samples import digest
from ullage.log.entries import ChunkEntry, CloseEntry, Entry, KeyEntry, OpenEntry, VerdictEntry, hand_over
from ullage.log.notes.signed_note import NoteSigner
from ullage.log.record import ChunkPart, ClosePart, HeaderPart, OpenPart, Parameters, RecordPart

naturals = st.integers(0, (1 << 63) - 1)
smalls = st.integers(0, (1 << 31) - 1)
token_ids = st.lists(smalls, max_size=8).map(tuple)
digests = st.binary(max_size=4).map(digest)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
numbers = st.floats(0, 2, allow_subnormal=False).filter(lambda x: x == 0 or x > 1e-10).map(repr)


@st.composite
def openings(draw: st.DrawFn) -> OpenPart:
    sources = ("client", "released", "inside")
    lengths = draw(st.lists(st.integers(1, 4), max_size=4))
    first = draw(st.integers(0, 2))
    counter = draw(naturals)
    return OpenPart(
        bytes_from_client=draw(naturals),
        choice=0,
        client_seed=draw(st.none() | st.integers(-(1 << 63), (1 << 64) - 1)),
        counter=counter,
        endpoint=draw(st.sampled_from(["chat", "completions"])),
        group=counter,
        parameters=Parameters(
            max_tokens=draw(smalls),
            stop=tuple(draw(st.lists(texts, max_size=3))),
            temperature=draw(numbers),
            top_k=draw(smalls),
            top_p=draw(numbers),
        ),
        prompt_ids=tuple(draw(smalls) for _ in range(sum(lengths))),
        prompt_sources=tuple((length, sources[(first + run) % 3]) for run, length in enumerate(lengths)),  # type: ignore[misc]
        request_digest=draw(digests),
        seed=draw(naturals),
        stream=draw(st.booleans()),
        time_received=draw(naturals),
    )


@st.composite
def closings(draw: st.DrawFn) -> ClosePart:
    aborted = draw(st.booleans())
    return ClosePart(
        bytes_from_upstream=None if aborted else draw(naturals),
        bytes_to_client=None if aborted else draw(naturals),
        bytes_to_upstream=None if aborted else draw(naturals),
        counter=draw(naturals),
        detail=draw(texts),
        finish_reason=draw(st.none() | st.sampled_from(["stop", "length"])),
        outcome="aborted" if aborted else draw(st.sampled_from(["complete", "client-gone", "refused"])),
        output_ids=draw(token_ids),
        released_digest=None if aborted else draw(digests),
        time_closed=draw(naturals),
        upstream_fingerprint=draw(st.none() | texts),
    )


headers = st.builds(
    HeaderPart,
    created=naturals,
    dtype=st.sampled_from(["float32", "bfloat16"]),
    log_id=st.from_regex(r"\A[!-~]{1,40}\Z"),
    model_digest=digests,
    profile=st.just("murmur3-gumbel/f64"),
    reference_digest=st.none() | digests,
    seed_commitment=st.none() | digests,
    selection_commitment=st.none() | digests,
    software=st.just("ullage/0.1.0"),
)
chunks = st.builds(
    ChunkPart, bytes=naturals, counter=naturals, digest=digests, index=smalls, output_ids=token_ids
)
parts: st.SearchStrategy[RecordPart] = st.one_of(openings(), chunks, closings())

integers = st.integers(0, 9_999_999_999)
key_names = st.text(string.ascii_letters + "./-_", min_size=1, max_size=30)


def _handover(name: str, log_id: str, index: int) -> KeyEntry:
    return hand_over(NoteSigner(name, bytes(32)), NoteSigner(name, bytes([1]) * 32).verifier, log_id, index)


entries: st.SearchStrategy[Entry] = st.one_of(
    headers,
    st.builds(OpenEntry, digests, naturals, integers, st.booleans(), integers),
    st.builds(ChunkEntry, digests, naturals, integers),
    st.builds(
        CloseEntry,
        digests,
        naturals,
        st.sampled_from(["complete", "client-gone", "upstream-failed", "refused", "aborted"]),
        integers,
        integers,
    ),
    st.builds(VerdictEntry, digests),
    st.builds(_handover, key_names, key_names, naturals),
)
