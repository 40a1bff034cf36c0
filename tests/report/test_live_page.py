"""The live page over a tap's own operations address, in a real browser."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from tests.report.axe import axe_source
from tests.report.browser import CHROMIUM, MISSING, browser
from tests.report.samples import claim, four_claims, write_document
from ullage.errors import MalformedError
from ullage.report import live_app
from ullage.report.documents import Document
from ullage.report.exposition import parse_exposition
from ullage.report.live_app import Watch, create_app
from ullage.report.live_page import SHOWN, Glance
from ullage.server.run import bind
from ullage.tap.clients.call import Call
from ullage.tap.clients.http import ClientProtocol
from ullage.tap.failures import Failure
from ullage.tap.gate import Gate
from ullage.tap.operations.address import OperationsApp
from ullage.tap.operations.metrics import DECLARATION, Left, MetricsPage, alarm_counts
from ullage.tap.operations.telemetry import QuantisedCounter
from ullage.tap.residual.capacity import STEPS


@contextmanager
def served(app: Any, **settings: Any) -> Iterator[str]:
    """An application at a port of its own, with these settings of uvicorn's."""
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, **settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


class Tap:
    """A tap's gate and figures, without the rest of it; every reading is a new snapshot."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.figures = {counter.name: 0.0 for counter in DECLARATION.field}
        self.fails = False
        self._now = 0.0
        self.left = STEPS
        left = Left(6_400.0, lambda: self.left)
        self._app = OperationsApp(self.gate, MetricsPage(self._read, self._clock, left))

    async def __call__(self, call: Call) -> None:
        if self.fails:
            self.gate.trip(Failure.LOG_UNAVAILABLE, "a test closes the gate")
        await self._app(call)

    def _read(self) -> dict[str, float]:
        return {**self.figures, **alarm_counts(self.gate.alarms)}

    def _clock(self) -> float:
        self._now += 60.0
        return self._now


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
def test_a_person_sees_what_moves(tmp_path: Path) -> None:
    tap = Tap()
    file = write_document(tmp_path / "claims.json", four_claims())
    with ExitStack() as stack:
        address = stack.enter_context(served(tap, http=ClientProtocol, lifespan="off", proxy_headers=False))
        page = stack.enter_context(served(create_app(Watch(address, (file,), 0.1))))
        chromium = stack.enter_context(browser(tmp_path / "profile"))
        chromium.open_url(page, 390)
        text = "document.body.innerText"
        chromium.wait_for("document.getElementById('state').className === 'state ready'")
        chromium.wait_for(f"{text}.includes('≤ 0.0030 %')")
        chromium.wait_for("document.getElementById('requests_total').textContent === '< 100'")
        tap.figures["requests_total"] = 1_234.0
        chromium.wait_for("document.getElementById('requests_total').textContent === '1,200'")
        chromium.wait_for("document.getElementById('left').textContent === '≥ 6,400 bits'")
        tap.left = 16
        chromium.wait_for("document.getElementById('left').textContent === '≥ 1,600 bits'")
        write_document(file, [claim("token.covert_fraction", 0.02)])
        chromium.wait_for(f"{text}.includes('≤ 2.0 %')")
        tap.fails = True
        chromium.wait_for("document.getElementById('state').className === 'state closed'")
        chromium.wait_for(f"{text}.includes('Alarms since the start')")
        chromium.wait_for(f"{text}.includes('its log cannot be written')")
        assert chromium.evaluate("document.documentElement.scrollWidth") <= 390
        assert [one for one in chromium.complaints if address not in one and page not in one] == []
        source, problem = axe_source()
        if not problem:
            chromium.send("Page.setBypassCSP", enabled=True)
            chromium.evaluate(source + "; true")
            found = chromium.evaluate(
                "axe.run().then((all) => all.violations.map((one) => [one.impact, one.id]))"
            )
            assert [one for one in found if one[0] in ("serious", "critical")] == []


def test_a_tap_that_is_gone_is_said_and_pages_are_read_only(tmp_path: Path) -> None:
    with served(create_app(Watch("http://127.0.0.1:9", (tmp_path / "none.json",), 0.1))) as page:
        with httpx.stream("GET", f"{page}/events", timeout=20) as events:
            line = next(
                line for line in events.iter_lines() if '"ready": null' in line and "asked" not in line
            )
        assert '"figures"' in line
        answer = httpx.get(page)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.text.count("no claim token.covert_fraction was given") == 2
        assert httpx.post(page).status_code == 405


def _looked(watch: Watch, answers: httpx.MockTransport) -> None:
    async def look() -> None:
        async with httpx.AsyncClient(transport=answers) as client:
            await watch.look(client)

    asyncio.run(look())


def _open_tap(request: httpx.Request) -> httpx.Response:
    return httpx.Response(
        200, text="ready\n" if request.url.path == "/readyz" else "ullage_tap_requests_total 5\n"
    )


def test_claims_that_may_not_be_read_are_said_and_the_page_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_document(tmp_path / "claims.json", four_claims())
    watch = Watch("http://tap", (file,), 0.1)
    _looked(watch, httpx.MockTransport(_open_tap))
    assert watch.glance.alarms == []
    stood = watch.standing
    assert len(stood) == 4

    def refused(_: Path) -> Document:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(live_app, "read_document", refused)
        _looked(watch, httpx.MockTransport(_open_tap))
    assert watch.glance.alarms == ["claims cannot be read"]
    assert watch.glance.ready
    assert watch.standing == stood
    _looked(watch, httpx.MockTransport(_open_tap))
    assert watch.glance.alarms == []


def test_a_file_that_is_gone_takes_no_claims_with_it_in_silence(tmp_path: Path) -> None:
    """Nor does one that is misshapen keep the others from being read again."""
    file, other = tmp_path / "claims.json", tmp_path / "other.json"
    write_document(file, four_claims()[:2])
    write_document(other, four_claims()[2:])
    watch = Watch("http://tap", (file, other), 0.1)
    watch.read_claims()
    assert (len(watch.standing), watch.unread) == (4, 0)
    file.unlink()
    write_document(other, four_claims()[2:3])
    watch.read_claims()
    assert (len(watch.standing), watch.unread) == (3, 1)
    file.write_text("{")
    watch.read_claims()
    assert (len(watch.standing), watch.unread) == (3, 1)
    write_document(file, four_claims()[:1])
    watch.read_claims()
    assert (len(watch.standing), watch.unread) == (2, 0)


def test_a_tap_that_cannot_be_asked_any_more_is_not_shown_as_ready(tmp_path: Path) -> None:
    """Not the errors of HTTP alone: the page's one task must outlive whatever a look meets."""
    watch = Watch("http://tap", (), 0.1)
    errors: list[Exception] = [
        httpx.InvalidURL("Invalid port: 'x'"), httpx.ConnectError("nobody"),
        OSError(24, "Too many open files"), KeyError("defect"), RuntimeError(),
    ]  # fmt: skip
    for error in errors:

        def fail(_: httpx.Request, error: Exception = error) -> httpx.Response:
            raise error

        seen = []
        for answers in (_open_tap, fail):
            _looked(watch, httpx.MockTransport(answers))
            seen.append((watch.glance.ready, watch.glance.reason))
        assert seen == [(True, ""), (None, str(error) or "RuntimeError")]


