"""Kill a log's writer again and again, and see that nothing it acknowledged is missing.

    python -m tests.log.crash_campaign [--kills 300] [--seed 1] [--directory DIR]

Each round starts a writer in a process of its own, under load of streams from several clients, and kills it
(SIGKILL) at a random moment: while it serves, while it signs, while a segment ends, or, one time in five,
while it still recovers from the kill before. It says on a pipe what was acknowledged. Prints JSON and ends
with 0 if every acknowledged part is in the log, opened, with the content that was acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import ullage.log.journal.append
from tests.log.samples import chunk, closing, header, make_keys, opening, read_log
from ullage.log.journal.segments import list_segments, read_frames
from ullage.log.keys import TapKeys, load_tap_keys
from ullage.log.store import CheckpointPolicy, LogWriter

ROOT = Path(__file__).parents[2]
CLIENTS = 8
SMALL_SEGMENT = 256 << 10  # so that segments end often


@dataclass
class Campaign:
    """What was acknowledged so far: (counter, kind, output so far) by the entry's index."""

    kills: int = 0
    kills_while_recovering: int = 0
    torn_tails: int = 0
    acknowledged: dict[int, tuple[int, str, int]] = field(default_factory=dict, repr=False)
    slowest_start_s: float = 0.0
    missing: list[str] = field(default_factory=list)


async def _client(writer: LogWriter, generator: random.Random) -> None:
    while True:
        counter = writer.next_counter
        output: tuple[int, ...] = ()
        _say(await writer.append(opening(counter, stream=True)), counter, "open", 0)
        for number in range(generator.randint(0, 4)):
            ids = tuple(generator.randrange(1000) for _ in range(generator.randint(1, 60)))
            output += ids
            _say(await writer.append(chunk(counter, number, ids)), counter, "chunk", len(output))
        _say(await writer.append(closing(counter, output)), counter, "close", len(output))


def _say(index: int, counter: int, kind: str, tokens: int) -> None:
    sys.stdout.write(f"{index} {counter} {kind} {tokens}\n")
    sys.stdout.flush()


async def _serve(log: Path, keys: Path, seed: int) -> None:
    """The process that is killed."""
    ullage.log.journal.append.SEGMENT_BYTES = SMALL_SEGMENT  # type: ignore[attr-defined]  # it is journal.py that asks
    started = time.perf_counter()
    writer = LogWriter.open(log, load_tap_keys(keys), CheckpointPolicy(0.02, 50))
    print(f"ready {time.perf_counter() - started} {writer.recovery.cut_bytes}", flush=True)
    await asyncio.gather(*(_client(writer, random.Random(f"{seed} {n}")) for n in range(CLIENTS)))


def kill_once(folder: Path, campaign: Campaign, generator: random.Random) -> None:
    """Start the writer, kill it at a random moment, take note of what it said."""
    command = [sys.executable, "-m", "tests.log.crash_campaign", "--serve", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        early = generator.random() < 0.2
        if early:
            time.sleep(generator.uniform(0.1, 0.6))
        else:
            ready = child.stdout.readline().split()
            assert ready[0] == "ready", ready
            campaign.slowest_start_s = max(campaign.slowest_start_s, float(ready[1]))
            campaign.torn_tails += float(ready[2]) > 0
            time.sleep(generator.uniform(0.0, 0.15))
        child.kill()
        lines = child.stdout.read().split("\n")[:-1]  # what follows the last newline was cut by the kill
    campaign.kills += 1
    campaign.kills_while_recovering += early and not lines
    for line in lines:
        if not line.startswith("ready"):
            index, counter, kind, tokens = line.split()
            campaign.acknowledged[int(index)] = (int(counter), kind, int(tokens))


def check(log: Path, keys: TapKeys, campaign: Campaign) -> dict[str, object]:
    """Go on with the log a last time, verify it, and look for everything that was acknowledged."""
    started = time.perf_counter()
    LogWriter.open(log, keys).close()
    restart = time.perf_counter() - started
    reader = read_log(log, keys)
    findings = reader.verify()
    records = {record.counter: record for record in reader.records()}
    entries = list(reader.entries())
    for index, (counter, kind, tokens) in campaign.acknowledged.items():
        record = records.get(counter)
        entry = entries[index] if index < len(entries) else None
        if record is None or getattr(entry, "counter", None) != counter:
            campaign.missing.append(f"entry {index}, {kind} of record {counter}")
        elif kind == "close" and (record.close is None or record.close.outcome != "complete"):
            campaign.missing.append(f"entry {index}, the close of record {counter}")
        elif len(record.output_ids) < tokens:
            campaign.missing.append(f"entry {index}, {tokens} tokens of record {counter}")
    shown = asdict(campaign) | {"acknowledged": len(campaign.acknowledged)}
    return shown | {
        "last_restart_s": restart,
        "verdict": findings.verdict,
        "entries": findings.entries,
        "aborted_records": findings.aborted,
        "segments": len(list_segments(log / "sealed")),
        "unread": findings.unread,
        "sound": findings.verdict == "pass" and not campaign.missing and not findings.unread,
    }


def run(folder: Path, kills: int, seed: int) -> dict[str, object]:
    """A whole campaign in an empty folder."""
    keys = make_keys(folder / "keys")
    LogWriter.create(folder / "log", keys, header()).close()
    campaign, generator = Campaign(), random.Random(seed)
    last = 0
    while campaign.kills < kills:
        kill_once(folder, campaign, generator)
        frames = {frame.index for frame in read_frames(folder / "log" / "sealed", last)}
        fresh = [index for index in campaign.acknowledged if index >= last]
        campaign.missing += [
            f"entry {index} after kill {campaign.kills}" for index in fresh if index not in frames
        ]
        last = max(campaign.acknowledged, default=0)
    return check(folder / "log", keys, campaign)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path, help="where the log is; a tmpfs has nothing to lose")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        asyncio.run(_serve(arguments.serve / "log", arguments.serve / "keys", arguments.seed))
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        result = run(Path(name), arguments.kills, arguments.seed)
    print(json.dumps(result, indent=1))
    sys.exit(0 if result["sound"] else 1)


if __name__ == "__main__":
    main()
