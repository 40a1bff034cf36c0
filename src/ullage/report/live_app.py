"""The live page's server: the page, its script, its ledger, and events. Everything is read-only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ullage.claims import Claim, digest_of
from ullage.errors import UllageError
from ullage.report.adversaries import is_game
from ullage.report.claim_metrics import CONTENT_TYPE, claim_metrics
from ullage.report.documents import Document, all_claims, read_document
from ullage.report.exposition import MAX_BYTES, parse_exposition
from ullage.report.live_page import Glance, render, render_ledger, script

_TIMEOUT = 5.0
_MOST_SECONDS = 20.0  # for one look: a tap that answers byte by byte keeps within every other timeout
_MOST_READY_BYTES = 4096
_UNREAD = "alarm_claims_cannot_be_read_total"
"""An alarm of the page's own, under a name that it shows as those of the tap."""
_MOST_READERS = 32
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'"
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
}


@dataclass
class Watch:
    """What the page shows, looked at every so many seconds by one task, however many readers there are."""

    tap: str
    claims: Sequence[Path]
    seconds: float
    title: str = "What this tap does"
    glance: Glance = field(default_factory=lambda: Glance("", None, "not asked yet"))
    standing: tuple[Claim, ...] = ()
    digest: str = ""
    unread: int = 0
    """Files of claims that could not be read when they were last looked at."""
    readers: int = 0
    turn: asyncio.Condition = field(default_factory=asyncio.Condition)
    _kept: dict[Path, Document] = field(default_factory=dict, repr=False)

    def read_claims(self) -> None:
        """Read the files again.

        One that cannot be read keeps what stood before, since it may be just being written, and is counted:
        one that is gone must not take its claims with it in silence.
        """
        unread = 0
        for path in self.claims:
            try:
                self._kept[path] = read_document(path)
            except (UllageError, OSError):
                unread += 1
        known = (self._kept[path] for path in self.claims if path in self._kept)
        self.standing = all_claims(one for one in known if not is_game(one))
        self.digest = digest_of(self.standing)
        self.unread = unread

    async def look(self, client: httpx.AsyncClient) -> None:
        """Ask the tap once and tell every reader. Whatever goes wrong is what the page says."""
        at = datetime.now(UTC).strftime("%H:%M:%S UTC")
        try:
            async with asyncio.timeout(_MOST_SECONDS):
                glance = await self._ask(client, at)
        except Exception as error:  # not HTTP's alone: without this task the last glance would stand for ever
            glance = Glance(at, None, str(error)[:200] or type(error).__name__, self.glance.figures)
        try:
            await asyncio.to_thread(self.read_claims)
        except Exception:  # for the same reason
            self.unread = len(self.claims)
        figures = {name: value for name, value in glance.figures.items() if name != _UNREAD}
        self.glance = replace(glance, figures=figures | {_UNREAD: float(self.unread)})
        async with self.turn:
            self.turn.notify_all()

    async def _ask(self, client: httpx.AsyncClient, at: str) -> Glance:
        """What the tap says now. Raises httpx.HTTPError, httpx.InvalidURL, MalformedError, ValueError."""
        ready, said = await _limited(client, f"{self.tap}/readyz", _MOST_READY_BYTES)
        page, figures = await _limited(client, f"{self.tap}/metrics", MAX_BYTES)
        page.raise_for_status()
        is_ready = ready.status_code == httpx.codes.OK
        reason = "" if is_ready else said.decode("utf-8", "replace")[:200].strip()
        return Glance(at, is_ready, reason, parse_exposition(figures.decode("utf-8")))

    async def run(self) -> None:
        """Look until cancelled."""
        async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False) as client:
            while True:
                await self.look(client)
                await asyncio.sleep(self.seconds)

    async def events(self) -> AsyncIterator[str]:
        """What is known now, then what every look finds."""
        while True:
            yield self.glance.event(self.digest)
            async with self.turn:
                await self.turn.wait()


class _Events(StreamingResponse):
    """The events of one reader, who counts from now on until the connection is over."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch.events(), headers=_HEADERS, media_type="text/event-stream")
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Not when the first event is asked for: others would come in before it.
        self._watch.readers += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._watch.readers -= 1


async def _limited(client: httpx.AsyncClient, url: str, most: int) -> tuple[httpx.Response, bytes]:
    """A response and its body, as far as it may be long. Raises httpx.HTTPError, httpx.InvalidURL."""
    async with client.stream("GET", url) as response:
        data = b""
        async for part in response.aiter_bytes():
            data += part
            if len(data) > most:
                raise httpx.DecodingError(f"what the tap answers at {url} is longer than it may be")
    return response, data


def create_app(watch: Watch) -> Starlette:
    """`/`, `/live.js`, `/ledger`, `/events`, and `/metrics` for Prometheus."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(watch.run())
        try:
            yield
        finally:
            task.cancel()

    async def events(_: Request) -> Response:
        if watch.readers >= _MOST_READERS:
            return PlainTextResponse("too many readers\n", 503, _HEADERS)
        return _Events(watch)

    def page(
        make: Callable[[], str], kind: type[Response], media: str | None = None
    ) -> Callable[..., Response]:
        def answer(_: Request) -> Response:
            return kind(make(), headers=_HEADERS, media_type=media)

        return answer

    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/", page(lambda: render(watch.title, watch.standing), HTMLResponse)),
            Route("/ledger", page(lambda: render_ledger(watch.standing), HTMLResponse)),
            Route(
                "/metrics",
                page(
                    lambda: claim_metrics(watch.standing, watch.glance.ready, watch.unread),
                    Response,
                    CONTENT_TYPE,
                ),
            ),
            Route("/live.js", page(script, Response, "text/javascript")),
            Route("/events", events),
        ],
    )
