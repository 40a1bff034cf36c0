"""Maps that say more than there is: weights with zeros behind them, and one ballast under two names."""

from __future__ import annotations

from ullage.memory.agent.agent import Agent
from ullage.memory.agent.keeper import Keeper
from ullage.memory.machine.gather import Gather, gather_by_reading
from ullage.memory.machine.region import Region
from ullage.memory.machine.segments import Segment, SegmentKind
from ullage.memory.noise.noise import BLOCK_BYTES
from ullage.model.builtin import builtin_path
from ullage.redteam.memory.cheat import HOLD, MemoryCheat, Setting, StillHost, agent_of


class _Zeros:
    """Bytes with nothing but zeros behind them; takes no memory for those."""

    locked = False

    def __init__(self, data: bytes, size: int) -> None:
        self._data, self.size = data, size

    def read(self, offset: int, size: int) -> memoryview:
        found = self._data[offset : offset + size]
        return memoryview(found + bytes(size - len(found)))

    def gatherer(self, block_bytes: int) -> Gather:
        return gather_by_reading(self.read, block_bytes)

    def view(self) -> None:
        """Nothing: it is not at one address."""

    def borrow(self, offset: int, size: int) -> memoryview:
        """Refused: it is only read."""
        raise PermissionError

    def commit(self, offset: int, data: memoryview) -> None:
        """Refused, as `borrow`."""
        raise PermissionError

    def grow(self, size: int) -> bool:
        return size <= self.size

    def keep(self, size: int) -> None:
        """Nothing to give back."""

    def close(self) -> None:
        """As `keep`."""


class WeightsHost(StillHost):
    """A server that stands still, with the built-in weights and `padding` zeros behind them."""

    def __init__(self, padding: int = 0) -> None:
        path = next(builtin_path().glob("*.safetensors"))
        self._name, data = path.name, path.read_bytes()
        self._region = _Zeros(data, -(-len(data) // 4096) * 4096 + padding)

    def segments(self) -> tuple[tuple[Segment, Region], ...]:
        return ((Segment(SegmentKind.WEIGHTS, self._name, self._region.size), self._region),)


class _TwiceHost(StillHost):
    """Declares the ballast as a segment of its own as well; the agent adds it once more."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def segments(self) -> tuple[tuple[Segment, Region], ...]:
        size = self._keeper.mapped(0)
        if not size:
            return ()
        return ((Segment(SegmentKind.BALLAST, "ballast", size), self._keeper.region(0)),)


def _inflated(setting: Setting) -> Agent:
    padding = round(setting.share * setting.size) // BLOCK_BYTES * BLOCK_BYTES
    return agent_of(Keeper((setting.size,), (), setting.threads), host=WeightsHost(padding))


def _twice(setting: Setting) -> Agent:
    keeper = Keeper((setting.size,), (), setting.threads)
    return agent_of(keeper, host=_TwiceHost(keeper))


INFLATED_WEIGHTS = MemoryCheat(
    "inflated-weights",
    "declares weights larger than they are: zeros behind them need no memory",
    _inflated,
    modes=(HOLD,),
)
TWICE_DECLARED = MemoryCheat(
    "twice-declared",
    "declares its noise under two names and holds it once",
    _twice,
    modes=(HOLD,),
    withholds=lambda _: 0.5,
)
