"""A draft that comes as one answer: asked for, and read to its end."""

from __future__ import annotations

import asyncio
from typing import Final

from ullage.tap.failures import Failure, UpstreamError
from ullage.tap.upstream.connections import Traffic, Upstream

COMPLETIONS_PATH: Final = "/v1/completions"


async def whole_draft(
    upstream: Upstream, body: bytes, traffic: Traffic, *, limit: int, deadline: float
) -> bytes:
    """The answer's JSON, at most `limit` bytes, by `deadline` on the event loop's clock.

    Raises UpstreamError.
    """
    try:
        async with asyncio.timeout_at(deadline):
            async with upstream.post(COMPLETIONS_PATH, body, traffic, stream=False) as response:
                if response.status != 200 or response.content_type != "application/json":
                    raise UpstreamError(Failure.UPSTREAM_INVALID, f"status {response.status}")
                return await response.whole(limit)
    except TimeoutError as error:
        raise UpstreamError(Failure.UPSTREAM_TIMEOUT, "no whole answer in time") from error
