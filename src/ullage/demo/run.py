"""The whole demo: prepare its folder, tell the story, decode the payload, write the page."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from pathlib import Path

from ullage.demo import summary
from ullage.demo.scenarios import SCENARIOS
from ullage.demo.story import Folder, Outcome, Progress, Story
from ullage.errors import UsageError
from ullage.model.identity import identify
from ullage.model.tokenizer import ModelTokenizer
from ullage.redteam.adversary import Recovery

PAYLOAD_BYTES = 1024
_OURS = ("keys", "logs", "audits", "processes", "payload.bin", "claims.json", "report.html")


def prepare(folder: Folder, model: Path) -> None:
    """An empty folder with the file that the payload server will smuggle: the start of the weights.

    Raises UsageError if the folder holds something that the demo did not make.
    """
    root = folder.root
    root.mkdir(parents=True, exist_ok=True)
    foreign = sorted(entry.name for entry in root.iterdir() if entry.name not in _OURS)
    if foreign:
        raise UsageError(f"{root} holds {foreign[0]}, which the demo did not make; choose another --out.")
    for name in _OURS:
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    weights = sorted(model.glob("*.safetensors"))
    if not weights:
        raise UsageError(f"{model} has no *.safetensors; choose a folder with a model.")
    with weights[0].open("rb") as file:
        folder.payload.write_bytes(file.read(PAYLOAD_BYTES))


def _decode(folder: Folder, model: Path, name: str) -> Recovery:
    from ullage.log.sealed.openers import load_opener
    from ullage.redteam.servers.transcripts import recover_from_log

    return recover_from_log(folder.log(name), model, load_opener(None, folder.record_keys(name)))


async def _tell(story: Story) -> list[Outcome]:
    """The story; a request to end (SIGTERM) stops its processes first, as an interrupt does."""
    telling = asyncio.ensure_future(story.run(SCENARIOS))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, telling.cancel)
    try:
        return await telling
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def run_demo(out: Path, model: Path, progress: Progress) -> tuple[summary.DemoResult, Path]:
    """Run everything; returns what was found and where the page is."""
    began = time.monotonic()
    identify(model)
    folder = Folder(out)
    prepare(folder, model)
    outcomes = asyncio.run(_tell(Story(folder, model, progress)))
    progress("decoding what the payload server hid")
    recovery = _decode(folder, model, "payload")
    progress("writing the report")
    tokenizer = ModelTokenizer.load(model)
    rows = tuple(
        summary.server_row(
            folder, outcome, tokenizer, recovery.payload_bits if outcome.scenario.name == "payload" else 0
        )
        for outcome in outcomes
    )
    noticed = next((row.noticed_after for row in rows if row.name == "payload"), None)
    payload = summary.describe_payload(folder.payload.read_bytes(), recovery, noticed)
    result = summary.DemoResult(rows, payload, summary.all_claims(rows), time.monotonic() - began)
    return result, summary.write_result(folder, model, result)
