"""Fit the monitor's thresholds (`src/ullage/monitor/thresholds.json`) on the fitting text.

    python benchmarks/monitor_thresholds.py [--outputs outputs-2.jsonl] [--english english.txt.gz]

For each alphabet and range of lengths: the (r+1)-th largest evidence over messages without shaped tokens,
where r is the number of messages that ALLOWED lets be above, plus MARGIN; never less than a floor. Cells
with nothing in them take the floor. Then the class `split` with those thresholds in place.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from monitor_text import fitting, is_shaped
from ullage.monitor.alphabets import CLASS_NAMES, GRAPH, GROUPS, LENGTH_EDGES, NARROWING
from ullage.monitor.decoders import in_groups
from ullage.monitor.drawn import is_list, looks_drawn, mixes_letters
from ullage.monitor.natural import cumulative_costs
from ullage.monitor.runs import Scored, graph_runs, hex_runs, word_runs
from ullage.monitor.scattered import mixed_case_gains, most_evidence
from ullage.monitor.thresholds import Thresholds

ALLOWED = 0.00003  # share of messages above, in each cell
MARGIN = 6.0
FLOORS = {12: 56.0, 16: 50.0}
WIDE_FLOOR = 76.0  # of runs of all signs: patterns and formulas differ more from text to text than words do
SHARE_IN_GROUPS = 0.4  # as in `ullage.monitor.scanner`
SHORTEST = {"ascii85": 20, "decimal": 20, "lower": 20, "upper": 20, "letters": 16}


def cell_names(found: Scored, wide: bool) -> list[str]:
    """The class of each run."""
    if wide:
        return [GRAPH.name] * len(found.starts)
    return [NARROWING[which].name if which >= 0 else "base64mixed" for which in found.alphabets.tolist()]


def main() -> None:
    """Collect, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--outputs", type=Path)
    parser.add_argument("--english", type=Path)
    given = parser.parse_args()
    groups = fitting(given.outputs, given.english)
    messages = [one.encode() for kind in groups.values() for one in kind if not is_shaped(one)]
    worst: dict[tuple[str, int], list[float]] = defaultdict(list)
    for message in messages:
        data = np.frombuffer(message, np.uint8)
        if not len(data):
            continue
        total = cumulative_costs(data)
        here: dict[tuple[str, int], float] = {}
        for find, wide in ((word_runs, False), (hex_runs, False), (graph_runs, True)):
            found = find(data, total)
            names = cell_names(found, wide)
            for place in np.flatnonzero(found.evidence > 15).tolist():
                run = message[found.starts[place] : found.ends[place]]
                if find is hex_runs and names[place] != "hex":
                    continue
                if wide and mixes_letters(run, SHARE_IN_GROUPS) and not is_list(run) and in_groups(run):
                    cell = (GROUPS, int(np.searchsorted(LENGTH_EDGES, len(run), side="right")))
                    here[cell] = max(here.get(cell, 0.0), float(found.evidence[place]))
                if looks_drawn(run, 85 if wide else 40) and (not wide or mixes_letters(run)):
                    cell = (names[place], int(np.searchsorted(LENGTH_EDGES, len(run), side="right")))
                    here[cell] = max(here.get(cell, 0.0), float(found.evidence[place]))
        for cell, value in here.items():
            worst[cell].append(value)
    rank = round(ALLOWED * len(messages))
    rows: dict[str, list[float | None]] = {}
    for name in CLASS_NAMES:
        rows[name] = [
            fit(worst[name, column], rank, edge, name) for column, edge in enumerate((0, *LENGTH_EDGES))
        ]
    thresholds = Thresholds.of(rows)
    sums = sorted((most_scattered(message, thresholds) for message in messages), reverse=True)
    split = max(60.0, sums[2 * rank] + MARGIN)
    rows["split"] = [round(split, 1)] * (len(LENGTH_EDGES) + 1)
    where = Path(__file__).parents[1] / "src/ullage/monitor/thresholds.json"
    document = {"length_edges": [0, *LENGTH_EDGES], "messages": len(messages), "bits": rows}
    where.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    print(f"{len(messages)} messages, {sum(map(len, messages))} bytes, rank {rank}; split {split:.1f}")
    for name, row in rows.items():
        print(f"{name:12}", *("   -" if one is None else f"{one:4.0f}" for one in row))


def fit(values: list[float], rank: int, edge: int, name: str) -> float | None:
    """A cell's threshold, or None where the class is not looked for."""
    if edge < SHORTEST.get(name, 12):
        return None
    floor = WIDE_FLOOR if name == GRAPH.name else FLOORS[16] if edge >= 16 else FLOORS[12]
    ordered = sorted(values, reverse=True)
    return round(max(floor, ordered[rank] + MARGIN if len(ordered) > rank else floor), 1)


def most_scattered(message: bytes, thresholds: Thresholds) -> float:
    """The largest sum that `ullage.monitor.scattered` would compare."""
    data = np.frombuffer(message, np.uint8)
    if not len(data):
        return 0.0
    words = word_runs(data, cumulative_costs(data))
    gain = mixed_case_gains(words, thresholds)
    return most_evidence(message, words, gain)


if __name__ == "__main__":
    main()
