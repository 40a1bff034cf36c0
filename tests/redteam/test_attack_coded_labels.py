"""A prover that keeps sums of labels of a middle layer instead of its noise: half the room, and for each
spot a few thousand calls of AES. It beats what keeping labels would cost; what a claim counts is below it.

A row needs 16 labels of layer 9 in each of its 8 graphs: those of its group, of 32. The labels of layer 9
fall into 32 classes as well, each in one graph and closed downwards: cheap to make alone. Kept is, for groups
i and j, the sum of what i needs of class j and j needs of class i. Who makes class i has all that i needs.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.memory.test_butterfly import tweaks
from ullage.memory.noise.butterfly import DEPTH, ROWS, ButterflyNoise, cost_of_spots
from ullage.memory.noise.noise import SPOT_BYTES, STRATUM_BYTES

LAYERS, MIDDLE, CLASSES, GRAPHS = 13, 9, 32, 8
SEED = bytes(range(32))
Labels = dict[int, int]


class Prover:
    def __init__(self) -> None:
        self.calls = 0
        self._encryptor = Cipher(algorithms.AES(SEED), modes.ECB()).encryptor()  # noqa: S305 - single calls
        self._tweaks = [tweaks(b"\1" * 32, number, ROWS * GRAPHS) for number in (0, 1)]
        made = [self.make_class(one) for one in range(CLASSES)]
        self.kept = {
            (i, j): [made[j][a] ^ made[i][b] for a, b in zip(rows(i, j), rows(j, i), strict=True)]
            for i in range(CLASSES)
            for j in range(i)
        }

    def _shifted(self, which: int, label: int, graph: int, row: int) -> int:
        self.calls += 1
        value = label ^ self._tweaks[which][GRAPHS * row + graph]
        return int.from_bytes(self._encryptor.update(value.to_bytes(16, "little")), "little") ^ value

    def _layer(self, before: Labels, layer: int, graph: int, wanted: Iterable[int]) -> Labels:
        digit = 1 << (layer - 1) % DEPTH
        return {
            row: self._shifted(0, before[row], graph, row)
            ^ self._shifted(1, before[row ^ digit], graph, row ^ digit)
            for row in wanted
        }

    def make_class(self, number: int) -> Labels:
        """128 labels of layer 9: those of one graph whose row ends in two given digits."""
        graph, low = divmod(number, 4)
        labels = {
            row: int.from_bytes((GRAPHS * row + graph).to_bytes(16, "big"), "little") for row in range(ROWS)
        }
        for layer in range(1, MIDDLE + 1):
            mask = 3 if layer > 1 else 1  # the second digit is not mixed in before layer 2
            labels = self._layer(
                labels, layer, graph, [row for row in range(ROWS) if row & mask == low & mask]
            )
        return labels

    def answer(self, row: int) -> bytes:
        group = row >> 4
        own = self.make_class(group)
        found: list[Labels] = [{} for _ in range(GRAPHS)]
        for other in range(CLASSES):
            there = found[other >> 2]
            if other == group:
                there.update((at, own[at]) for at in rows(group, group))
                continue
            sums = self.kept[max(group, other), min(group, other)]
            for total, at, known in zip(sums, rows(group, other), rows(other, group), strict=True):
                there[at] = total ^ own[known]
        return b"".join(self._to_the_top(found[graph], graph, row) for graph in range(GRAPHS))

    def _to_the_top(self, labels: Labels, graph: int, row: int) -> bytes:
        for layer in range(MIDDLE + 1, LAYERS + 1):
            mask = (2 << (layer - 1) % DEPTH) - 1
            labels = self._layer(labels, layer, graph, [at for at in labels if (at ^ row) & mask == 0])
        return labels[row].to_bytes(16, "little")


def rows(group: int, number: int) -> list[int]:
    """What rows of a group need of a class: four labels, by their rows."""
    return [group << 4 | middle << 2 | number & 3 for middle in range(4)]


def test_sums_of_labels_save_no_more_than_is_assumed() -> None:
    prover, noise = Prover(), ButterflyNoise(SEED, LAYERS).read(0, STRATUM_BYTES)
    room = sum(map(len, prover.kept.values())) / (ROWS * GRAPHS)
    assert room < 0.5
    costs = []
    for row in (0, 511, *np.random.default_rng(1).integers(0, ROWS, 6).tolist()):
        prover.calls = 0
        assert prover.answer(row) == noise[row * SPOT_BYTES : (row + 1) * SPOT_BYTES]
        costs.append(prover.calls * 16 / SPOT_BYTES)
    labels_alone = (1 - room) * 2 * ROWS * (LAYERS - DEPTH)
    assert max(costs) < labels_alone / 5  # so a bound for labels alone would be wrong
    assert min(costs) > (1 - room) * cost_of_spots(LAYERS)  # and this one is not
