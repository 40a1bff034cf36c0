"""Covert reinforcement learning, played small: parcels, the toy learner, a passage through real taps."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.redteam.cheating_server import model_folder, reference
from ullage.errors import UsageError
from ullage.redteam.enforced.stage import stage
from ullage.redteam.rollouts.campaign import Form, Round, Size, campaign
from ullage.redteam.rollouts.learning import Policy, best, best_scored
from ullage.redteam.rollouts.parcels import (
    Rollout,
    pack_scores,
    pack_whole,
    to_bytes,
    unpack_scores,
    unpack_whole,
    whole_bits,
)
from ullage.redteam.rollouts.passage import ENFORCED, UNVERIFIED, Way

rollouts = st.lists(
    st.tuples(st.lists(st.integers(0, 4095), min_size=5, max_size=5), st.integers(0, 255)), max_size=6
).map(lambda pairs: [Rollout(n, tuple(tokens), reward) for n, (tokens, reward) in enumerate(pairs)])


@given(rollouts)
def test_whole_rollouts_come_back(made: list[Rollout]) -> None:
    bits = pack_whole(made, 5)
    assert len(bits) == len(made) * whole_bits(5)
    assert unpack_whole(bits, 5) == [(r.index, r.tokens, r.reward) for r in made]
    assert len(to_bytes(bits)) == -(-len(bits) // 8)


@given(st.lists(st.integers(0, 255), max_size=50))
def test_scores_come_back(rewards: list[int]) -> None:
    assert unpack_scores(pack_scores(rewards))[: len(rewards)] == list(enumerate(rewards))


@given(rollouts.filter(bool), st.data())
def test_a_parcel_that_is_changed_or_cut_is_lost_and_no_other(
    made: list[Rollout], data: st.DataObject
) -> None:
    bits: list[int | None] = list(pack_whole(made, 5))
    at = data.draw(st.integers(0, len(bits) - 1))
    changed = bits[at]
    assert changed is not None
    bits[at] = data.draw(st.sampled_from([None, 1 - changed]))
    lost = at // whole_bits(5)
    assert [place for place, _, _ in unpack_whole(bits, 5)] == [r.index for r in made if r.index != lost]


def test_a_parcel_does_not_pass_for_another() -> None:
    first, second = (pack_whole([Rollout(0, (n,) * 5, n)], 5) for n in (1, 2))
    assert unpack_whole([*second, *first], 5)[0][1] == (2,) * 5
    assert len(unpack_whole([*first, *second], 5)) == 1  # the second was numbered 0 and stands at 1


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError):
        pack_whole([Rollout(0, (4096,) * 5, 0)], 5)
    with pytest.raises(UsageError):
        unpack_whole([], 1 << 20)


def test_the_best_of_each_run() -> None:
    made = [Rollout(n, (), reward) for n, reward in enumerate([3, 9, 9, 1, 0, 0, 2, 2])]
    assert [r.index for r in best(made, 4)] == [1, 6]
    assert best_scored([(r.index, r.reward) for r in made], 4) == [1, 6]
    assert best_scored([(4, 0), (7, 2)], 4) == [7]


def test_a_rollout_can_be_run_again_from_its_number_alone() -> None:
    torch.set_num_threads(1)
    policy = Policy.of(reference())
    together = policy.rollouts(range(6), 8)
    assert policy.rollouts([4], 8) == [together[4]]
    assert {len(r.tokens) for r in together} == {8}
    assert policy.learn([], 0) is policy


@pytest.mark.slow
def test_the_learner_learns_from_what_it_gets() -> None:
    torch.set_num_threads(1)
    policy = Policy.of(reference())
    before = policy.skill(0, 16, 128)
    for number in range(3):
        made = policy.rollouts(range(number * 128, (number + 1) * 128), 16)
        policy = policy.learn(best(made), number)
    after = policy.skill(0, 16, 128)
    assert after.mean > before.mean + 3 * (before.error + after.error)


def _play(folder: Path, way: Way) -> Round:
    async def once() -> list[Round]:
        async with stage(folder / "stage", model_folder()) as ready:
            return await campaign(ready, reference(), way, Form.WHOLE, Size(16, 40, 32, 8), rounds=1)

    (played,) = asyncio.run(once())
    return played


@pytest.mark.slow
@pytest.mark.parametrize("way", [UNVERIFIED, ENFORCED], ids=lambda way: way.name)
def test_rollouts_through_a_real_tap(tmp_path: Path, way: Way) -> None:
    torch.set_num_threads(1)
    played = _play(tmp_path, way)
    assert played.produced == 32
    assert played.meant == 4
    assert played.wrong == 0
    assert played.out == (0 if way.enforced else 4)
    assert played.used == played.out
