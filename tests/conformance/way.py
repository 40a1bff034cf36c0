"""The whole way: traffic through a tap before a live engine, its log, and the audit of that log."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet

from tests.conformance.processes import run_ullage, ullage
from tests.conformance.traffic import Seen, send
from ullage.enforce.accounting import Tally
from ullage.log.keys import Role, create_keys, load_verifier
from ullage.log.record import Record
from ullage.log.sealed.openers import load_opener
from ullage.log.store import LogReader


@dataclass(frozen=True)
class Way:
    """A folder with keys and a log, and what the traffic saw."""

    folder: Path
    seen: Seen

    def records(self) -> list[Record]:
        keys = self.folder / "keys"
        reader = LogReader.open(self.folder / "log", load_verifier(keys / "log.pub"), load_opener(keys))
        return sorted(reader.records(), key=lambda record: record.counter)

    def failures(self) -> list[str]:
        """What the tap noted of answers that did not come to their end."""
        closes = [record.close for record in self.records()]
        return [close.detail or close.outcome for close in closes if close and close.outcome != "complete"]

    def audit(self, *options: str) -> tuple[int, dict[str, Any]]:
        """Exit code and JSON of `ullage audit`, with a bundle in `bundle`."""
        keys = self.folder / "keys"
        done = run_ullage(
            "audit", str(self.folder / "log"), "--keys", str(keys), "--key", str(keys / "log.pub"),
            "--seed-key", str(keys / "seed.key"), "--out", str(self.folder / "bundle"), "--json", *options,
        )  # fmt: skip
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, found

    def margins(self) -> list[float]:
        """Of every audited token, from the evidence of the last audit; infinite outside the filters."""
        table = pyarrow.parquet.read_table(self.folder / "bundle" / "evidence" / "audit.parquet")
        return [math.inf if margin is None else margin for margin in table["margin"].to_pylist()]

    def tallies(self) -> list[Tally]:
        """What became of the drafts of every record of an enforced log."""
        found = [Tally.parse(record.close.detail or "") for record in self.records() if record.close]
        tallies = [tally for tally in found if tally is not None]
        assert len(tallies) == len(found) > 0
        return tallies


def through_tap(
    upstream: str,
    folder: Path,
    tokens: int,
    *tap_options: str,
    **traffic: Any,
) -> Way:
    """Send traffic through a new tap before the server at `upstream`; `traffic` is for `send`."""
    create_keys(folder / "keys", Role.ALL)
    arguments = (
        "tap", "--upstream", upstream, "--log", str(folder / "log"), "--keys", str(folder / "keys"),
        "--listen", "127.0.0.1:0", *tap_options,
    )  # fmt: skip
    with ullage(arguments, folder / "tap.log") as url:
        seen = asyncio.run(send(url, tokens, **traffic))
    return Way(folder, seen)
