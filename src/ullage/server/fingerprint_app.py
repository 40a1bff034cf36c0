"""The prover's listener for the verifier's challenges, apart from the API: a tap never forwards it."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ullage.errors import FaultError, IntegrityError, UllageError
from ullage.fingerprint.messages import (
    MAX_LISTED,
    MAX_REQUEST_BYTES,
    Answer,
    Challenge,
    Commitments,
    Committed,
    Open,
    Opening,
    Openings,
    parse,
)
from ullage.server import run
from ullage.server.chooser import TokenChooser
from ullage.server.fingerprints import FingerprintingChooser, StateStore

MEMORY_BYTES = 256 << 20
_ANSWERED_TOGETHER = 1


def create_fingerprint_app(store: StateStore) -> Starlette:
    """Three endpoints: the commitments, an answer to a challenge, opened states."""
    turn = asyncio.Semaphore(_ANSWERED_TOGETHER)  # a challenge costs arithmetic: serving goes first

    async def commitments(request: Request) -> Response:
        first = request.query_params.get("first", "0")
        if not (first.isascii() and first.isdigit() and len(first) <= 15):
            return _refused("'first' is the number of a commitment.", 400)
        listed = [
            Committed.of(one.number, one.commitment) for one in store.commitments(int(first), MAX_LISTED)
        ]
        return JSONResponse(Commitments(commitments=listed).model_dump())

    async def answer(request: Request) -> Response:
        asked = parse(Challenge, await _body(request))
        arguments = (
            bytes.fromhex(asked.transcript), bytes.fromhex(asked.seed), asked.coordinates, float(asked.step),
        )  # fmt: skip
        async with turn:
            found = await asyncio.to_thread(store.answer, *arguments)
        return JSONResponse(Answer(fingerprint=found.hex()).model_dump())

    async def open_states(request: Request) -> Response:
        asked = parse(Open, await _body(request))
        async with turn:
            opened = await asyncio.to_thread(store.open, bytes.fromhex(asked.transcript), asked.tokens)
        openings = [Opening(path=[one.hex() for one in path], state=state.hex()) for state, path in opened]
        return JSONResponse(Openings(openings=openings).model_dump())

    return Starlette(
        routes=[
            Route("/v1/fingerprints", commitments, methods=["GET"]),
            Route("/v1/fingerprints/answer", answer, methods=["POST"]),
            Route("/v1/fingerprints/open", open_states, methods=["POST"]),
        ],
        exception_handlers={UllageError: _on_error},
    )


def attach(store: StateStore, address: str) -> str:
    """Serve verifiers at HOST:PORT from a thread of this process; its URL, once it is bound.

    Raises UsageError when the address cannot be bound.
    """
    listener = run.bind(*run.parse_address(address))
    config = uvicorn.Config(
        create_fingerprint_app(store), access_log=False, log_level="warning", lifespan="off",
        server_header=False, date_header=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    listener.listen()
    threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="fingerprints", daemon=True
    ).start()
    return f"http://{run.address_text(listener)}"


def fingerprinting(inner: TokenChooser, model: Any, address: str, limit: int) -> TokenChooser:
    """The chooser, with the states of its model kept in `limit` bytes for verifiers at `address`."""
    store = StateStore(limit)
    chooser = FingerprintingChooser(inner, model, store)
    sys.stdout.write(f"fingerprints at {attach(store, address)}\n")
    sys.stdout.flush()
    return chooser


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REQUEST_BYTES:
            raise FaultError(f"A challenge has at most {MAX_REQUEST_BYTES} bytes.")
    return bytes(body)


async def _on_error(_: Request, error: Exception) -> Response:
    return _refused(str(error), 400 if isinstance(error, IntegrityError) else 404)


def _refused(sentence: str, status: int) -> Response:
    body: dict[str, Any] = {"error": {"message": sentence}}
    return JSONResponse(body, status)
