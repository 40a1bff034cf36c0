"""What an interrupted audit had recomputed, so that the same command goes on from there.

Scores are kept by the batch that they were computed in: they depend on the batch's records, the reference,
the profile and what was asked, and on nothing else, so a batch's name is a digest of all of that. A run of
other options, another stack or another log finds nothing of its own and begins anew; one batch that is the
same is the same bits.

What is read back enters a signed verdict. So names and contents are authenticated under the verifier's
selection key: whoever can write beside `--out` can cost an auditor time, and choose no score.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from ullage.audit.bundle.evidence import TokenCodes, TokenScores
from ullage.audit.cluster.shards import plan_batches
from ullage.audit.coding import TokenCoder
from ullage.audit.recompute import LogitsSource, recompute
from ullage.errors import FaultError, UsageError
from ullage.log.record import Record
from ullage.sampling.profiles import Profile

_LABEL: Final = b"ullage/unfinished-audit/v1"
_MAC_BYTES: Final = 32
_SCORES: Final = ("token", "reference", "margin", "rank", "entropy")
_CODES: Final = ("codelength", "admissible_count", "flip", "outside")


def place_of(out: Path) -> Path:
    """Where the scores of an unfinished audit lie whose bundle goes to `out`."""
    place = out.absolute()
    return place.parent / f".{place.name}.unfinished"


class Unfinished:
    """Scores of whole batches in a folder of one audit.

    `secret`: the verifier's selection key. `setting`: all that the scores of a batch depend on beside its
    records, as strings.
    """

    def __init__(self, folder: Path, secret: bytes, setting: Sequence[str] = ()) -> None:
        self.folder = folder
        self._secret = secret
        self._setting = list(setting)
        self._key = hmac.digest(secret, _LABEL + json.dumps(self._setting).encode(), "sha256")

    def under(self, *setting: str) -> Unfinished:
        """The same folder, where scores depend on `setting`, too."""
        return Unfinished(self.folder, self._secret, [*self._setting, *setting])

    def find(self, batch: Sequence[Record]) -> list[TokenScores] | None:
        """The scores of each record of a batch; None if they are not there, or are not ours."""
        name = self._name(batch)
        try:
            found = (self.folder / name).read_bytes()
        except OSError:
            return None
        mac, payload = found[:_MAC_BYTES], found[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(name, payload)):
            return None
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            whole = _scores(arrays)
        ends = np.cumsum([len(record.output_ids) for record in batch])
        return [
            _rows(whole, slice(end - len(one.output_ids), end)) for end, one in zip(ends, batch, strict=True)
        ]

    def keep(self, batch: Sequence[Record], scores: Sequence[TokenScores]) -> None:
        """Keep a batch's scores. Raises UsageError, FaultError when nothing can be written there."""
        name, file = self._name(batch), io.BytesIO()
        np.savez(file, allow_pickle=False, **_arrays(scores))
        payload = file.getvalue()
        if self.folder.is_symlink():
            raise UsageError(f"{self.folder} is a link; remove it: an audit keeps what it has done there.")
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            partial = self.folder / f"{name}.{os.getpid()}"
            partial.write_bytes(self._mac(name, payload) + payload)
            partial.replace(self.folder / name)  # whole or not at all
        except OSError as error:
            raise FaultError(f"{self.folder} cannot be written: {error.strerror}.") from error

    def clear(self) -> None:
        """Forget all of it: the bundle is there."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _name(self, batch: Sequence[Record]) -> str:
        asked = [
            [one.open.prompt_ids, one.output_ids, one.open.seed, one.open.parameters.model_dump()]
            for one in batch
        ]
        text = json.dumps(asked, sort_keys=True).encode()
        return hmac.digest(self._key, hashlib.sha256(text).digest(), "sha256").hex()

    def _mac(self, name: str, payload: bytes) -> bytes:
        return hmac.digest(self._key, b"scores/" + name.encode() + payload, "sha256")


def recompute_the_rest(
    reference: LogitsSource,
    profile: Profile,
    records: Sequence[Record],
    progress: Callable[[int], None],
    kept: Unfinished,
    *,
    entropy: bool = False,
    coder: TokenCoder | None = None,
) -> tuple[list[TokenScores], int]:
    """`recompute.recompute`, bit for bit, of what is not kept; and how many tokens were."""
    found: dict[int, TokenScores] = {}
    done = before = 0
    for places in plan_batches(records):
        batch = [records[place] for place in places]
        tokens = sum(len(record.output_ids) for record in batch)
        scores = kept.find(batch)
        if scores is None:
            scores = recompute(reference, profile, batch, entropy=entropy, coder=coder)
            kept.keep(batch, scores)
        else:
            before += tokens
        found.update(zip(places, scores, strict=True))
        done += tokens
        progress(done)
    return [found[place] for place in range(len(records))], before


def _arrays(scores: Sequence[TokenScores]) -> dict[str, np.ndarray]:
    """A batch's arrays by name, records one after the other along the last axis."""
    arrays = {name: np.concatenate([getattr(one, name) for one in scores], axis=-1) for name in _SCORES}
    codes = [one.codes for one in scores if one.codes is not None]
    if codes:
        arrays |= {name: np.concatenate([getattr(one, name) for one in codes], axis=-1) for name in _CODES}
    return arrays


def _scores(arrays: np.lib.npyio.NpzFile) -> TokenScores:
    codes = TokenCodes(**{name: arrays[name] for name in _CODES}) if _CODES[0] in arrays else None
    return TokenScores(**{name: arrays[name] for name in _SCORES}, codes=codes)


def _rows(whole: TokenScores, here: slice) -> TokenScores:
    codes = whole.codes
    if codes is not None:
        codes = TokenCodes(**{name: getattr(codes, name)[..., here] for name in _CODES})
    return TokenScores(**{name: getattr(whole, name)[here] for name in _SCORES}, codes=codes)
