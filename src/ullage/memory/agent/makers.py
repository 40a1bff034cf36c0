"""Butterfly noise by several cores at once: by processes, where there is enough of it.

A layer is a few calls of microseconds each, and threads of one interpreter wait for each other after every
one of them: two are hardly quicker than one. So each thread has a process of its own make what it writes, and
reads it from a pipe.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING

from ullage.errors import FaultError
from ullage.memory.machine.region import usable_cores
from ullage.memory.noise.butterfly import PIECE_BYTES, ButterflyNoise
from ullage.memory.noise.noise import SEED_BYTES, Noise
from ullage.threads import ALONE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAKER_BYTES = 24 << 20
"""Memory of one process."""
_LEAST_BYTES = 1 << 30
"""What a process has to have to make, so that its own memory is little beside that."""
# A process is some pieces ahead of its reader: the most that anybody may have a pipe hold.
_PIPE_BYTES = 1 << 20
_ENDED = "A process that makes noise has ended; is there enough memory for it?"
_ORDER = struct.Struct(">QQ")
_BEGIN = struct.Struct(f">{SEED_BYTES}sI")


def makers_for(size: int) -> int:
    """How many processes make so many bytes of noise; 0 leaves it to threads."""
    return min(usable_cores(), size // _LEAST_BYTES)


class MakerProcess:
    """A process that makes noise, as `ButterflyNoise` does. One thread at a time."""

    def __init__(self, seed: bytes, layers: int) -> None:
        self._local = ButterflyNoise(seed, layers)  # for scattered blocks; it also checks both
        command = [sys.executable, "-P", "-m", "ullage.memory.agent.makers"]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env=os.environ | ALONE,
            )
        except OSError as error:
            raise FaultError(f"No process that makes noise can be started: {error.strerror}.") from error
        with contextlib.suppress(OSError):  # many of them, and the system allows no more: then it waits
            fcntl.fcntl(_pipe(self._process.stdout), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._send(_BEGIN.pack(seed, layers))

    def write(self, offset: int, target: memoryview) -> None:
        """Raises FaultError when the process has ended."""
        self._send(_ORDER.pack(offset, len(target)))
        output = _pipe(self._process.stdout)
        while target:
            count = output.readinto(target)  # type: ignore[attr-defined]  # unbuffered, so it is a raw file
            if not count:
                raise FaultError(_ENDED)
            target = target[count:]

    def read(self, offset: int, size: int) -> memoryview:
        """The same in fresh memory."""
        found = memoryview(bytearray(size))
        self.write(offset, found)
        return found

    def gather(self, numbers: NDArray[np.intp], out: NDArray[np.uint8]) -> None:
        """As `ButterflyNoise.gather`."""
        self._local.gather(numbers, out)

    def _send(self, data: bytes) -> None:
        try:
            _pipe(self._process.stdin).write(data)
        except OSError as error:
            raise FaultError(_ENDED) from error

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        _pipe(self._process.stdin).close()
        _pipe(self._process.stdout).close()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise AssertionError("both ends were asked for")
    return stream


class Makers:
    """A noise for each thread that asks, all of the same seed; `size` is about what they will make in all."""

    def __init__(self, seed: bytes, layers: int, size: int) -> None:
        self._seed, self._layers = seed, layers
        self._left = makers_for(size)
        self._lock = threading.Lock()
        self._local = threading.local()
        self._processes: list[MakerProcess] = []

    def mine(self) -> Noise:
        """This thread's."""
        found: Noise | None = getattr(self._local, "noise", None)
        if found is None:
            found = self._local.noise = self._new()
        return found

    def _new(self) -> Noise:
        with self._lock:
            if not self._left:
                return ButterflyNoise(self._seed, self._layers)
            self._left -= 1
            try:
                self._processes.append(MakerProcess(self._seed, self._layers))
            except FaultError:  # the thread makes its part itself, more slowly
                return ButterflyNoise(self._seed, self._layers)
            return self._processes[-1]

    def __enter__(self) -> Makers:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._left = 0
            for process in self._processes:
                process.close()


def main() -> None:
    """Make what standard input orders, until it ends: seed and layers, then offsets and sizes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this ends it
    orders, output = sys.stdin.buffer, sys.stdout.fileno()
    noise = ButterflyNoise(*_BEGIN.unpack(orders.read(_BEGIN.size)))
    buffer = memoryview(bytearray(PIECE_BYTES))
    while len(order := orders.read(_ORDER.size)) == _ORDER.size:
        offset, size = _ORDER.unpack(order)
        for start in range(0, size, PIECE_BYTES):
            part = buffer[: min(PIECE_BYTES, size - start)]
            noise.write(offset + start, part)
            while part:
                part = part[os.write(output, part) :]


if __name__ == "__main__":
    main()
