"""The verifier's end of a stream: noise made, tagged and sent, one thread a lane."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ullage.errors import IntegrityError
from ullage.memory.machine.region import usable_cores
from ullage.memory.noise.noise import BLOCK_BYTES, TAG_BYTES, Question, StreamNoise
from ullage.memory.protocol.expectation import SEGMENT_BLOCKS, Passed, expand_part, join_parts
from ullage.memory.protocol.lanes import blocks_of_a_lane, open_lanes
from ullage.memory.protocol.messages import MAX_LANES, Received
from ullage.memory.protocol.wire import Connection, LateError


def send_noise(
    connection: Connection,
    noise: StreamNoise,
    run: tuple[int, int, int],
    questions: Sequence[Question] = (),
    *,
    limit: float,
    lanes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[bytes]]:
    """Send the keystream for `run` = (space, offset, bytes), and return when all of it has arrived.

    Returns the tags of each of the `questions`, which ask for every block of a run that begins at 0. `limit`
    seconds may pass until the receipt; `lanes` is one a core by default; `progress` takes MiB sent, and all.

    Raises LateError after `limit`, IntegrityError for a receipt that is not the end of every lane, and as
    `Connection.ask`.
    """
    space, offset, size = run
    lane_blocks = blocks_of_a_lane(size, min(lanes or usable_cores(), MAX_LANES), SEGMENT_BLOCKS)
    with open_lanes(connection, space, offset, size, lane_blocks) as opened:
        deadline = time.monotonic() + limit
        passed = Passed(progress, size // BLOCK_BYTES)

        def work(lane: Connection, start: int, count: int) -> list[list[bytes]]:
            def send(data: memoryview) -> None:
                if time.monotonic() > deadline:
                    raise LateError(f"The agent did not take the noise within {limit:.3g} seconds.")
                lane.send_run(data)

            first, blocks = start // BLOCK_BYTES, count // BLOCK_BYTES
            return expand_part(noise, questions, first, blocks, send, passed=passed.add)

        with ThreadPoolExecutor(len(opened), thread_name_prefix="lane") as pool:
            tags = list(pool.map(work, *zip(*opened, strict=True)))
        tails = [noise.read(start + count - TAG_BYTES, TAG_BYTES) for _, start, count in opened]
        check_receipt(connection.expect(Received, limit), tails)
    return join_parts(tags)


def check_receipt(answer: Received, tails: Sequence[bytes | memoryview]) -> None:
    """Raises IntegrityError unless the last bytes of every lane came back.

    Without them a prover could say early that the noise arrived, and have the verifier's own send buffers (or
    a gateway's) keep megabytes of it until the question.
    """
    if len(answer.tails) != len(tails) or any(a != b for a, b in zip(answer.tails, tails, strict=True)):
        raise IntegrityError("The agent says that the noise arrived, but does not have its last bytes.")
