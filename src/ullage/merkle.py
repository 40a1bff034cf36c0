"""The Merkle tree of RFC 6962 §2.1 (RFC 9162 §2.1): pure functions over hashes, no I/O.

A tree is named by its size and its root. A proof is a tuple of SHA-256 hashes; its length follows from the
sizes alone and is checked before anything is hashed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 ‖ entry). RFC 6962 §2.1."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right). RFC 6962 §2.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: one hash for each set bit of its size, largest subtree first.

    Appending costs O(1) hashes on average, the root O(log size); nothing else is kept.
    """

    def __init__(self) -> None:
        self.size = 0
        self._subtrees: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Add a leaf by its `leaf_hash`."""
        node, remaining = leaf, self.size
        while remaining & 1:
            node = node_hash(self._subtrees.pop(), node)
            remaining >>= 1
        self._subtrees.append(node)
        self.size += 1

    def root(self) -> bytes:
        """The root of all leaves so far, 32 bytes (RFC 6962, section 2.1)."""
        if not self._subtrees:
            return EMPTY_ROOT
        root = self._subtrees[-1]
        for subtree in reversed(self._subtrees[:-1]):
            root = node_hash(subtree, root)
        return root


def tree_root(leaves: Iterable[bytes]) -> bytes:
    """Root over leaf hashes: MTH of RFC 6962 §2.1."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """PATH(index, leaves) of RFC 6962 §2.1.1, from the leaf's sibling up; `leaves` are leaf hashes."""
    if not 0 <= index < len(leaves):
        raise ValueError(f"entry {index} is not in a tree of {len(leaves)} entries")
    path: list[bytes] = []
    start, end = 0, len(leaves)
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(tree_root(leaves[middle:end]))
            end = middle
        else:
            path.append(tree_root(leaves[start:middle]))
            start = middle
    return tuple(reversed(path))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows that `leaf` is entry `index` of the tree (size, root). RFC 9162 §2.1.3.2."""
    if not 0 <= index < size or not _are_hashes(leaf, root, *proof):
        return False
    # The path bends `inner` times below the tree's right edge; along the edge it has one hash for each
    # subtree to the left.
    inner = (index ^ (size - 1)).bit_length()
    if len(proof) != inner + (index >> inner).bit_count():
        return False
    node = leaf
    for level, sibling in enumerate(proof):
        from_left = level >= inner or (index >> level) & 1
        node = node_hash(sibling, node) if from_left else node_hash(node, sibling)
    return node == root


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> tuple[bytes, ...]:
    """PROOF(old_size, leaves) of RFC 6962 §2.1.2; `leaves` are the leaf hashes of the newer tree."""
    if not 0 <= old_size <= len(leaves):
        raise ValueError(f"a tree of {len(leaves)} entries does not extend one of {old_size}")
    if old_size in (0, len(leaves)):
        return ()
    path: list[bytes] = []
    start, end, known = 0, len(leaves), True
    while end != old_size:
        middle = start + _split(end - start)
        if old_size <= middle:
            path.append(tree_root(leaves[middle:end]))
            end = middle
        else:
            path.append(tree_root(leaves[start:middle]))
            start, known = middle, False
    if not known:
        path.append(tree_root(leaves[start:end]))
    return tuple(reversed(path))


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether `proof` shows that (new_size, new_root) extends (old_size, old_root). RFC 9162 §2.1.4.2."""
    if not 0 <= old_size <= new_size or not _are_hashes(old_root, new_root, *proof):
        return False
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT and (new_size > 0 or new_root == EMPTY_ROOT)
    if old_size == new_size:
        return not proof and old_root == new_root
    # Start from the largest complete subtree that ends at the old tree's edge. If it is the whole old
    # tree, the proof leaves it out.
    shift = (old_size & -old_size).bit_length() - 1
    index, last = (old_size - 1) >> shift, (new_size - 1) >> shift
    inner = (index ^ last).bit_length()
    expected = inner + (index >> inner).bit_count() + (1 if index else 0)
    if len(proof) != expected:
        return False
    seed, path = (proof[0], proof[1:]) if index else (old_root, proof)
    old_node = new_node = seed
    for level, sibling in enumerate(path):
        if level >= inner or (index >> level) & 1:
            old_node, new_node = node_hash(sibling, old_node), node_hash(sibling, new_node)
        else:
            new_node = node_hash(new_node, sibling)
    return old_node == old_root and new_node == new_root


def _split(size: int) -> int:
    """The largest power of two smaller than `size` (RFC 6962 §2.1)."""
    return 1 << ((size - 1).bit_length() - 1)


def _are_hashes(*values: bytes) -> bool:
    return all(len(value) == HASH_BYTES for value in values)
