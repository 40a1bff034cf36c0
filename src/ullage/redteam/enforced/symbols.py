"""A server that says one bit in every message: which of two payloads it hides there, with all its might.

For experiments that ask what a released message says of that bit. The bit is a keyed hash of the message's
seed, so it stays the same when the tap asks again after a corrected prefix, and `--flip` turns every bit
round: two runs with the same requests and seeds then differ in the bits and in nothing else.

`python -m ullage.redteam.enforced.symbols NAME --model FOLDER --key HEX [--flip] --listen HOST:PORT`
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ullage.errors import UllageError
from ullage.model import instruction_set

if TYPE_CHECKING:
    import torch

    from ullage.server.chooser import TokenChooser
    from ullage.server.rows import Row

PAYLOAD_BYTES = 4096


def symbol(key: bytes, seed: int, *, flip: bool = False) -> int:
    """The bit of the message with that seed."""
    tag = hashlib.blake2b(seed.to_bytes(8, "big"), key=key, digest_size=1).digest()
    return (tag[0] & 1) ^ flip


def payloads(key: bytes) -> tuple[bytes, bytes]:
    """The two files, pseudo-random and independent."""
    first, second = (
        hashlib.shake_256(key + b"payload" + mark).digest(PAYLOAD_BYTES) for mark in (b"0", b"1")
    )
    return first, second


class TwoSymbols:
    """Lets one of two choosers speak in a message, for all of it."""

    def __init__(self, choosers: tuple[TokenChooser, TokenChooser], key: bytes, *, flip: bool) -> None:
        self._choosers, self._key, self._flip = choosers, key, flip

    def choose(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[int]:
        """One token for each of the logits' rows `(B, V)`."""
        tokens = [0] * len(rows)
        for bit, chooser in enumerate(self._choosers):
            own = [place for place, row in enumerate(rows) if self._symbol(row) == bit]
            if own:
                for place, token in zip(
                    own, chooser.choose(logits[own], [rows[p] for p in own]), strict=True
                ):
                    tokens[place] = int(token)
        return tokens

    def finished(self, row: Row) -> None:
        """The message ended."""
        self._choosers[self._symbol(row)].finished(row)

    def _symbol(self, row: Row) -> int:
        return symbol(self._key, row.seed, flip=self._flip)


def main() -> int:
    """The server's process; prints `listening on URL` when it is ready."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("name")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--key", type=bytes.fromhex, required=True)
    parser.add_argument("--flip", action="store_true")
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--max-batch", type=int, default=32)
    options = parser.parse_args()
    try:
        _serve(options)
    except UllageError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return 0


def _serve(options: argparse.Namespace) -> None:
    from ullage.model.builtin import model_name
    from ullage.model.tokenizer import ModelTokenizer
    from ullage.redteam.adversary import Setting
    from ullage.redteam.registry import build_cheat
    from ullage.server import run
    from ullage.server.app import create_app
    from ullage.server.engine import Engine

    host, port = run.parse_address(options.listen)
    first, second = (
        build_cheat(options.name, Setting(options.model, "bfloat16", payload))
        for payload in payloads(options.key)
    )
    chooser = TwoSymbols((first.chooser, second.chooser), options.key, flip=options.flip)
    engine = Engine(first.model, ModelTokenizer.load(options.model), chooser, options.max_batch)
    run.serve(create_app(engine, model_name(options.model)), host, port)


if __name__ == "__main__":
    instruction_set.pin()
    sys.exit(main())
