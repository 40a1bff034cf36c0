"""Rates of the machine at hand, for the calibration: run this on the verifier's twin while it is idle."""

from __future__ import annotations

import contextlib
import mmap
import os
import platform
import secrets
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ullage.errors import FaultError
from ullage.memory.agent.keeper import Keeper, pieces
from ullage.memory.calibration import Calibration
from ullage.memory.machine.gather import CHAIN_BLOCK_BYTES
from ullage.memory.machine.region import HostRegion, usable_cores
from ullage.memory.noise.noise import BLOCK_BYTES, SPOT_BYTES, STRATUM_BYTES, Question, StreamNoise
from ullage.memory.protocol.chain import WIDTH
from ullage.memory.protocol.questions import Chain, Spots

_BURST_SECONDS = 0.1
_BUFFERS = (16 << 10, 64 << 10, 128 << 10)
_STORE_BYTES = 64 << 20
_SECTORS = (512, 4096)  # the least that direct reads take, by file system
_READERS = 64  # reads that a disk is given at a time; more do not make it quicker
_READS = 8192
OUTSIDE_SECONDS = 50e-6
"""A round trip over a local network, through two kernels: what a helper outside takes at least."""
_YEAR_NS = 365 * 86_400 * 10**9


def calibrate(
    region_bytes: int,
    store: Path | None,
    repeats: int = 5,
    *,
    cores: int | None = None,
    accelerators: float = 0.0,
    outside: float = OUTSIDE_SECONDS,
) -> Calibration:
    """Measure everything, best of `repeats`; takes a few seconds.

    `store` is a folder on the machine's fastest disk, or None for a machine without one. What a prover may
    rebuild with counts for all `cores` (None: all that there are, also those this process may not use), and
    for `accelerators`, bytes of AES-256 a second. `outside` is the shortest round trip, in seconds, to what
    could help from outside: a store that is further away than that adds nothing to its distance.
    """
    cores = cores or os.cpu_count() or 1
    usable = usable_cores()
    measured = max(rebuild_rate(usable) for _ in range(repeats)) * max(1.0, cores / usable)
    nameplate = nameplate_rate(cores, Path("/proc/cpuinfo").read_text())
    touch, warm = write_rates(region_bytes, repeats)
    read, spots, step = read_rates(region_bytes, repeats)
    disk = store_rates(store, repeats) if store else Store(0.0, 0.0, outside)
    now = time.time_ns()
    return Calibration(
        machine=f"{_processor()}, {cores} cores, {platform.system()} {platform.release()}",
        cores=cores,
        rebuild_rate=max(measured, nameplate) + accelerators,
        rebuild_source="measured" if measured >= nameplate else "nameplate",
        read_rate=read,
        spot_rate=spots,
        store_rate=disk.rate,
        store_reads=disk.reads,
        generator_rate=generator_rate(repeats),
        first_touch_rate=touch,
        warm_write_rate=warm,
        step_seconds=step,
        alternative_seconds=min(disk.seconds, outside),
        created=str(now),
        expires=str(now + _YEAR_NS),
    )


def _best(work: Callable[[], int], repeats: int) -> float:
    """Largest of bytes over seconds."""
    best = 0.0
    for _ in range(repeats):
        began = time.perf_counter()
        size = work()
        best = max(best, size / (time.perf_counter() - began))
    return best


def rebuild_rate(cores: int) -> float:
    """AES-256 of all cores at once on data that stays in their caches: best of some buffer sizes and of the
    two modes in which a library does many blocks at once."""

    def work(size: int, *, wide: bool) -> float:
        key, mode = secrets.token_bytes(64), modes.XTS(bytes(16)) if wide else modes.ECB()  # noqa: S305 - a rate
        encryptor = Cipher(algorithms.AES(key if wide else key[:32]), mode).encryptor()
        source, sink = bytearray(size), bytearray(size + 15)
        done, began = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - began) < _BURST_SECONDS:
            for _ in range(16):
                encryptor.update_into(source, sink)
            done += 16 * size
        return done / elapsed

    with ThreadPoolExecutor(cores) as pool:
        return max(
            sum(pool.map(partial(work, wide=wide), [size] * cores))
            for size in _BUFFERS
            for wide in (True, False)
        )


def nameplate_rate(cores: int, cpuinfo: str) -> float:
    """The most AES-256 that the vector units can do: bytes a cycle over 14 rounds, at that clock.

    One 64-byte `vaesenc` a cycle with AVX-512 (two on AMD from family 26), 2 x 32 bytes with AVX2, 2 x 16
    with plain AES-NI. A turbo clock above the listed one is what a plan's `advantage` is for. 0 if unknown.
    """
    flags: set[str] = set()
    clock, family, vendor = 0.0, 0, ""
    for line in cpuinfo.splitlines():
        name, _, value = (part.strip() for part in line.partition(":"))
        if name == "flags":
            flags = set(value.split())
        elif name == "cpu MHz":
            clock = max(clock, float(value) * 1e6)
        elif name == "cpu family":
            family = int(value)
        elif name == "vendor_id":
            vendor = value
    if "aes" not in flags or not clock:
        return 0.0
    width = 64 if "vaes" in flags else 32
    if vendor == "AuthenticAMD" and family >= 26 and "avx512f" in flags:
        width = 128
    return cores * clock * width / 14


