"""The verifier's own answers: noise expanded once, fed to the tags of every round in lockstep."""

from __future__ import annotations

import secrets
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from ullage.errors import UndecidedError
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


class Passed:
    """Blocks that any of several threads has been through, told to `progress` as (MiB so far, MiB of all)."""

    def __init__(self, progress: Callable[[int, int], None], total: int) -> None:
        self._progress = progress
        self._total = total
        self._blocks = 0
        self._lock = threading.Lock()

    def add(self, blocks: int) -> None:
        with self._lock:
            self._blocks += blocks
            self._progress(self._blocks * BLOCK_BYTES >> 20, self._total * BLOCK_BYTES >> 20)


def expand_part(
    noise: Noise,
    questions: Sequence[Question],
    first: int,
    count: int,
    send: Callable[[memoryview], None] = lambda _: None,
    *,
    passed: Callable[[int], None] = lambda _: None,
) -> list[list[bytes]]:
    """Expand blocks first … first + count - 1, a run of whole segments, and hand each to `send`.

    `passed` takes the number of blocks of each segment that is done. Returns the tags of these segments,
    question by question; all of them ask for every block. One thread does everything to a block while it lies
    in the core's cache: from memory, tags cost five times as much.
    """
    buffer = memoryview(bytearray(BLOCK_BYTES))
    tags: list[list[bytes]] = [[] for _ in questions]
    for start in range(first, first + count, SEGMENT_BLOCKS):
        segment = start // SEGMENT_BLOCKS
        growing = [SegmentTag(asked.key, asked.round_number, segment) for asked in questions]
        end = min(start + SEGMENT_BLOCKS, first + count)
        for block in range(start, end):
            noise.write(block * BLOCK_BYTES, buffer)
            for tag in growing:
                tag.update(buffer)
            send(buffer)
        for found, tag in zip(tags, growing, strict=True):
            found.append(tag.tag())
        passed(end - start)
    return tags


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
        self,
        new_noise: Callable[[], Noise],
        questions: Sequence[Question],
        threads: int | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._new_noise = new_noise
        self._questions = questions
        self._threads = threads or usable_cores()
        self._progress = progress
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Have `run`, in another thread, end soon with UndecidedError: nobody wants the tags any more."""
        self._cancelled.set()

    def _go_on(self, _: memoryview | None = None) -> None:
        if self._cancelled.is_set():
            raise UndecidedError("The expansion of the noise was called off.")

    def run(self) -> list[list[bytes]]:
        """The tags of each question; only blocks that some question asks for are expanded."""
        with ThreadPoolExecutor(self._threads, thread_name_prefix="expand") as pool:
            whole = all(question.blocks is None for question in self._questions)
            if whole and self._questions[0].segments >= self._threads:
                return self._whole(pool)
            return self._sampled(pool)

    def _whole(self, pool: ThreadPoolExecutor) -> list[list[bytes]]:
        """Every worker expands a segment at a time."""
        total = self._questions[0].region_blocks
        passed = Passed(self._progress, total)

        def work(first: int) -> list[list[bytes]]:
            count = min(SEGMENT_BLOCKS, total - first)
            noise, asked = self._new_noise(), self._questions
            return expand_part(noise, asked, first, count, self._go_on, passed=passed.add)

        parts = list(pool.map(work, range(0, total, SEGMENT_BLOCKS)))
        return join_parts(parts)

    def _sampled(self, pool: ThreadPoolExecutor) -> list[list[bytes]]:
        """Front to back, all workers at one stride: segments of different lists begin in different places,
        and a small region has fewer of them than there are workers."""
        total = self._questions[0].region_blocks
        rounds = [_Round(question) for question in self._questions]
        noises = [self._new_noise() for _ in range(self._threads)]
        buffer = memoryview(bytearray(min(STRIDE_BLOCKS, total) * BLOCK_BYTES))
        for first, count, wanted in self._strides(total):
            data = buffer[: count * BLOCK_BYTES]
            shares = [wanted[worker :: self._threads] for worker in range(self._threads)]
            self._go_on()
            list(pool.map(_expand, noises, shares, [data] * self._threads, [first] * self._threads))
            list(pool.map(lambda found, a=first, d=data: found.feed(a, d), rounds))
            self._progress((first + count) * BLOCK_BYTES >> 20, total * BLOCK_BYTES >> 20)
        return [found.tags for found in rounds]

    def _strides(self, total: int) -> Iterator[tuple[int, int, list[int]]]:
        """(first block, blocks, those to expand)."""
        lists = [question.blocks for question in self._questions]
        union = None
        if all(blocks is not None for blocks in lists):
            union = sorted({block for blocks in lists if blocks for block in blocks})
        for first in range(0, total, STRIDE_BLOCKS):
            count = min(STRIDE_BLOCKS, total - first)
            wanted = list(range(first, first + count))
            if union is not None:
                wanted = union[bisect_left(union, first) : bisect_left(union, first + count)]
            if wanted:
                yield first, count, wanted


def join_parts(parts: Sequence[list[list[bytes]]]) -> list[list[bytes]]:
    """Tags part by part, each by question, as tags by question."""
    return [[tag for part in parts for tag in part[number]] for number in range(len(parts[0]))]


def _expand(noise: Noise, blocks: Sequence[int], data: memoryview, first: int) -> None:
    for block in blocks:
        start = (block - first) * BLOCK_BYTES
        noise.write(block * BLOCK_BYTES, data[start : start + BLOCK_BYTES])
