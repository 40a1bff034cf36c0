"""What a checkpoint publishes, whenever it was hashed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.log.journal.publisher import Publisher
from ullage.log.tree.tile_tree import TreeEdge
from ullage.log.tree.tiles import new_tiles
from ullage.merkle import leaf_hash, tree_root


@given(st.integers(0, 1500), st.lists(st.integers(1, 700), max_size=3), st.integers(1, 600))
def test_a_backlog_that_is_hashed_in_steps_gives_the_same_log(left: int, added: list[int], step: int) -> None:
    entries = [f"entry {index}".encode() for index in range(left + sum(added))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ullage.log.journal.publisher._STEP", step)
        publisher = Publisher(TreeEdge(), 0, entries[:left])
        for more in added:
            publisher.add(entries[publisher.size : publisher.size + more])
            publisher.catch_up()
        published = publisher.take("tap.example/one")
    assert published.checkpoint.root == tree_root(leaf_hash(entry) for entry in entries)
    assert published.entries == entries
    assert {tile for tile, _ in published.tiles} == set(new_tiles(0, len(entries)))
