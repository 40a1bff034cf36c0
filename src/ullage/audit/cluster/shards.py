"""How an audit's records are split among workers so that every bit is that of one machine.

The reference pads records of equal sampling parameters into batches, longest first, and a row's rounding may
depend on the batch that it stands in. So what is handed out are whole batches, as the local engine would form
them over all records: a batch that is recomputed alone is the same batch, wherever that happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ullage.audit.recompute import by_parameters
from ullage.log.record import Record
from ullage.model.batching import batches

SHARDS_A_WORKER: Final = 8
"""So many that a lost one costs little, and so few that handing them out does not show."""
_LEAST_TOKENS: Final = 4096


@dataclass(frozen=True)
class Shard:
    """Some whole batches.

    `batches`: places of records, in the batch's order. `tokens`: output tokens, for progress. `cost`:
    tokens of prompt and output, which the pass takes its time for.
    """

    number: int
    batches: tuple[tuple[int, ...], ...]
    tokens: int
    cost: int


def plan_batches(records: Sequence[Record]) -> list[tuple[int, ...]]:
    """Places of the records in the batches of the local engine, each record once, in that engine's order."""
    return [
        tuple(places[member] for member in members)
        for places in by_parameters(records).values()
        for members in batches([_length(records[place]) for place in places])
    ]


def plan_shards(records: Sequence[Record], workers: int) -> list[Shard]:
    """All batches in shards of about equal cost, some `SHARDS_A_WORKER` for each worker."""
    planned = plan_batches(records)
    total = sum(map(_length, records))
    target = max(_LEAST_TOKENS, -(-total // (workers * SHARDS_A_WORKER)))
    shards: list[Shard] = []
    members: list[tuple[int, ...]] = []
    cost = 0
    for number, batch in enumerate(planned):
        members.append(batch)
        cost += sum(_length(records[place]) for place in batch)
        if cost >= target or number == len(planned) - 1:
            tokens = sum(len(records[place].output_ids) for one in members for place in one)
            shards.append(Shard(len(shards), tuple(members), tokens, cost))
            members, cost = [], 0
    return shards


def _length(record: Record) -> int:
    return len(record.open.prompt_ids) + len(record.output_ids)
