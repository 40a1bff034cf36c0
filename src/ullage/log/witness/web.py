"""HTTP for logs and witnesses: the applications that `ullage log serve` and `ullage log witness` run.

`log_app` hands out what tlog-tiles names and nothing else. `witness_app` is the interface of tlog-witness.
"""

from __future__ import annotations

import asyncio
import gzip
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ullage.errors import UllageError
from ullage.log.notes.signed_note import MAX_NOTE_BYTES
from ullage.log.source import DirectorySource
from ullage.log.tree.tiles import MAX_BUNDLE_BYTES, Bundle, parse_path
from ullage.log.verify import CHECKPOINT, COSIGNED
from ullage.log.witness.witness import MAX_REQUEST_BYTES, TEXT_TYPE, Witness

PUBLIC_KEY = "log.pub"
_TEXTS = (CHECKPOINT, COSIGNED, PUBLIC_KEY)
_BODY_SECONDS = 10
_BYTES_TYPE = "application/octet-stream"
_FOR_EVER = "public, max-age=31536000, immutable"
_FRESH = "public, max-age=1, must-revalidate"
Endpoint = Callable[[Request], Awaitable[Response]]


def log_app(directory: Path) -> Starlette:
    """The read-only application for a log's folder: checkpoints, the key, tiles, bundles; else 404."""
    source = DirectorySource(directory)

    async def text(request: Request) -> Response:
        data = await run_in_threadpool(source.read, request.url.path[1:], MAX_NOTE_BYTES)
        return _not_there() if data is None else _file(data, TEXT_TYPE, _FRESH)

    async def tile(request: Request) -> Response:
        # Only an address in its one spelling becomes a path, so that none leads out of the folder.
        address = parse_path(f"tile/{request.path_params['rest']}")
        data = None
        if address is not None:
            data = await run_in_threadpool(source.read, address.path, MAX_BUNDLE_BYTES)
        if data is None:
            return _not_there()
        response = _file(data, _BYTES_TYPE, _FOR_EVER)
        if isinstance(address, Bundle):
            await _compress(request, response)
        return response

    routes = [Route(f"/{name}", _guarded(text)) for name in _TEXTS]
    return Starlette(routes=[*routes, Route("/tile/{rest:path}", _guarded(tile))])


def witness_app(witness: Witness) -> Starlette:
    """The application of a witness; submission and monitoring prefix are both where it is mounted."""

    async def add_checkpoint(request: Request) -> Response:
        body = await _limited_body(request)
        if body is None:
            return PlainTextResponse("The request is too long or too slow.\n", 413)
        answer = await run_in_threadpool(witness.add_checkpoint, body)
        return Response(
            answer.body, answer.status, media_type=None, headers={"content-type": answer.content_type}
        )

    async def latest(request: Request) -> Response:
        note = await run_in_threadpool(witness.latest, request.path_params["origin_hash"])
        return _not_there() if note is None else _file(note, TEXT_TYPE, _FRESH)

    return Starlette(
        routes=[
            Route("/add-checkpoint", _guarded(add_checkpoint), methods=["POST"]),
            Route("/{origin_hash}/checkpoint", _guarded(latest)),
        ]
    )


async def _limited_body(request: Request) -> bytes | None:
    """The body, unless it is longer or slower than any request of ours."""
    parts: list[bytes] = []
    length = 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                length += len(part)
                if length > MAX_REQUEST_BYTES:
                    return None
                parts.append(part)
    except (TimeoutError, ClientDisconnect):
        return None
    return b"".join(parts)


async def _compress(request: Request, response: Response) -> None:
    """Entries are text, and four times smaller in gzip; hashes are not."""
    response.headers["vary"] = "Accept-Encoding"
    if "gzip" in request.headers.get("accept-encoding", ""):
        response.body = await run_in_threadpool(gzip.compress, bytes(response.body), 6, mtime=0)
        response.headers["content-encoding"] = "gzip"
        response.headers["content-length"] = str(len(response.body))


def _guarded(endpoint: Endpoint) -> Endpoint:
    """What fails inside is told to the operator, and to the client only that it failed."""

    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except UllageError as error:
            sys.stderr.write(f"{request.url.path}: {error}\n")
            return PlainTextResponse("The server has a fault.\n", 500)

    return guarded


def _file(data: bytes, content_type: str, cache: str) -> Response:
    headers = {"content-type": content_type, "cache-control": cache, "x-content-type-options": "nosniff"}
    return Response(data, headers=headers)


def _not_there() -> Response:
    return PlainTextResponse("There is no such file.\n", 404, {"cache-control": "no-store"})
