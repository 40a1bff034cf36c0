"""Mode enforce of the red team's table: the cheating servers themselves, behind a tap that enforces.

Everything runs as a process of its own: the server (`ullage redteam serve`), the tap, the enforcer. Receivers
get what was released and are granted its token ids, which clients only see as text; the bound is what the
tap's own count of late slots leaves open, since token values are the reference's whatever the server does.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from ullage.claims import Evidence
from ullage.errors import UsageError
from ullage.model.identity import identify
from ullage.model.reference import Reference
from ullage.redteam.enforced.client import Ask
from ullage.redteam.enforced.stage import Run, Server, Stage, cheating, honest, stage
from ullage.redteam.enforced.timing import Heard, draft_timing, information_in
from ullage.redteam.enforced.transcripts import Drafting
from ullage.redteam.outcome import CONFIDENCE_BITS, Outcome
from ullage.redteam.registry import adversary_names, token_adversaries
from ullage.redteam.tokens.adversary import Briefing, TokenAdversary
from ullage.redteam.tokens.calibration import usual_calibration
from ullage.redteam.tokens.game import Size, client_prompts, observe
from ullage.sampling.parameters import SamplingParameters
from ullage.server.rows import Row

DRAFT_TIMING: Final = "draft-timing"
SLOT_SECONDS: Final = 2.0
SLOT_TOKENS: Final = 16
_PAYLOAD_BYTES: Final = 8192
_HOLD: Final = 0.45 * SLOT_SECONDS  # just within the half slot in which drafts count
# Small games play those that leak most, and the two that no recomputation of tokens stops.
_SMALL: Final = ("payload", "near-tie-0.5", "repeat-after-me", DRAFT_TIMING)
_SMALL_TOKENS: Final = 2000
_AT_ONCE: Final = 2  # programs take longer to start than to play
_METHOD: Final = "token values are the reference's own; code for the tap's count of late slots"
_ASSUMPTIONS: Final = (
    "the payload is independent of seeds",
    "tap and enforcer do not share a processor with the server: time within a slot is not counted",
)


@dataclass(frozen=True)
class _Game:
    """What one adversary plays with."""

    reference: Reference
    folder: Path
    ready: Stage
    payload: Path
    number: int


def enforced_names() -> tuple[str, ...]:
    """Adversaries that play in mode enforce alone."""
    return (DRAFT_TIMING,)


def enforced_outcomes(
    reference: Reference,
    size: Size,
    numbers: Sequence[int],
    names: Sequence[str] = (),
    progress: Callable[[str], None] = lambda name: None,
) -> list[Outcome]:
    """A row for each adversary (or for those named), from one game each: the first of `numbers`.

    Small games without names play five of them. Raises UllageError.
    """
    return asyncio.run(_play_all(reference, size, numbers[0] if numbers else 0, names, progress))


async def _play_all(
    reference: Reference, size: Size, number: int, names: Sequence[str], progress: Callable[[str], None]
) -> list[Outcome]:
    model = _folder_of(reference)
    small = size.messages * size.tokens < _SMALL_TOKENS
    wanted = set(names or (_SMALL if small else (*_players(), DRAFT_TIMING)))
    with tempfile.TemporaryDirectory(prefix="ullage-") as place:
        payload = Path(place) / "payload.bin"
        payload.write_bytes(np.random.default_rng([number, 77]).bytes(_PAYLOAD_BYTES))
        async with stage(Path(place) / "stage", model) as ready:
            game = _Game(reference, model, ready, payload, number)
            plays = {
                name: partial(_play, game, adversary, adversary.sized(size))
                for name, adversary in _players().items()
            }
            plays[DRAFT_TIMING] = partial(_play_timing, game, size)
            places = asyncio.Semaphore(_AT_ONCE)

            async def one(name: str) -> Outcome:
                async with places:
                    progress(f"{name}, enforced")
                    return await plays[name]()

            return await asyncio.gather(*(one(name) for name in plays if name in wanted))


def _players() -> dict[str, TokenAdversary]:
    """Those with a server: all that the registry serves, and those whose server is honest."""
    served = set(adversary_names())
    return {
        adversary.name: adversary
        for adversary in token_adversaries()
        if adversary.name in served or not _cheats(adversary)
    }


def _cheats(adversary: TokenAdversary) -> bool:
    """Whether its server is another than the honest one."""
    return adversary.name not in ("repeat-after-me", "honest-bf16")


async def _play(game: _Game, adversary: TokenAdversary, size: Size) -> Outcome:
    payload = game.payload.read_bytes()
    known = usual_calibration(game.reference.vocabulary_size)
    agents = adversary.enlist(Briefing(game.reference, payload, known))
    prompts = agents.prompts(size.messages) if agents.prompts else client_prompts(size.messages, game.number)
    run = await _run(game, _server(game, adversary), prompts, size, adversary.parameters)
    rows = [
        Row(
            str(record.counter), record.open.seed, [*record.open.prompt_ids], adversary.parameters,
            [*record.output_ids],
        )
        for record in run.records
    ]  # fmt: skip
    readings = agents.read(observe(game.reference, rows)) if agents.read else []
    return _outcome(
        adversary.name,
        run,
        attempted=float(sum(len(reading.bits) for reading in readings)),
        leaked=information_in(readings, payload),
        prompt_bits=_prompt_bits(game.reference, run) if agents.prompts else 0.0,
        outside=0.0 if agents.prompts else 1.0,
        remark=adversary.remark if agents.prompts else "",
    )


async def _play_timing(game: _Game, size: Size) -> Outcome:
    server = draft_timing(game.folder, game.payload, _HOLD)
    run = await _run(game, server, client_prompts(size.messages, game.number), size, SamplingParameters())
    heard = Heard.of(run, game.payload.read_bytes(), SLOT_SECONDS)
    remark = "errs on purpose and late, one bit a message; its receiver has clocks and nothing else"
    return _outcome(DRAFT_TIMING, run, attempted=heard.messages, leaked=heard.bits, remark=remark)


async def _run(
    game: _Game, server: Server, prompts: Sequence[str], size: Size, parameters: SamplingParameters
) -> Run:
    fields = {"temperature": parameters.temperature, "top_p": parameters.top_p, "top_k": parameters.top_k}
    asks = [Ask(prompt, size.tokens, stream=True, fields=fields) for prompt in prompts]
    slots = ("--slot", str(SLOT_SECONDS), "--slot-tokens", str(SLOT_TOKENS))
    return await game.ready.play(server, asks, len(asks), *slots)


def _server(game: _Game, adversary: TokenAdversary) -> Server:
    if not _cheats(adversary):
        return honest(game.folder, "bfloat16")
    return cheating(adversary.name, game.folder, game.payload if adversary.hides else None)


def _outcome(
    name: str,
    run: Run,
    *,
    attempted: float,
    leaked: float,
    prompt_bits: float = 0.0,
    outside: float = 1.0,
    remark: str = "",
) -> Outcome:
    timing, drafting = run.lateness, Drafting.of(run)
    assumptions = _ASSUMPTIONS if outside else (*_ASSUMPTIONS[1:], "seeds are independent of the payload")
    return Outcome(
        name=name,
        mode="enforce",
        tokens=run.tokens,
        attempted_bits=attempted,
        leaked_bits=leaked,
        bound_bits=timing.bits + prompt_bits + CONFIDENCE_BITS,
        bound_method=_METHOD + (", log2 V bits a prompt token written inside" if prompt_bits else ""),
        bound_evidence=Evidence.PROVEN,
        bound_assumptions=assumptions,
        codelength_bits=0.0,
        prompt_bits=prompt_bits,
        prompt_outside_fraction=outside,
        remark=remark,
        details={
            "lateness_bits": timing.bits,
            "late_slots": timing.late,
            "slots": timing.slots,
            "share_replaced": drafting.replaced / max(1, drafting.drafted),
            "share_alone": drafting.alone / run.tokens,
        },
    )


def _prompt_bits(reference: Reference, run: Run) -> float:
    """Prompts that were written inside: log2 V bits a token, and their lengths."""
    tokens = sum(len(record.open.prompt_ids) for record in run.records)
    lengths = len(run.records) * math.log2(reference.context_length)
    return tokens * math.log2(reference.vocabulary_size) + lengths


def _folder_of(reference: Reference) -> Path:
    """The folder that a reference was loaded from. Raises UsageError when it is not known."""
    folder = Path(str(reference.model.name_or_path))
    if not folder.is_dir() or identify(folder).digest != reference.identity.digest:
        raise UsageError(
            "Enforcement is played by real processes, which need the model's folder: give --model."
        )
    return folder
