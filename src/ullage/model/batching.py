"""Which sequences share a padded batch of the reference's pass.

It stands by itself because rounding may depend on a batch's shape: whoever splits work among machines and
wants the bits of one machine must hand out whole batches, and plans them here, without torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

BATCH_TOKENS: Final = 1024
"""Tokens in one padded batch. Fresh memory for a wide batch's activations costs more than its arithmetic."""


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Group sequence numbers, longest first, so that a padded batch holds at most BATCH_TOKENS.

    A sequence that is longer by itself is a batch. One batch's lengths, given alone and in its order, are
    that one batch again.
    """
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
