"""How far an honest server's keys and values lie from the verifier's: what the tolerance of `hold` rests on.

    python benchmarks/memory_cache_spread.py --dtype bfloat16
    python benchmarks/memory_cache_spread.py --dtype bfloat16 --server-isa avx2

Serves a model (the built-in one) to clients with prompts of different lengths, freezes it again and again,
reads its key-value memory and recomputes each sequence in one pass, as `ullage memory hold` does. Prints, in
units of the root mean square of the element's head and place, the largest difference and its quantiles, and
how many bits an element rounding leaves to a prover. JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from ullage.memory.agent.keeper import FIRST_SEGMENT
from ullage.memory.erasure import greet
from ullage.memory.machine.segments import SegmentKind
from ullage.memory.protocol.messages import (
    Bye,
    Done,
    Freeze,
    Segments,
    Sequences,
    Thaw,
    Tokens,
)
from ullage.memory.protocol.wire import Connection, address_of
from ullage.memory.residency.cache_check import TOLERANCES, CacheFinding, check_cache
from ullage.memory.residency.rounding import widened
from ullage.memory.residency.snapshot import dump
from ullage.model.builtin import builtin_path
from ullage.model.key_values import key_values
from ullage.model.loading import load_causal_lm

_QUANTILES = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)


def ask(url: str, number: int, stop: threading.Event) -> None:
    """One client: prompts from 4 to 400 tokens, one after the other."""
    random = np.random.default_rng(number)
    with httpx.Client(timeout=600) as client:
        while not stop.is_set():
            prompt = [int(token) for token in random.integers(5, 4000, random.integers(4, 400))]
            body = {"prompt": prompt, "max_tokens": 48, "temperature": 1.0, "seed": number}
            client.post(f"{url}/v1/completions", json=body).raise_for_status()


def read_cache(connection: Connection) -> tuple[Tokens, list[bytes]] | None:
    """Tokens and tensors of a moment at which sequences were there."""
    segments = connection.ask(Freeze(60), Segments, 120).segments
    tokens = connection.ask(Sequences(), Tokens, 60)
    numbers = [index for index, one in enumerate(segments) if one.kind is SegmentKind.KV_CACHE]
    tensors = [b"".join(dump(connection, FIRST_SEGMENT + index, segments[index].size)) for index in numbers]
    still = connection.ask(Thaw(), Done, 60).size
    return (tokens, tensors) if still and any(tokens.sequences) else None


def differences(model: Any, tokens: Tokens, tensors: list[bytes]) -> Iterator[NDArray[np.float32]]:
    """|held - recomputed| over the root mean square of the last axis, sequence by sequence."""
    shape = tokens.shape
    places = (shape.slots, shape.heads, shape.capacity, shape.width)
    held = np.float32 if shape.item_bytes == 4 else np.uint16
    arrays = [np.frombuffer(data, held).reshape(places) for data in tensors]
    for slot, row in enumerate(tokens.sequences):
        if row:
            for array, expected in zip(arrays, key_values(model, row), strict=True):
                found = widened(array[slot, :, : len(row)])  # (heads, S, D)
                size = np.sqrt(np.mean(expected**2, axis=-1, keepdims=True))
                yield (np.abs(found - expected) / size).reshape(-1)


def finding(model: Any, tokens: Tokens, tensors: list[bytes]) -> CacheFinding:
    """As `ullage memory hold` finds it."""
    held = [memoryview(data) for data in tensors]
    return check_cache(tokens.shape, held, tokens.sequences, lambda row: key_values(model, row))


def line_with(stream: Any, pattern: str) -> str:
    for line in iter(stream.readline, ""):
        if found := re.search(pattern, line):
            return found[1]
    raise SystemExit("The server ended before it was ready.")


def measure(
    folder: Path, dtype: str, freezes: int, clients: int, isa: str | None
) -> tuple[list[NDArray[np.float32]], list[CacheFinding]]:
    """The differences of each freeze, and what `hold` finds in it."""
    environment = dict(os.environ)
    if isa:  # the server computes with other vector instructions than the verifier
        environment |= {name: isa.upper() for name in ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")}
        environment["ATEN_CPU_CAPABILITY"] = isa
    command = [
        sys.executable, "-m", "ullage", "serve", "--listen", "127.0.0.1:0", "--agent", "127.0.0.1:0",
        "--agent-machine", "host", "--agent-limit-mib", "16", "--dtype", dtype, "--model", str(folder),
        "--max-batch", str(clients),
    ]  # fmt: skip
    model = load_causal_lm(folder, dtype)
    stop, found = threading.Event(), []
    findings = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        try:
            agent = line_with(server.stderr, r"memory agent at (\S+)")
            threading.Thread(target=server.stderr.read, daemon=True).start()  # type: ignore[union-attr]
            url = line_with(server.stdout, r"listening on (\S+)")
            threads = [threading.Thread(target=ask, args=(url, number, stop)) for number in range(clients)]
            for thread in threads:
                thread.start()
            with Connection.open(*address_of(agent)) as connection:
                greet(connection)
                taken = 0
                while taken < freezes:
                    time.sleep(0.7)
                    if cache := read_cache(connection):
                        found.append(np.concatenate(list(differences(model, *cache))))
                        findings.append(finding(model, *cache))
                        taken += 1
                connection.send(Bye())
            stop.set()
            for thread in threads:
                thread.join()
        finally:
            stop.set()
            server.terminate()
    return found, findings


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=builtin_path())
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--freezes", type=int, default=12)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--server-isa", choices=("avx2",), help="vector instructions of the server alone")
    options = parser.parse_args()
    checks, findings = measure(
        options.model, options.dtype, options.freezes, options.clients, options.server_isa
    )
    spread = np.concatenate(checks)
    tolerance = TOLERANCES[4 if options.dtype == "float32" else 2]
    found = {
        "dtype": options.dtype,
        "elements": len(spread),
        "largest": float(spread.max()),
        "quantiles": {str(share): float(np.quantile(spread, share)) for share in _QUANTILES},
        "tolerance": tolerance,
        "share_outside": float(np.mean(spread > tolerance)),
        "checks": len(checks),
        "free_bits_an_element": [round(one.free_bits, 3) for one in findings],
        "counted_of_written": [round(one.counted / one.written, 4) for one in findings],
        "share_outside_worst_check": max(float(np.mean(one > tolerance)) for one in checks),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
