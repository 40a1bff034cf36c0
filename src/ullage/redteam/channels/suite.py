"""Plays every channel through real taps, without slots and with them, and holds the result to the
residual."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ullage.claims import Bound, Claim, Evidence, Trust
from ullage.errors import FaultError
from ullage.log.entries import CloseEntry
from ullage.log.keys import Role, create_keys, load_verifier
from ullage.log.sealed.openers import load_opener
from ullage.log.store import LogReader
from ullage.redteam.channels.client import ChannelClient
from ullage.redteam.channels.game import (
    PILOT_SHARE,
    Channel,
    decode,
    entropy,
    mutual_information,
    noise,
    symbols_of,
    upper_bound,
)
from ullage.redteam.channels.order import LogOrder
from ullage.redteam.channels.registry import channels
from ullage.tap.pacing.grid import Pace
from ullage.tap.pacing.ledger import Allowance
from ullage.tap.residual.channels import (
    Observed,
    allowed_channels,
    observed_in,
    open_channels,
    paced_channels,
    residual_claim,
)

BAR: Final = 0.5  # bits a message
_PATIENCE: Final = 600.0  # seconds that a tap without slots gives a server
_SEED: Final = 20261121


@dataclass(frozen=True)
class Game:
    """How long and under which pace. `units` symbols a channel, `together` at a time."""

    units: int
    together: int
    pace: Pace
    allowance: Allowance


QUICK: Final = Game(120, 12, Pace(0.05, pad_to=64), Allowance(0.02, 4, 3600))
FULL: Final = Game(600, 24, Pace(0.25, pad_to=64), Allowance(0.02, 8, 3600))


@dataclass(frozen=True)
class Result:
    """What one channel got through one tap, and what the residual says of the same traffic."""

    channel: str
    slots: bool
    tried: float  # bits a message that the server tried to send
    got: float  # bits a message that arrived
    upper: float  # the same, not exceeded at 99 %
    noise: float  # what may be seen at 99.9 % where nothing arrives
    residual: float  # bits a message that the tap's log allows for
    messages: int
    exceptions: int
    counted_as: str

    @property
    def is_bounded(self) -> bool:
        """Whether the figure that is claimed covers what arrived."""
        return bool(self.counted_as) or self.got <= self.residual + self.noise

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "is_bounded": self.is_bounded}


def run_suite(
    end: int, game: Game, only: Sequence[str] = (), progress: Callable[[str], None] = lambda _: None
) -> list[Result]:
    """Every channel through a tap without slots and one with them. `end` is the end-of-text token.

    Raises FaultError when a process does not start.
    """
    results = []
    for channel in channels(game.pace.slot):
        if only and channel.name not in only:
            continue
        for slots in (False, True):
            progress(f"{channel.name}, slots {'on' if slots else 'off'}")
            results.append(play(channel, end, game, slots=slots))
    return results


def play(channel: Channel, end: int, game: Game, *, slots: bool) -> Result:
    """One channel through one tap."""
    sent = symbols_of(channel, _SEED, game.units)
    with tempfile.TemporaryDirectory(prefix="ullage-channel-") as name:
        folder = Path(name)
        options = {
            "channel": channel.name, "slot": game.pace.slot, "seed": _SEED, "units": game.units, "end": end
        }  # fmt: skip
        server = [sys.executable, "-P", "-m", "ullage.redteam.channels.server", json.dumps(options)]
        with _process(server) as upstream, _process(_tap(folder, upstream, game, slots)) as url:
            client = ChannelClient(url, game.together)
            features = asyncio.run(client.play(channel, game.units))
        keys = folder / "keys"
        reader = LogReader.open(folder / "log", load_verifier(keys / "log.pub"), load_opener(keys))
        observed = observed_in(
            reader.records(include_uncovered=True), game.pace if slots else None, client.messages
        )
        if isinstance(channel, LogOrder):
            closes = _places_of_closes(reader)
            features = [channel.read(one, closes) for one in features]
    pairs = decode(sent, features)
    messages = client.messages / game.units  # a unit
    listed = paced_channels(observed, game.pace) if slots else open_channels(observed, _PATIENCE)
    return Result(
        channel.name,
        slots,
        entropy(channel) / messages,
        mutual_information(pairs) / messages,
        upper_bound(pairs) / messages,
        noise(pairs) / messages,
        sum(one.bits for one in listed),
        client.messages,
        observed.exceptions,
        channel.counted_as,
    )


def _places_of_closes(reader: LogReader) -> dict[int, int]:
    entries = enumerate(reader.entries(include_uncovered=True))
    return {entry.counter: place for place, entry in entries if isinstance(entry, CloseEntry)}


def table(results: Sequence[Result], message_bits: float) -> list[str]:
    """Lines for a terminal; `message_bits` is what a message could carry at most."""
    lines = [
        f"{'channel':<20} {'tried':>6} {'slots off':>10} {'slots on':>10} {'99 %':>6} {'residual':>9} "
        f"{'of message':>10}  counted",
    ]
    by_name: dict[str, dict[bool, Result]] = {}
    for result in results:
        by_name.setdefault(result.channel, {})[result.slots] = result
    for name, pair in by_name.items():
        off, on = pair.get(False), pair.get(True)
        if off is None or on is None:
            continue
        counted = f"with the {on.counted_as}" if on.counted_as else "as residual"
        lines.append(
            f"{name:<20} {off.tried:>6.2f} {off.got:>10.3f} {on.got:>10.3f} {on.upper:>6.3f} "
            f"{on.residual:>9.3f} {on.got / message_bits:>10.2e}  {counted}"
        )
    lines.append("bits a message; residual is what the log of the tap with slots allows for")
    return lines


def claims_of(results: Sequence[Result], game: Game, messages_a_day: int = 10_000) -> list[Claim]:
    """The residual by allowance, and the worst of what was got through as a measured floor."""
    allowed = allowed_channels(messages_a_day, 1.0, game.allowance, game.pace)
    day = Observed(messages_a_day, messages_a_day, game.allowance.most(messages_a_day, 86_400))
    listed = [allowed, *paced_channels(day, game.pace)[1:]]
    found = [result.got for result in results if result.slots and not result.counted_as]
    claims = [residual_claim(listed, day, paced=True)]
    if found:
        claims.append(
            Claim(
                name="channel.leaked",
                value=max(found),
                unit="bits/message",
                bound=Bound.LOWER,
                evidence=Evidence.MEASURED,
                assumptions=("these encoders and decoders; better ones may get more through",),
                trusts=(Trust.TAP,),
                method="channel-game/1",
                sample=f"{sum(result.messages for result in results if result.slots)} messages, "
                f"{1 - PILOT_SHARE:.0%} of them decoded",
            )
        )
    return claims


def message_bits(tokens: float, vocabulary: int) -> float:
    """The most that a message of so many tokens could carry."""
    return tokens * math.log2(vocabulary)


def _tap(folder: Path, upstream: str, game: Game, slots: bool) -> list[str]:
    create_keys(folder / "keys", Role.TAP)
    pace, allowance = game.pace, game.allowance
    command = [sys.executable, "-P", "-m", "ullage", "tap", "--upstream", upstream, "--listen", "127.0.0.1:0"]
    command += ["--log", str(folder / "log"), "--keys", str(folder / "keys")]
    if slots:
        command += ["--slot", str(pace.slot), "--slot-tokens", str(pace.tokens), "--pad-to", str(pace.pad_to)]
        command += ["--late-share", str(allowance.share), "--late-burst", str(int(allowance.burst))]
        command += ["--late-drip", str(allowance.drip), "--link", "whole"]
    return command


@contextmanager
def _process(command: Sequence[str]) -> Iterator[str]:
    """A process that says where it listens. Raises FaultError when it does not."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            process.kill()
            raise FaultError(f"{command[2]} did not start: {process.communicate()[1][-500:]}")
        yield line.split()[-1]
    finally:
        process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
