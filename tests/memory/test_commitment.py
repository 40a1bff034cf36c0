"""What key-value memory is committed to by."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ullage.memory.agent.keeper import FIRST_SEGMENT, Keeper
from ullage.memory.machine.region import HostRegion
from ullage.memory.noise.noise import BLOCK_BYTES
from ullage.memory.protocol.commitment import DIGEST_BYTES, commitment, segment_digest


def test_the_digests_of_the_specification() -> None:
    """BLAKE3's own vector for nothing at all, and a segment of one layer."""
    assert segment_digest([]).hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    two = [segment_digest([memoryview(bytes([number]) * 4)]) for number in range(2)]
    assert commitment(two).hex() == "db7b023a76401d4dcc2977975b116f026f84665d2af57a9b4d6b0b0d9a8c3f3b"


@given(st.lists(st.binary(max_size=5000), max_size=5))
def test_pieces_are_one_segment_and_segments_are_not_one_another(pieces: list[bytes]) -> None:
    whole = segment_digest([memoryview(b"".join(pieces))])
    assert segment_digest(map(memoryview, pieces)) == whole
    assert len(whole) == DIGEST_BYTES
    other = segment_digest([memoryview(b"".join(pieces) + b"\0")])
    assert commitment([whole, other]) != commitment([other, whole])


def test_a_keeper_commits_to_all_that_it_is_asked_for_in_that_order() -> None:
    sizes = (BLOCK_BYTES, 2 * BLOCK_BYTES, BLOCK_BYTES)
    regions, digests = [HostRegion(size) for size in sizes], []
    for number, region in enumerate(regions):
        region.borrow(0, region.size)[:] = held = bytes([number + 1]) * region.size
        digests.append(segment_digest([memoryview(held)]))
    keeper = Keeper((BLOCK_BYTES,), threads=2)
    keeper.adopt(tuple(regions))
    first = FIRST_SEGMENT
    assert keeper.digest([first + 2, first]) == commitment([digests[2], digests[0]])
    assert keeper.digest([first, first + 1, first + 2]) == commitment(digests)
