"""Rollouts as bits: what a hidden worker hands to an encoder, and what a learner makes of what arrived.

Two forms, each a run of parcels that are checked one by one, most significant bit first:

    whole rollouts   T tokens of 12 bits, 8 bits of reward, 16 bits of check
    scores           4 rewards of 8 bits, 8 bits of check; the learner runs the best again from their seeds

The check is of CRC-16/CCITT over the parcel's number (32 bits) and its content, so that no parcel passes for
another. Both sides know T and the order.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Sequence
from dataclasses import dataclass

from ullage.errors import UsageError

TOKEN_BITS = 12
REWARD_BITS = 8
CHECK_BITS = 16
SCORES_A_PARCEL = 4
SCORES_CHECK_BITS = 8
"""Small parcels: where a channel carries a hundred bits a round, a large one is rarely whole."""
_MOST_TOKENS = 4096


@dataclass(frozen=True)
class Rollout:
    """What a policy said, and its reward in [0, 255]. `index` makes its prompt and its seed."""

    index: int
    tokens: tuple[int, ...]
    reward: int


def whole_bits(length: int) -> int:
    """Bits of a whole rollout of `length` tokens."""
    return length * TOKEN_BITS + REWARD_BITS + CHECK_BITS


def score_bits() -> float:
    """Bits a score, its part of the check included."""
    return REWARD_BITS + SCORES_CHECK_BITS / SCORES_A_PARCEL


def pack_whole(rollouts: Sequence[Rollout], length: int) -> list[int]:
    """Each rollout as a parcel; all have `length` tokens below 4,096. Raises UsageError."""
    bits: list[int] = []
    for number, rollout in enumerate(rollouts):
        if len(rollout.tokens) != length or not all(0 <= t < 1 << TOKEN_BITS for t in rollout.tokens):
            raise UsageError(f"A rollout here has {length} tokens below {1 << TOKEN_BITS}.")
        content = [bit for token in rollout.tokens for bit in _bits(token, TOKEN_BITS)]
        bits += _checked(number, content + _bits(rollout.reward, REWARD_BITS), CHECK_BITS)
    return bits


def unpack_whole(bits: Sequence[int | None], length: int) -> list[tuple[int, tuple[int, ...], int]]:
    """(place, tokens, reward) of every parcel that arrived whole; a bit that did not is None."""
    if not 0 < length <= _MOST_TOKENS:
        raise UsageError(f"A rollout has 1 to {_MOST_TOKENS} tokens.")
    found = []
    for place, content in _arrived(bits, length * TOKEN_BITS + REWARD_BITS, CHECK_BITS):
        numbers = [_number(content[TOKEN_BITS * at : TOKEN_BITS * (at + 1)]) for at in range(length)]
        found.append((place, tuple(numbers), _number(content[-REWARD_BITS:])))
    return found


def pack_scores(rewards: Sequence[int]) -> list[int]:
    """Rewards of rollouts in order; the last parcel is filled with zeros."""
    padded = [*rewards, *[0] * (-len(rewards) % SCORES_A_PARCEL)]
    bits: list[int] = []
    for number in range(len(padded) // SCORES_A_PARCEL):
        part = padded[SCORES_A_PARCEL * number : SCORES_A_PARCEL * (number + 1)]
        content = [bit for reward in part for bit in _bits(reward, REWARD_BITS)]
        bits += _checked(number, content, SCORES_CHECK_BITS)
    return bits


def unpack_scores(bits: Sequence[int | None]) -> list[tuple[int, int]]:
    """(index of the rollout, reward) from every parcel that arrived whole."""
    return [
        (place * SCORES_A_PARCEL + at, _number(content[REWARD_BITS * at : REWARD_BITS * (at + 1)]))
        for place, content in _arrived(bits, SCORES_A_PARCEL * REWARD_BITS, SCORES_CHECK_BITS)
        for at in range(SCORES_A_PARCEL)
    ]


def to_bytes(bits: Sequence[int]) -> bytes:
    """Bits as bytes, zeros at the end."""
    padded = [*bits, *[0] * (-len(bits) % 8)]
    return bytes(_number(padded[at : at + 8]) for at in range(0, len(padded), 8))


def _checked(number: int, content: list[int], width: int) -> list[int]:
    return content + _check(number, content, width)


def _arrived(bits: Sequence[int | None], size: int, width: int) -> list[tuple[int, list[int]]]:
    """Places and contents of parcels of `size` bits and a check of `width`, of those whose check holds."""
    step, found = size + width, []
    for place in range(len(bits) // step):
        parcel = [bit for bit in bits[step * place : step * (place + 1)] if bit is not None]
        if len(parcel) == step and parcel[size:] == _check(place, parcel[:size], width):
            found.append((place, parcel[:size]))
    return found


def _check(number: int, content: Sequence[int], width: int) -> list[int]:
    return _bits(crc_hqx(number.to_bytes(4) + to_bytes(content), 0xFFFF), 16)[:width]


def _bits(number: int, width: int) -> list[int]:
    return [number >> shift & 1 for shift in range(width - 1, -1, -1)]


def _number(bits: Sequence[int]) -> int:
    value = 0
    for bit in bits:
        value = 2 * value + bit
    return value
