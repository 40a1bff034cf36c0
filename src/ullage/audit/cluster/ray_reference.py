"""The declared model as a Ray cluster runs it: the same scores as one machine's, bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ullage import __version__
from ullage.audit.bundle.evidence import TokenScores
from ullage.audit.cluster.ray_cluster import Cluster, RayOptions, joined
from ullage.audit.cluster.ray_pool import RayPool
from ullage.audit.cluster.ray_worker import Introduction, Task
from ullage.audit.cluster.shards import Shard, plan_shards
from ullage.audit.coding import TokenCoder
from ullage.errors import FaultError
from ullage.log.record import Record
from ullage.model.identity import identify
from ullage.model.tokenizer import ModelTokenizer
from ullage.sampling.profiles import Profile

_DTYPE: Final = "float32"


class RayReference:
    """Made by `on_ray`. Holds no weights: identity and tokenizer are read here, workers load the rest."""

    dtype = _DTYPE

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        from ullage.model.builtin import builtin_path
        from ullage.model.stack import stack_digest

        self._cluster = cluster
        self._folder = None if folder == builtin_path() else str(folder.resolve())
        self.tokenizer = ModelTokenizer.load(folder)
        self.identity = identify(folder)
        self.stack_digest = stack_digest(_DTYPE)
        self.vocabulary_size = self.tokenizer.vocabulary_size
        self.context_length = self.tokenizer.context_length
        self.remark = ""
        """What became of the workers, as a sentence; no part of the evidence."""

    def recompute(
        self,
        profile: Profile,
        records: Sequence[Record],
        progress: Callable[[int], None],
        *,
        entropy: bool = False,
        coder: TokenCoder | None = None,
    ) -> list[TokenScores]:
        """The scores of each record's output, in the order of `records`; see `recompute.recompute`.

        Raises UsageError when a worker is not what this machine is, FaultError when too many are lost.
        """
        found: dict[int, TokenScores] = {}
        done = 0

        def scored(shard: Shard, scores: list[TokenScores]) -> None:
            nonlocal done
            places = [place for batch in shard.batches for place in batch]
            found.update(_checked(records, places, scores))
            done += shard.tokens
            progress(done)

        cluster, began = self._cluster, time.monotonic()
        shards = plan_shards(records, cluster.workers)
        task = Task(self._folder, profile.name, cluster.threads, entropy, coder)
        expected = Introduction(__version__, self.identity.digest, self.stack_digest, _DTYPE)
        dispatch = RayPool(cluster, task, expected, records, scored).run(shards)
        self.remark = (
            f"{done} tokens were recomputed by {min(cluster.workers, len(shards))} workers of "
            f"{cluster.name}, in {time.monotonic() - began:.1f} seconds with their start."
        )
        if dispatch.lost:
            self.remark += f" {dispatch.lost} were lost on the way, and their records recomputed by others."
        return [found[place] for place in range(len(records))]


@contextmanager
def on_ray(options: RayOptions, folder: Path) -> Iterator[RayReference]:
    """A cluster's workers as the reference for the model in `folder`. Raises UsageError, FaultError."""
    with joined(options) as cluster:
        yield RayReference(cluster, folder)


def _checked(
    records: Sequence[Record], places: Sequence[int], scores: Sequence[TokenScores]
) -> dict[int, TokenScores]:
    """The scores by place; raises FaultError unless there is a row for every token asked about."""
    if [list(one.token) for one in scores] != [list(records[place].output_ids) for place in places]:
        raise FaultError("A worker returned scores of other tokens than those that it was asked about.")
    return dict(zip(places, scores, strict=True))
