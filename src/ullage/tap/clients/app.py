"""The tap's HTTP interface: four addresses, and 404 for all else."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from ullage.log.record import HeaderPart
from ullage.monitor.watch import Watch
from ullage.tap.choices.tokens import Tokenizer
from ullage.tap.clients.api_keys import ApiKeys
from ullage.tap.clients.budgets import Budgets
from ullage.tap.clients.call import BodyTooLargeError, Call
from ullage.tap.clients.http import ClientLimits
from ullage.tap.clients.request import CompletionRequest, Endpoint, parse_request
from ullage.tap.clients.response import models_body
from ullage.tap.failures import Failure, RequestRefusedError, error_body
from ullage.tap.gateway import Gateway
from ullage.tap.recorder import NANOSECONDS
from ullage.tap.release import send_error
from ullage.tap.tell import tell_operator
from ullage.tap.upstream.cap import LinkCap

_ENDPOINTS: Final[dict[str, Endpoint]] = {"/v1/chat/completions": "chat", "/v1/completions": "completions"}
_GREEDY_ALONE = (
    "This server's random choices cannot be recomputed (its profile is greedy): send 'temperature': 0."
)
_OFF_LOOP_BYTES = 16 << 10  # bodies from this size on are tokenised beside the event loop


class TapApp:
    """Reads requests, refuses what is not one, and hands the others to the gateway."""

    def __init__(
        self,
        *,
        gateway: Gateway,
        tokenizer: Tokenizer,
        header: HeaderPart,
        model_name: str,
        limits: ClientLimits,
        max_active: int,
        keys: ApiKeys | None = None,
        budgets: Budgets | None = None,
        cap: LinkCap | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._gateway = gateway
        self._keys = keys
        self._budgets = budgets or Budgets()
        self._cap = cap
        self._watch = watch
        self._tokenizer = tokenizer
        self._model_name = model_name
        self._limits = limits
        self._max_active = max_active
        self._active = 0
        self._greedy = header.profile == "greedy"
        self._models = models_body(
            name=model_name,
            created=header.created // NANOSECONDS,
            model_digest=header.model_digest,
            profile=header.profile,
            dtype=header.dtype,
            log_id=header.log_id,
        )

    async def __call__(self, call: Call) -> None:
        """Answer one request. A cancellation means that the client is gone or the tap stops."""
        try:
            await self._route(call)
        except RequestRefusedError as error:
            self._gateway.meters.errors[error.failure] += 1
            await call.send(error.failure.status, error_body(error.failure, error.message, error.param))
        except asyncio.CancelledError:
            if not call.gone:
                await send_error(call, self._gateway.gate.reason or Failure.SHUTTING_DOWN)
        except Exception as error:  # no traceback may reach a client
            tell_operator(f"internal error ({type(error).__name__}: {error})")
            await send_error(call, Failure.INTERNAL_ERROR)

    async def _route(self, call: Call) -> None:
        client = self._client(call) if call.path != "/health" else ""
        if call.method == b"POST" and call.path in _ENDPOINTS:
            await self._complete(_ENDPOINTS[call.path], call, client)
        elif call.method == b"GET" and call.path == "/v1/models":
            await call.send(200, self._models)
        elif call.method == b"GET" and call.path == "/health":
            if self._gateway.gate.reason is not None:
                raise RequestRefusedError(self._gateway.gate.reason)
            await call.send(200, b'{"status":"ok"}')
        else:
            raise RequestRefusedError(Failure.NOT_FOUND)

    def _client(self, call: Call) -> str:
        """Who asks: the name of its key, or its address where there are no keys. Raises
        RequestRefusedError."""
        if self._keys is None:
            return call.peer
        given = call.authorizations
        client = self._keys.client_of(given[0] if len(given) == 1 else None)
        if client is None:
            raise RequestRefusedError(Failure.UNAUTHORIZED)
        return client

    async def _complete(self, endpoint: Endpoint, call: Call, client: str) -> None:
        if self._active >= self._max_active or (self._cap is not None and self._cap.refuses()):
            call.end_connection()
            raise RequestRefusedError(Failure.OVERLOADED)
        self._budgets.admit(client, time.time_ns())
        if self._watch is not None:
            if self._watch.blocked(client, time.time_ns()):
                raise RequestRefusedError(Failure.BUDGET_EXHAUSTED)
            call.kept = []
        choices = 1  # each is a connection to the server, and what of its answer nobody has taken yet
        self._active += choices
        try:
            self._gateway.gate.enter()
            body = await self._read_body(call)
            request = await self._parse(endpoint, body)
            if self._greedy and float(request.temperature) > 0:
                raise RequestRefusedError(Failure.UNSUPPORTED_FIELD, _GREEDY_ALONE, "temperature")
            if self._active + request.choices - 1 > self._max_active:
                raise RequestRefusedError(Failure.OVERLOADED)
            self._active += request.choices - choices
            choices = request.choices
            self._gateway.meters.bytes_from_client += len(body)
            self._gateway.meters.prompt_tokens += len(request.prompt_ids) * request.choices
            await self._gateway.answer(request, len(body), call)
        finally:
            self._budgets.charge(client, call.sent, time.time_ns())
            if self._watch is not None and call.kept:
                self._watch.observe(client, b"".join(call.kept), time.time_ns())
            self._active -= choices
            self._gateway.gate.leave()

    async def _parse(self, endpoint: Endpoint, body: bytes) -> CompletionRequest:
        if len(body) < _OFF_LOOP_BYTES:
            return parse_request(endpoint, body, self._model_name, self._tokenizer)
        return await asyncio.to_thread(parse_request, endpoint, body, self._model_name, self._tokenizer)

    async def _read_body(self, call: Call) -> bytes:
        """The body, within limits. Raises RequestRefusedError."""
        try:
            return await call.read_body(self._limits.body_seconds)
        except BodyTooLargeError as error:
            call.end_connection()
            limit = self._limits.body_bytes
            message = f"A request's body has at most {limit} bytes."
            raise RequestRefusedError(Failure.BODY_TOO_LARGE, message) from error
        except TimeoutError as error:
            call.end_connection()
            raise RequestRefusedError(Failure.REQUEST_TIMEOUT) from error