def write_rates(size: int, repeats: int) -> tuple[float, float]:
    """(first touch, warm) of one thread in bytes a second."""
    region = HostRegion(size)
    data = bytes(BLOCK_BYTES)

    def write() -> int:
        for offset, count in pieces(size, BLOCK_BYTES):
            region.borrow(offset, count)[:] = data[:count]
        return size

    first = _best(write, 1)
    warm = _best(write, repeats)
    region.close()
    return first, warm


def read_rates(size: int, repeats: int) -> tuple[float, float, float]:
    """(GMAC and spots of all cores in bytes a second, fastest step of a chain in seconds), memory warm."""
    keeper = Keeper((size,))
    region = keeper.map(0, size)
    keeper.fill(0, region.size, bytes(32), 1)
    blocks = region.size // BLOCK_BYTES
    segment = max(1, blocks // (4 * keeper.threads))

    def read() -> int:
        keeper.answer(0, Question(0, bytes(32), blocks, segment))
        return region.size

    strata = region.size // STRATUM_BYTES

    def read_spots() -> int:
        keeper.spots(Spots(0, 0, secrets.token_bytes(32), strata))
        return strata * SPOT_BYTES

    rate = _best(read, 3 * repeats)
    spots = _best(read_spots, 8 * repeats)
    steps = 512
    asked = Chain(0, secrets.token_bytes(16), steps, WIDTH, region.size // CHAIN_BLOCK_BYTES)
    fastest = 1 / _best(lambda: steps if keeper.chain(asked) else 0, 8 * repeats)
    keeper.release(0)
    return rate, spots, fastest


def generator_rate(repeats: int) -> float:
    """AES-CTR of one core."""
    noise, target = StreamNoise(bytes(32)), memoryview(bytearray(16 << 20))

    def work() -> int:
        noise.write(0, target)
        return len(target)

    return _best(work, repeats)


@dataclass(frozen=True)
class Store:
    """What a store does: `rate` in bytes a second in a row, `reads` of scattered pages a second, `seconds` to
    one block."""

    rate: float
    reads: float
    seconds: float


def store_rates(folder: Path, repeats: int) -> Store:
    """The folder's disk, read by all cores past the cache.

    Uses direct reads where the file system has them. Raises FaultError when the folder cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix="ullage-store-") as file:
            for _ in range(_STORE_BYTES >> 20):
                file.write(secrets.token_bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())
            rate, seconds = _read_file(file.name, repeats)
            return Store(rate, _scattered_reads(file.fileno(), repeats), seconds)
    except OSError as error:
        raise FaultError(f"{folder} cannot be measured as a store: {error.strerror or error}.") from error


def _scattered_reads(descriptor: int, repeats: int) -> float:
    """Pages a second, each from another place of the file.

    By page faults: one call has many of them, so that no interpreter stands between the disk and what it can.
    """
    import numpy as np

    random = np.random.default_rng()

    def work() -> int:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(descriptor, _STORE_BYTES, prot=mmap.PROT_READ) as pages:
            pages.madvise(mmap.MADV_RANDOM)
            places = random.permutation(_STORE_BYTES // mmap.PAGESIZE)[:_READS] * mmap.PAGESIZE
            memory = np.frombuffer(pages, np.uint8)
            list(pool.map(partial(memory.take, mode="clip"), np.array_split(places, _READERS)))
            del memory  # or the map could not be closed, and its pages would stay
        return _READS

    with ThreadPoolExecutor(_READERS) as pool:
        return _best(work, repeats)


def _read_file(name: str, repeats: int) -> tuple[float, float]:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        descriptor = os.open(name, os.O_RDONLY)

    def work(offset: int) -> int:
        buffer = mmap.mmap(-1, 1 << 20)  # direct reads want page alignment
        return os.preadv(descriptor, [buffer], offset)

    def bulk() -> int:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return sum(pool.map(work, range(0, _STORE_BYTES, 1 << 20)))

    def single() -> int:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        offset = secrets.randbelow(_STORE_BYTES // len(small)) * len(small)
        return os.preadv(descriptor, [small], offset) and 1

    small = memoryview(mmap.mmap(-1, _SECTORS[-1]))[: _least_read(descriptor)]
    try:
        with ThreadPoolExecutor(usable_cores()) as pool:
            return _best(bulk, repeats), 1 / _best(single, 500 * repeats)  # the least of many, for it bounds
    finally:
        os.close(descriptor)


def _least_read(descriptor: int) -> int:
    """Bytes of the smallest read past the cache that this file takes."""
    for size in _SECTORS[:-1]:
        with contextlib.suppress(OSError):
            os.preadv(descriptor, [memoryview(mmap.mmap(-1, _SECTORS[-1]))[:size]], size)
            return size
    return _SECTORS[-1]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
