"""Which records are audited: drawn with a key that was committed to before they were written.

For window j the verifier's key is K_j = HMAC-SHA256(secret, "ullage/selection/v1" ‖ j). Its commitment
is written into the log's header before the window opens, so that the verifier cannot choose records
after reading them; the key itself is published with the verdict, so that anyone can repeat the draw;
and nobody without it can tell beforehand which records will be looked at. A window number is used for
one log only: a published key foretells every draw that is made with it.

Both draws bind the root of the checkpoint they were made over. Two schemes, never mixed:

* uniform without replacement: the n records with the smallest HMAC(K_j, root ‖ index). If k of N
  records deviate, all of them are missed with probability C(N - k, n) / C(N, n).
* proportional to tokens with replacement: draw number d takes the record in which the point
  floor(HMAC(K_j, root ‖ d) * W / 2^256) lies on the line of all W tokens. Nothing is rejected; a
  record's probability differs from its share of the tokens by less than 2^-256, so relatively by less
  than W / 2^256, which is below 2^-192 for every log that fits a 64-bit count.
"""

from __future__ import annotations

import hashlib
import heapq
import hmac
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain

from ullage.errors import UsageError

KEY_BYTES = 32
_WINDOW_DOMAIN = b"ullage/selection/v1"
_COMMITMENT_DOMAIN = b"ullage/selection-commitment/v1"
_LOG_DOMAIN = b"ullage/window-of-log/v1"
_UNIFORM_DOMAIN = b"ullage/draw-uniform/v1"
_PROPORTIONAL_DOMAIN = b"ullage/draw-proportional/v1"
_WINDOWS_SEARCHED = 1 << 16


def window_key(secret: bytes, window: int) -> bytes:
    """K_j, 32 bytes: HMAC-SHA256 of the domain and the window's number (8 bytes, big-endian)."""
    if len(secret) < KEY_BYTES:
        raise UsageError(f"A selection key has at least {KEY_BYTES} bytes; this one has {len(secret)}.")
    if not 0 <= window < 1 << 64:
        raise UsageError("A window's number lies between 0 and 2^64 - 1.")
    return hmac.digest(secret, _WINDOW_DOMAIN + window.to_bytes(8, "big"), "sha256")


def key_commitment(key: bytes) -> str:
    """What the log's header carries of K_j: `sha256:` of the domain and the key."""
    return "sha256:" + hashlib.sha256(_COMMITMENT_DOMAIN + key).hexdigest()


def matches_commitment(key: bytes, commitment: str) -> bool:
    """Whether `key` is the one that the log's header committed to; takes the same time either way."""
    return hmac.compare_digest(key_commitment(key).encode(), commitment.encode())


def window_of_log(log_id: str) -> int:
    """A window number for a log that is audited as one window, in the upper half of the 64-bit numbers.

    Log ids are random and never used twice, so neither is the number; nobody has to keep count.
    """
    digest = hashlib.sha256(_LOG_DOMAIN + log_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") | 1 << 63


def find_window(secret: bytes, commitment: str, log_id: str) -> int | None:
    """The number of the window that this commitment was made for; None if it is not of this secret.

    Tries the log's own window, then the first 65,536, which takes a quarter of a second at most.
    """
    for window in chain((window_of_log(log_id),), range(_WINDOWS_SEARCHED)):
        if matches_commitment(window_key(secret, window), commitment):
            return window
    return None


def draw_uniform(key: bytes, root: bytes, population: int, sample: int) -> list[int]:
    """`sample` different indices out of `population`, ascending; all of them if there are not more."""
    if sample < 1:
        raise UsageError("At least one record has to be drawn.")
    if sample >= population:
        return list(range(population))
    prefix = _UNIFORM_DOMAIN + root
    ranked = (
        (hmac.digest(key, prefix + index.to_bytes(8, "big"), "sha256"), index) for index in range(population)
    )
    return sorted(index for _, index in heapq.nsmallest(sample, ranked))


def draw_proportional(key: bytes, root: bytes, weights: Sequence[int], draws: int) -> list[int]:
    """`draws` indices in the order of drawing, each with probability `weights[i] / sum(weights)`."""
    if draws < 1:
        raise UsageError("At least one draw has to be made.")
    if any(weight < 0 for weight in weights):
        raise UsageError("A weight cannot be negative.")
    ends = list(accumulate(weights))
    if not ends or ends[-1] == 0:
        raise UsageError("There is nothing to draw from: all weights are zero.")
    total, prefix = ends[-1], _PROPORTIONAL_DOMAIN + root
    chosen = []
    for number in range(draws):
        digest = hmac.digest(key, prefix + number.to_bytes(8, "big"), "sha256")
        point = (int.from_bytes(digest, "big") * total) >> 256
        chosen.append(bisect_right(ends, point))
    return chosen
