"""A copy of a log with some of its fields changed and sound signatures: what a dishonest tap would write.

    python -m tests.support.edited_log SOURCE TARGET KEYS '{"header": {...}, "closes": {"3": {...}}}'

Fields replace those of the header and of the records' closes; of a record without chunks only, since a
stream's chunks have to agree with its close.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ullage.log.keys import load_tap_keys
from ullage.log.reader import LogReader
from ullage.log.record import ClosePart
from ullage.log.sealed.openers import SealKey
from ullage.log.writer import LogWriter

_ROOT = Path(__file__).parents[2]


def edit_log(source: Path, target: Path, keys: Path, edits: dict[str, Any]) -> Path:
    """In a process of its own."""
    command = [sys.executable, "-m", "tests.support.edited_log", str(source), str(target), str(keys)]
    subprocess.run([*command, json.dumps(edits)], check=True, cwd=_ROOT, timeout=60)
    return target


def _edited(part: ClosePart, edits: dict[str, Any]) -> ClosePart:
    changes: dict[str, Any] = edits.get("closes", {}).get(str(part.counter), {})
    if "output_ids" in changes:
        changes = {**changes, "output_ids": tuple(changes["output_ids"])}
    return part.model_copy(update=changes)


def main() -> None:
    source, target, keys, edits = sys.argv[1:]
    tap_keys = load_tap_keys(Path(keys))
    reader = LogReader.open(Path(source), opener=SealKey(tap_keys.seal))
    changes = json.loads(edits)
    header = reader.header.model_copy(update=changes.get("header", {}))
    with LogWriter.create(Path(target), tap_keys, header) as log:
        for record in sorted(reader.records(), key=lambda record: record.counter):
            assert record.close is not None
            log.append_sync(record.open)
            for chunk in record.chunks:
                log.append_sync(chunk)
            log.append_sync(_edited(record.close, changes))


if __name__ == "__main__":
    main()
