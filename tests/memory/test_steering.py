"""Key-value memory that is chosen while a chain runs leads it past what is missing: it is fixed before."""

from __future__ import annotations

import secrets

import numpy as np
import pytest

from tests.memory.test_edges import PAGE_SHAPE, ROW, Agent, challenged, page_recompute, pages
from ullage.memory.machine.gather import CHAIN_BLOCK_BYTES, Blocks, gather_from_views
from ullage.memory.protocol.chain import WIDTH, ChainLinks, walk
from ullage.memory.protocol.fields import Message
from ullage.memory.protocol.messages import Committed
from ullage.memory.protocol.questions import Chain

BLOCKS, FREE, MISSING = 4096, 512, 128
"""An eighth of the map is free to choose, 1/32 is missing: of a step's 64 blocks two on average."""


def steered(nonce: bytes, steps: int, memory: Blocks) -> tuple[bytes, int]:
    """Walk a chain, choosing eight bytes of free blocks on the way; the last link, and how many tries."""
    links, link, tries = ChainLinks(nonce, BLOCKS, WIDTH), nonce, 0
    fixed: set[int] = set()
    numbers = links.numbers(link)
    if max(numbers.tolist()) >= BLOCKS - MISSING or min(numbers.tolist()) >= FREE:
        return b"", 0  # the first step is nobody's to choose; another chain then
    for _ in range(steps):
        free = [block for block in numbers.tolist() if block < FREE and block not in fixed]
        fixed.update(numbers.tolist())
        while True:
            tries += 1
            memory[free[0], :8] = np.frombuffer(tries.to_bytes(8, "big"), np.uint8)
            then = links.follow(link, memory[numbers].reshape(-1).data)
            following = links.numbers(then)
            listed = following.tolist()
            if max(listed) < BLOCKS - MISSING and any(b < FREE and b not in fixed for b in listed):
                break
        link, numbers = then, following
    return link, tries


def test_free_bytes_lead_a_chain_past_what_is_missing() -> None:
    """Of 30 steps drawn at random 26 would meet something; steered, not one does, and it answers right."""
    memory = np.random.default_rng(1).integers(0, 256, (BLOCKS, CHAIN_BLOCK_BYTES), np.uint8)
    noise = memory[-MISSING:].copy()
    memory[-MISSING:] = 0  # gone
    link, tries = b"", 0
    while not link:
        nonce = secrets.token_bytes(16)
        link, tries = steered(nonce, 30, memory)
    memory[-MISSING:] = noise  # what the verifier expects there
    asked = Chain(255, nonce, 30, WIDTH, BLOCKS)
    assert link == walk(asked, gather_from_views([memory.reshape(-1).data], CHAIN_BLOCK_BYTES))
    assert tries < 30 * 40  # of a microsecond or two in a compiled loop, where a disk takes 68


class Chooser(Agent):
    """Changes an empty place, or a last bit, when it has heard the chain's key."""

    last_bit = False

    def answer(self, message: Message) -> Message:
        if isinstance(message, Chain):
            changed = bytearray(self.cache[2])
            changed[0 if self.last_bit else -1] ^= 1
            self.cache = [*self.cache[:2], bytes(changed), *self.cache[3:]]
        return super().answer(message)


@pytest.mark.parametrize("last_bit", [False, True])
def test_memory_that_changes_when_the_key_is_known_is_a_wrong_answer(last_bit: bool) -> None:
    row = ROW if last_bit else ROW[:31]
    places = [(0, 0), (0, len(ROW) - len(row)), (0, 0)]  # the last may stand for no token
    agent = Chooser([np.pad(one, places).tobytes() for one in page_recompute(row)], PAGE_SHAPE, [row])
    agent.last_bit = last_bit
    visit = challenged(agent)
    assert visit is not None
    assert visit.cache is not None
    assert visit.cache.is_declared  # in itself it is what tokens lead to
    assert not visit.correct


def test_a_commitment_to_something_else_is_a_wrong_answer() -> None:
    class Liar(Agent):
        def answer(self, message: Message) -> Message:
            found = super().answer(message)
            return Committed(bytes(32)) if isinstance(found, Committed) else found

    visit = challenged(Liar(pages(), PAGE_SHAPE, [ROW]))
    assert visit is not None
    assert not visit.correct
