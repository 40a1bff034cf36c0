"""The verifier's own answers to passes: noise expanded once, fed to the tags of every round in lockstep."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ullage.memory.machine.region import usable_cores
from ullage.memory.noise.noise import BLOCK_BYTES, Noise, Question, SegmentTag
from ullage.memory.protocol.questions import KEY_BYTES

SEGMENT_BLOCKS = 256


def draw_questions(region_blocks: int, rounds: int) -> list[Question]:
    """Fresh keys for `rounds` rounds, each over the whole region."""
    return [
        Question(number, secrets.token_bytes(KEY_BYTES), region_blocks, SEGMENT_BLOCKS)
        for number in range(rounds)
    ]


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


class Expectation:
    """Expected tags of all `questions`, from the noise that `new_noise` gives each thread that asks.

    `go_on` is called between blocks and raises what is to end the work.
    """

    def __init__(
        self,
        new_noise: Callable[[], Noise],
        questions: Sequence[Question],
        threads: int | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        self._new_noise = new_noise
        self._questions = questions
        self._threads = threads or usable_cores()
        self._progress = progress
        self._go_on = go_on

    def run(self) -> list[list[bytes]]:
        """The tags of each question; every worker expands a segment at a time."""
        total = self._questions[0].region_blocks
        passed = Passed(self._progress, total)

        def work(first: int) -> list[list[bytes]]:
            count = min(SEGMENT_BLOCKS, total - first)
            noise, asked = self._new_noise(), self._questions
            return expand_part(noise, asked, first, count, lambda _: self._go_on(), passed=passed.add)

        with ThreadPoolExecutor(self._threads, thread_name_prefix="expand") as pool:
            return join_parts(list(pool.map(work, range(0, total, SEGMENT_BLOCKS))))


def join_parts(parts: Sequence[list[list[bytes]]]) -> list[list[bytes]]:
    """Tags part by part, each by question, as tags by question."""
    return [[tag for part in parts for tag in part[number]] for number in range(len(parts[0]))]
