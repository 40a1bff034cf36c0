"""The operator's address, apart from the clients': `/metrics`, `/healthz` and `/readyz`."""

from __future__ import annotations

from ullage.tap.clients.call import Call
from ullage.tap.gate import Gate
from ullage.tap.operations.metrics import CONTENT_TYPE, MetricsPage


class OperationsApp:
    """Answers requests. `/healthz` is 200 while the process answers, `/readyz` while the gate is open."""

    def __init__(self, gate: Gate, page: MetricsPage) -> None:
        self._gate = gate
        self._page = page

    async def __call__(self, call: Call) -> None:
        status, kind, body = self._answer(call.method, call.path)
        await call.send(status, body, kind)

    def _answer(self, method: bytes, path: str) -> tuple[int, bytes, bytes]:
        if method != b"GET":
            return 405, b"text/plain", b"only GET\n"
        if path == "/metrics":
            return 200, CONTENT_TYPE, self._page.page()
        if path == "/healthz":
            return 200, b"text/plain", b"alive\n"
        if path == "/readyz":
            reason = self._gate.reason
            return (
                (200, b"text/plain", b"ready\n")
                if reason is None
                else (503, b"text/plain", _line(reason.code))
            )
        return 404, b"text/plain", b"there is /metrics, /healthz and /readyz\n"


def _line(code: str) -> bytes:
    return code.encode() + b"\n"
