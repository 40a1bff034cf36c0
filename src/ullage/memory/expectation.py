"""The verifier's own answers: noise expanded once, fed to the tags of every round in lockstep."""

from __future__ import annotations

import secrets
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

from ullage.memory.messages import KEY_BYTES
from ullage.memory.noise import BLOCK_BYTES, Noise, Question, SegmentTag
from ullage.memory.region import usable_cores

STRIDE_BLOCKS = 32
SEGMENT_BLOCKS = 256


def draw_questions(region_blocks: int, rounds: int, sample: int) -> list[Question]:
    """Fresh keys and lists for `rounds` rounds: `sample` different blocks of the whole region (0: all)."""
    random = secrets.SystemRandom()
    questions = []
    for number in range(rounds):
        blocks = None
        if 0 < sample < region_blocks:
            blocks = tuple(sorted(random.sample(range(region_blocks), sample)))
        key = secrets.token_bytes(KEY_BYTES)
        questions.append(Question(number, key, region_blocks, SEGMENT_BLOCKS, blocks))
    return questions


class _Round:
    """One question's answer as it grows; blocks come in ascending order."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._fed = 0
        self._open: SegmentTag | None = None
        self.tags: list[bytes] = []

    def feed(self, first: int, data: memoryview) -> None:
        """Blocks `first` … of the region; those that are not asked for are skipped."""
        asked, size = self._question, self._question.block_bytes
        last = first + len(data) // size
        if asked.blocks is None:
            wanted: Sequence[int] = range(first, last)
        else:
            wanted = asked.blocks[bisect_left(asked.blocks, first) : bisect_left(asked.blocks, last)]
        for block in wanted:
            if self._open is None:
                self._open = SegmentTag(asked.key, asked.round_number, len(self.tags))
            self._open.update(data[(block - first) * size : (block - first + 1) * size])
            self._fed += 1
            if self._fed % asked.segment_blocks == 0 or self._fed == asked.count:
                self.tags.append(self._open.tag())
                self._open = None


class Expectation:
    """Expected tags of all `questions`, from noise that `new_noise` makes (one for each worker)."""

    def __init__(
        self, new_noise: Callable[[], Noise], questions: Sequence[Question], threads: int | None = None
    ) -> None:
        self._new_noise = new_noise
        self._questions = questions
        self._rounds = [_Round(question) for question in questions]
        self._threads = threads or usable_cores()

    def run(
        self,
        send: Callable[[memoryview], None] | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[list[bytes]]:
        """Expand the region from front to back; returns the tags of each round.

        `send` gets every stride while the next one is made: mode `stream`, where all blocks are expanded.
        Otherwise only blocks that some round asks for are. `progress` takes MiB passed, and all.
        """
        total = self._questions[0].region_blocks
        with ThreadPoolExecutor(self._threads, thread_name_prefix="expand") as pool:
            noises = [self._new_noise() for _ in range(self._threads)]
            sending = None
            # Two warm buffers in turn: one is on its way while the other is filled. Fresh memory is slow.
            size = min(STRIDE_BLOCKS, total) * BLOCK_BYTES
            buffers = cycle([memoryview(bytearray(size)), memoryview(bytearray(size))])
            for first, count, wanted in self._strides(total, everything=send is not None):
                data = next(buffers)[: count * BLOCK_BYTES]
                shares = [wanted[worker :: self._threads] for worker in range(self._threads)]
                list(pool.map(_expand, noises, shares, [data] * self._threads, [first] * self._threads))
                if send is not None:
                    if sending is not None:
                        sending.result()
                    sending = pool.submit(send, data)
                list(pool.map(lambda found, a=first, d=data: found.feed(a, d), self._rounds))
                progress((first + count) * BLOCK_BYTES >> 20, total * BLOCK_BYTES >> 20)
            if sending is not None:
                sending.result()
        return [found.tags for found in self._rounds]

    def _strides(self, total: int, *, everything: bool) -> Iterator[tuple[int, int, list[int]]]:
        """(first block, blocks, those to expand)."""
        lists = [question.blocks for question in self._questions]
        union = None
        if not everything and all(blocks is not None for blocks in lists):
            union = sorted({block for blocks in lists if blocks for block in blocks})
        for first in range(0, total, STRIDE_BLOCKS):
            count = min(STRIDE_BLOCKS, total - first)
            wanted = list(range(first, first + count))
            if union is not None:
                wanted = union[bisect_left(union, first) : bisect_left(union, first + count)]
            if wanted:
                yield first, count, wanted


def _expand(noise: Noise, blocks: Sequence[int], data: memoryview, first: int) -> None:
    for block in blocks:
        start = (block - first) * BLOCK_BYTES
        noise.write(block * BLOCK_BYTES, data[start : start + BLOCK_BYTES])
