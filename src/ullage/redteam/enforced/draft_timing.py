"""`draft-timing`: tokens are the reference's whatever it drafts, so it says its bits by when they come.

The server errs on purpose in messages that mean 1: it holds every reply back for a while and then drafts a
wrong first token, so that the tap asks again, and again waits. A message that means 0 is served honestly.
Which bit of the payload a message carries is a hash of its seed, which the tap tells both sides. The receiver
has nothing but clocks: the messages fall into two groups, and the later one means 1.

`python -m ullage.redteam.enforced.draft_timing --model FOLDER --payload FILE --hold SECONDS --listen …`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ullage.errors import UllageError
from ullage.model import instruction_set
from ullage.redteam.tokens.game import Reading
from ullage.redteam.tokens.hidden_bits import bit_at, shared_hash

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_TOKEN = re.compile(rb'("token_ids":\s*\[)(\d+)')


def place_of(seed: int) -> int:
    """Which bit of the payload the message with that seed carries."""
    return shared_hash("draft-timing", seed) >> 16


def read(seeds: Sequence[int], times: Sequence[float]) -> list[Reading]:
    """The receiver: one bit a message, from when its last byte came."""
    late = np.asarray(times, np.float64)
    middle = float(late.mean())
    for _ in range(50):  # two means on a line: the boundary is half way between the groups' own
        groups = late[late <= middle], late[late > middle]
        if not len(groups[1]):
            break
        middle = float((groups[0].mean() + groups[1].mean()) / 2)
    return [Reading(place_of(seed), [int(time > middle)]) for seed, time in zip(seeds, late, strict=True)]


class DraftTiming:
    """An ASGI application around an honest server's. `hold` in seconds, for every reply that means 1."""

    def __init__(self, app: App, payload: bytes, hold: float) -> None:
        self._app, self._payload, self._hold = app, payload, hold

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/v1/completions":
            await self._app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        late = bit_at(self._payload, place_of(int(json.loads(body)["seed"])))
        await self._app(scope, again, self._erring(send) if late else send)

    def _erring(self, send: Send) -> Send:
        erred = False

        async def sent(message: Message) -> None:
            nonlocal erred
            data = message.get("body", b"")
            if message["type"] == "http.response.body" and not erred and _TOKEN.search(data):
                erred = True
                await asyncio.sleep(self._hold)
                wrong = _TOKEN.sub(lambda found: found[1] + b"%d" % (int(found[2]) ^ 1), data, count=1)
                message = {**message, "body": wrong}
            await send(message)

        return sent


def main() -> int:
    """The server's process; prints `listening on URL` when it is ready."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--payload", type=Path, required=True)
    parser.add_argument("--hold", type=float, required=True)
    parser.add_argument("--dtype", default="bfloat16")
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
    from ullage.model.loading import load_causal_lm
    from ullage.model.tokenizer import ModelTokenizer
    from ullage.redteam.servers.payload_files import read_payload
    from ullage.server import run
    from ullage.server.app import create_app
    from ullage.server.chooser import SeededChooser
    from ullage.server.engine import Engine

    host, port = run.parse_address(options.listen)
    payload = read_payload(options.payload)
    model = load_causal_lm(options.model, options.dtype)
    engine = Engine(model, ModelTokenizer.load(options.model), SeededChooser(), options.max_batch)
    app = create_app(engine, model_name(options.model))
    run.serve(DraftTiming(app, payload, options.hold), host, port)


if __name__ == "__main__":
    instruction_set.pin()
    sys.exit(main())
