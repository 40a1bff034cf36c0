"""Near-ties under filters: the sets are those of the audit, tokens at the edges included."""

from __future__ import annotations

import numpy as np
import pytest

from tests.redteam.game import played
from ullage.audit.admissible.profile_sets import profile_sets
from ullage.redteam.outcome import CONFIDENCE_BITS
from ullage.redteam.tokens.adversary import FILTERED, TokenAdversary
from ullage.redteam.tokens.game import Size
from ullage.redteam.tokens.near_tie_flip import WIDE_FILTERED
from ullage.redteam.tokens.near_ties import BOUNDS, near_ties
from ullage.redteam.tokens.noise_mimicry import MIMIC_FILTERED
from ullage.sampling.address import NoiseAddress
from ullage.sampling.profiles import get_profile


def test_sets_and_their_sizes_are_the_audits() -> None:
    logits = (2.5 * np.random.default_rng(3).standard_normal((60, 400))).astype(np.float32)
    address = NoiseAddress.of_response(9, 4, 60)
    found = near_ties(logits, FILTERED, address, BOUNDS)
    outside = 0
    for bound in BOUNDS:
        sets = profile_sets(get_profile("murmur3-gumbel/f64"), logits, FILTERED, address, bound)
        for row in range(60):
            members = found.tokens[row][found.least_bounds[row] <= bound]
            assert set(members.tolist()) == set(sets.row(row).tolist())
            outside += int(np.isinf(found.gaps[row][found.least_bounds[row] <= bound]).sum())
    assert outside > 0  # some of them are not in the reference's own filtered set
    assert (found.least_bounds == np.sort(found.least_bounds, axis=1)).all()
    assert (found.tokens[:, 0] == near_ties(logits, FILTERED, address).tokens[:, 0]).all()


@pytest.mark.parametrize("adversary", [WIDE_FILTERED, MIMIC_FILTERED], ids=lambda item: item.name)
def test_bits_leave_through_filters_within_every_bound(adversary: TokenAdversary) -> None:
    found = played(adversary, Size(32, 32))
    assert found.game.decoded_bits > 0
    assert found.game.decoded_bits <= found.bound + CONFIDENCE_BITS
    for bound in BOUNDS:
        assert found.game.decoded_bits <= found.priced.bits_at(bound, 4096) + CONFIDENCE_BITS
    if adversary is WIDE_FILTERED:
        assert found.game.decoded_bits >= 0.6 * found.priced.walk(0.2)
