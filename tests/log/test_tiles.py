"""Tiles against the recursive tree of `merkle`, and the addresses of the C2SP document's own examples."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.errors import MalformedError, UsageError
from ullage.log.tree.tile_tree import TileTree, TreeEdge
from ullage.log.tree.tiles import (
    MAX_BUNDLE_ENTRY_BYTES,
    MAX_TREE_SIZE,
    Bundle,
    Tile,
    bundles_of,
    decode_bundle,
    encode_bundle,
    full_tile_root,
    new_tiles,
    parse_path,
    tile_at,
    tiles_of,
)
from ullage.merkle import (
    HASH_BYTES,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [leaf_hash(number.to_bytes(4, "big")) for number in range(70_000)]
# Sizes around every edge that tiles have: empty, within a tile, at one, two levels, three.
sizes = st.one_of(st.integers(1, 600), st.integers(65_500, 66_500), st.integers(1, len(LEAVES)))


def tiles_in(leaves: list[bytes]) -> dict[tuple[int, int, int], bytes]:
    """Every tile by the definition: leaf hashes in runs of 256, full runs hashed into the level above."""
    tiles: dict[tuple[int, int, int], bytes] = {}
    level, hashes = 0, list(leaves)
    while hashes:
        above = []
        for index in range(-(-len(hashes) // 256)):
            run = hashes[256 * index : 256 * (index + 1)]
            tiles[level, index, len(run)] = b"".join(run)
            if len(run) == 256:
                above.append(tree_root(run))
        level, hashes = level + 1, above
    return tiles


def tree_of(leaves: list[bytes]) -> TileTree:
    tiles = tiles_in(leaves)
    return TileTree(len(leaves), lambda level, index, width: tiles[level, index, width])


@pytest.mark.parametrize(
    ("address", "path"),
    [
        (Tile(0, 1234067), "tile/0/x001/x234/067"),  # the document's example
        (Tile(0, 0), "tile/0/000"),
        (Tile(3, 999, 1), "tile/3/999.p/1"),
        (Tile(63, 1000, 255), "tile/63/x001/000.p/255"),
        (Bundle(1234067, 17), "tile/entries/x001/x234/067.p/17"),
    ],
)
def test_an_address_has_its_path(address: Tile | Bundle, path: str) -> None:
    assert address.path == path
    assert parse_path(path) == address


@pytest.mark.parametrize(
    "path",
    [
        "", "tile", "tile/0", "tile/0/", "tile/0/1", "tile/0/0001", "tile/00/001", "tile/64/000",
        "tile/-1/000", "tile/0/x000/001", "tile/0/001/002", "tile/0/x001", "tile/0/x1000/000",
        "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p/",
        "tile/0/000/", "/tile/0/000", "tile/0/000\n",
        "tile/0/../000", "tile/0/٠٠٠", "tile/data/000", "tile/0/" + "x001/" * 40 + "000", "checkpoint",
    ],
)  # fmt: skip
def test_nothing_else_is_a_path(path: str) -> None:
    assert parse_path(path) is None


@given(st.one_of(st.integers(0, 63), st.none()), st.integers(0, MAX_TREE_SIZE >> 8), st.integers(1, 256))
def test_paths_go_both_ways(level: int | None, index: int, width: int) -> None:
    address = Bundle(index, width) if level is None else Tile(level, index, width)
    assert parse_path(address.path) == address


@given(st.text("tile/0123456789x.pnrs", max_size=40))
def test_a_path_has_one_spelling(path: str) -> None:
    address = parse_path(path)
    assert address is None or address.path == path


def test_the_documents_trees() -> None:
    tiles = list(tiles_of(70_000))
    counts = {(level, partial): 0 for level in range(3) for partial in (False, True)}
    for tile in tiles:
        counts[tile.level, tile.width < 256] += 1
    assert list(counts.values()) == [273, 1, 1, 1, 0, 1]
    assert [tile.width for tile in tiles if tile.width < 256] == [112, 17, 1]
    assert list(tiles_of(256)) == [Tile(0, 0), Tile(1, 0, 1)]
    assert list(tiles_of(0)) == []


@given(sizes)
@settings(max_examples=15, deadline=None)
def test_tiles_of_a_size(size: int) -> None:
    expected = [Tile(*address) for address in tiles_in(LEAVES[:size])]
    assert list(tiles_of(size)) == expected
    assert [(bundle.index, bundle.width) for bundle in bundles_of(size)] == [
        (tile.index, tile.width) for tile in expected if tile.level == 0
    ]


@given(sizes, sizes)
@settings(max_examples=60, deadline=None)
def test_new_tiles_are_those_that_the_smaller_tree_lacks(one: int, other: int) -> None:
    old, new = min(one, other), max(one, other)
    before = set(tiles_of(old))
    assert list(new_tiles(old, new)) == [tile for tile in tiles_of(new) if tile not in before]


def test_there_is_no_empty_tile() -> None:
    for level, index in ((0, 2), (1, 1), (2, 0), (-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="no tile"):
            tile_at(level, index, 512)
    with pytest.raises(ValueError, match="wide"):
        _ = Tile(0, 0, 0).path
    with pytest.raises(ValueError, match="full tile"):
        full_tile_root(LEAVES[0])


@given(sizes, st.data())
@settings(max_examples=25, deadline=None)
def test_proofs_from_tiles_are_those_of_the_tree(size: int, data: st.DataObject) -> None:
    leaves = LEAVES[:size]
    tree, root = tree_of(leaves), tree_root(leaves)
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(0, size))
    assert tree.root() == root
    assert tree.leaf(index) == leaves[index]
    assert verify_inclusion(leaves[index], index, size, tree.inclusion_proof(index), root)
    old_root = tree_root(leaves[:old])
    assert tree.root(old) == old_root
    assert verify_consistency(old, old_root, size, root, tree.consistency_proof(old))
    if size <= 1000:
        assert tree.inclusion_proof(index) == inclusion_proof(leaves, index)
        assert tree.consistency_proof(old) == consistency_proof(leaves, old)


def test_a_proof_needs_few_tiles_and_the_cache_fewer() -> None:
    tiles = tiles_in(LEAVES)
    fetched: list[tuple[int, int, int]] = []

    def fetch(level: int, index: int, width: int) -> bytes:
        fetched.append((level, index, width))
        return tiles[level, index, width]

    tree = TileTree(len(LEAVES), fetch)
    tree.inclusion_proof(1000)
    assert len(fetched) <= 6
    before = len(fetched)
    tree.inclusion_proof(1001)
    assert len(fetched) == before
    small = TileTree(len(LEAVES), fetch, cached=1)
    assert small.inclusion_proof(1000) == tree.inclusion_proof(1000)


def test_outside_the_tree() -> None:
    tree = tree_of(LEAVES[:5])
    for call in (lambda: tree.inclusion_proof(5), lambda: tree.consistency_proof(6), lambda: tree.root(6)):
        with pytest.raises(ValueError, match="tree of 5"):
            call()


def test_a_tile_of_the_wrong_length_is_refused() -> None:
    tree = TileTree(5, lambda level, index, width: b"\0" * (HASH_BYTES * width - 1))
    with pytest.raises(MalformedError, match=r"tile/0/000\.p/5"):
        tree.root()


@given(st.lists(st.integers(0, 700), max_size=6))
@settings(max_examples=40, deadline=None)
def test_an_edge_grows_into_the_same_tiles(steps: list[int]) -> None:
    edge = TreeEdge()
    assert edge.root() == tree_root([])
    full: dict[tuple[int, int, int], bytes] = {}
    size = 0
    for step in steps:
        grown = edge.append(b"".join(LEAVES[size : size + step]))
        full |= {(tile.level, tile.index, tile.width): data for tile, data in grown}
        size += step
        assert edge.size == size
        assert edge.root() == tree_root(LEAVES[:size])
    partial = {(tile.level, tile.index, tile.width): data for tile, data in edge.partial_tiles()}
    assert full | partial == tiles_in(LEAVES[:size])
    assert not full.keys() & partial.keys()


@given(sizes, st.integers(0, 700))
@settings(max_examples=15, deadline=None)
def test_an_edge_is_loaded_from_partial_tiles(size: int, more: int) -> None:
    tiles = tiles_in(LEAVES[:size])
    edge = TreeEdge.load(size, lambda level, index, width: tiles[level, index, width])
    assert edge.root() == tree_root(LEAVES[:size])
    before = edge.copy()
    edge.append(b"".join(LEAVES[size : size + more]))
    assert edge.root() == tree_root(LEAVES[: size + more])
    assert (before.size, before.root()) == (size, tree_root(LEAVES[:size]))


def test_three_levels_at_once() -> None:
    edge = TreeEdge()
    edge.append(b"".join(LEAVES))
    assert edge.root() == tree_root(LEAVES)
    assert {tile.level for tile, _ in edge.partial_tiles()} == {0, 1, 2}


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_bundles_go_both_ways(entries: list[bytes]) -> None:
    assert decode_bundle(encode_bundle(entries), len(entries)) == entries


def test_the_bytes_of_a_bundle() -> None:
    assert encode_bundle([b"", b"ab"]) == b"\x00\x00\x00\x02ab"
    longest = bytes(MAX_BUNDLE_ENTRY_BYTES)
    assert decode_bundle(encode_bundle([longest]), 1) == [longest]
    with pytest.raises(UsageError, match="65535"):
        encode_bundle([longest + b"\0"])


@pytest.mark.parametrize(
    ("data", "width"),
    [
        (b"", 1), (b"\x00", 1), (b"\x00\x01", 1), (b"\x00\x02a", 1), (b"\x00\x01ab", 1),
        (b"\x00\x01a\x00", 2), (b"\x00\x00\x00\x00", 1), (b"\x00\x00", 2), (b"\xff\xffa", 1),
    ],
)  # fmt: skip
def test_a_bundle_that_does_not_fit_is_refused(data: bytes, width: int) -> None:
    with pytest.raises(MalformedError, match="entry bundle"):
        decode_bundle(data, width)


@given(st.binary(max_size=200), st.integers(1, 256))
def test_any_bytes_are_a_bundle_or_refused(data: bytes, width: int) -> None:
    try:
        entries = decode_bundle(data, width)
    except MalformedError:
        return
    assert encode_bundle(entries) == data
    assert len(entries) == width