def test_an_address_that_is_none_is_said_by_a_running_page() -> None:
    watch = Watch("http://127.0.0.1:99999x", (), 0.1)

    async def run() -> None:
        task = asyncio.ensure_future(watch.run())
        await asyncio.wait([task], timeout=0.5)
        assert not task.done()
        task.cancel()

    asyncio.run(run())
    assert "Invalid port" in watch.glance.reason


def test_what_a_tap_says_of_itself_is_read_up_to_a_limit() -> None:
    taken = 0

    def endless(request: httpx.Request) -> httpx.Response:
        async def pieces() -> AsyncIterator[bytes]:
            nonlocal taken
            for _ in range(10_000):
                taken += 1
                yield b"x" * 1000

        return httpx.Response(503, content=pieces())

    watch = Watch("http://tap", (), 0.1)
    _looked(watch, httpx.MockTransport(endless))
    assert watch.glance.ready is None
    assert "longer than it may be" in watch.glance.reason
    assert taken < 10


@given(st.text())
def test_an_exposition_is_figures_or_refused(text: str) -> None:
    try:
        found = parse_exposition(text)
    except MalformedError:
        return
    assert all(isinstance(value, float) for value in found.values())


@given(
    st.dictionaries(st.sampled_from([counter.name for counter in DECLARATION.field]), st.integers(0, 10**6))
)
def test_what_a_tap_writes_is_read(figures: dict[str, int]) -> None:
    lines = [f"# HELP ullage_tap_{name} x\nullage_tap_{name} {value}" for name, value in figures.items()]
    assert parse_exposition("\n".join(lines)) == figures


def test_steps_are_those_of_the_tap() -> None:
    steps = {one.name: one.quantum for one in DECLARATION.field if isinstance(one, QuantisedCounter)}
    assert all(steps[name] == step for name, _, step in SHOWN)


def test_alarms_are_named() -> None:
    glance = Glance(
        "now", False, "", {f"alarm_{Failure.LOG_UNAVAILABLE.code}_total": 1.0, "alarm_x_total": 0.0}
    )
    assert len(glance.alarms) == 1
    assert "_" not in glance.alarms[0]


def test_readers_that_come_at_once_are_counted() -> None:
    """All of them ask before the first has got anything."""
    app = create_app(Watch("http://127.0.0.1:9", (), 60.0))

    async def ask(statuses: list[int], may_go_on: asyncio.Event) -> None:
        async def receive() -> dict[str, Any]:
            await may_go_on.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
                await may_go_on.wait()

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
            "path": "/events", "raw_path": b"/events", "root_path": "", "query_string": b"", "headers": [],
            "scheme": "http", "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2),
        }  # fmt: skip
        await app(scope, receive, send)

    async def play() -> tuple[list[int], list[int]]:
        found = []
        for _ in range(2):  # and those who left have made room
            statuses: list[int] = []
            may_go_on = asyncio.Event()
            asking = [asyncio.create_task(ask(statuses, may_go_on)) for _ in range(40)]
            while len(statuses) < len(asking):
                await asyncio.sleep(0)
            may_go_on.set()
            await asyncio.gather(*asking)
            found.append(sorted(statuses))
        return found[0], found[1]

    first, second = asyncio.run(asyncio.wait_for(play(), 20))
    assert first == second == [200] * 32 + [503] * 8
