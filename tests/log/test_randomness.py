"""Random bytes are handed out once, to threads and across a fork."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from ullage.log.sealed.randomness import RandomSupply


def test_no_helping_is_given_twice() -> None:
    supply = RandomSupply()
    with ThreadPoolExecutor(8) as pool:
        helpings = list(pool.map(lambda _: supply.take(12), range(20_000)))
    assert {len(one) for one in helpings} == {12}
    assert len(set(helpings)) == len(helpings)


@pytest.mark.parametrize("count", [0, 1, 4095, 4096])
def test_helpings_have_the_size_that_was_asked(count: int) -> None:
    supply = RandomSupply()
    assert [len(supply.take(count)) for _ in range(3)] == [count] * 3


@pytest.mark.parametrize("count", [-1, 4097])
def test_more_than_a_page_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="helping"):
        RandomSupply().take(count)


def test_a_forked_child_has_bytes_of_its_own() -> None:
    supply = RandomSupply()
    supply.take(16)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, supply.take(32))
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 32)
    os.close(reading)
    os.close(writing)
    assert len(theirs) == 32
    assert theirs != supply.take(32)
