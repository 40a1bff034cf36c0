"""Says that the noise has arrived while the end of one lane still lies in the verifier's send buffer, and
reads it there when it is asked: memory of somebody else's, in no account."""

from __future__ import annotations

from ullage.memory.agent.agent import Agent
from ullage.memory.agent.keeper import Keeper
from ullage.memory.protocol.fields import Message
from ullage.memory.protocol.messages import Received, Stream
from ullage.memory.protocol.wire import Connection
from ullage.redteam.memory.cheat import CHAIN, MemoryCheat, Setting, plain_inventory

# What a kernel keeps for a connection by default.
_UNREAD_BYTES = 4 << 20


class _UnreadTail(Agent):
    """The receipt is the end of what it has not read, so it sends another."""

    def __init__(self, setting: Setting) -> None:
        self._noise = Keeper((setting.size,), (), setting.threads)
        super().__init__(self._noise, plain_inventory(setting.size))

    def handle(self, message: Message, connection: Connection) -> bool:
        if not isinstance(message, Stream):
            return super().handle(message, connection)
        with self.landed(message, connection) as parts:
            *whole, (offset, size, take) = parts
            read = size - _UNREAD_BYTES
            tails = self._noise.receive(message.space, [*whole, (offset, read, take)])
            connection.send(Received((*tails[:-1], bytes(16))))
            self._noise.receive(message.space, [(offset + read, _UNREAD_BYTES, take)])
        return True


UNREAD_TAIL = MemoryCheat(
    "unread-tail",
    "leaves the end of the stream in the verifier's send buffer until the question",
    _UnreadTail,
    modes=("stream", CHAIN),
    withholds=lambda setting: _UNREAD_BYTES / setting.size,
)
