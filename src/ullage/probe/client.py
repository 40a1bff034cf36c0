"""A client of somebody else's OpenAI-compatible server: patient with its troubles, strict about its bytes.

Troubles are counted, never evidence: a provider that limits rates or fails is slow, not dishonest.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Self, TypeVar

import httpx

from ullage.deadline import within
from ullage.errors import FaultError, MalformedError, UsageError
from ullage.probe.answers import Answer, parse_answer, parse_models
from ullage.probe.questions import Question
from ullage.terminal import plain_line

_MAX_BODY: Final = 4 << 20
_PASSING: Final = frozenset({408, 409, 425, 429})  # and all from 500 on
# Fields beside OpenAI's oldest ones, left out for good once a provider refuses them, in this order.
_OPTIONAL: Final = ("return_token_ids", "seed")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Limits:
    """How long and how often one question is tried."""

    attempts: int = 6
    seconds: float = 120.0
    """Of one attempt, from the first byte sent to the last received."""
    longest_wait: float = 30.0
    first_wait: float = 0.5


@dataclass
class Troubles:
    """What went wrong on the way, by kind: `rate-limited`, `server-errors`, `timeouts`, `broken`,
    `malformed`, `gave-up`, `refused`."""

    counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def note(self, kind: str) -> None:
        with self._lock:
            self.counts[kind] += 1


_LAST: Final = {
    "broken": "the connection broke or could not be made",
    "rate-limited": "it limited the rate of requests",
    "server-errors": "it failed with a server error",
    "timeouts": "it took too long",
}
"""Kinds of trouble that may pass, as the end of a sentence."""


class _PassingError(Exception):
    """This attempt failed; another may not."""

    def __init__(self, kind: str, wait: float | None = None) -> None:
        super().__init__(kind)
        self.kind, self.wait = kind, wait


class Client:
    """Asks questions; use it with `with`. Threads may share it."""

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        limits: Limits | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`url`: the server's, with or without `/v1`. `model`: the name to ask for; None for the first that
        the server lists. Raises UsageError for a URL that is none."""
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise UsageError(f"'{url[:200]}' is not a URL.") from error
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
            raise UsageError("A provider's URL begins with http:// or https:// and holds no password.")
        base = str(parsed).rstrip("/")
        self.url = base if base.endswith("/v1") else base + "/v1"
        self.limits = limits or Limits()
        self.troubles = Troubles()
        self._model, self._sleep = model, sleep
        self._refused: set[str] = set()
        self._answered = False
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(
            headers=headers, timeout=httpx.Timeout(self.limits.seconds), follow_redirects=False
        )

    def __enter__(self) -> Self:
        if self._model is None:
            self._model = parse_models(self._attempts(lambda: self._get("models")))[0]
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def model(self) -> str:
        """The name that is asked for."""
        return self._model or ""

    @property
    def refused(self) -> frozenset[str]:
        """Optional fields that the provider does not take."""
        return frozenset(self._refused)

    def ask(self, question: Question) -> Answer | None:
        """The answer, or None when every attempt failed (counted as `gave-up`).

        Raises UsageError when the provider refuses the very first requests (a wrong key or name); a later
        refusal is counted as `refused`.
        """
        try:
            answer = self._attempts(lambda: parse_answer(self._post(question)))
        except FaultError:
            self.troubles.note("gave-up")
            return None
        except UsageError:
            if not self._answered:
                raise
            self.troubles.note("refused")
            return None
        self._answered = True
        return answer

    def _attempts(self, work: Callable[[], _Result]) -> _Result:
        wait = self.limits.first_wait
        kind = ""
        for attempt in range(self.limits.attempts):
            try:
                return work()
            except MalformedError:
                kind, asked = "malformed", None
            except _PassingError as error:
                kind, asked = error.kind, error.wait
            self.troubles.note(kind)
            if attempt + 1 < self.limits.attempts:
                self._sleep(min(wait if asked is None else asked, self.limits.longest_wait))
                wait *= 2
        said = _LAST.get(kind, kind)
        raise FaultError(
            f"{self.url} did not answer in {self.limits.attempts} attempts; the last time {said}."
        )

    def _post(self, question: Question) -> bytes:
        while True:
            optional = {"return_token_ids": True, "seed": question.seed}
            sent = {name: value for name, value in optional.items() if name not in self._refused}
            status, body = self._exchange("POST", question.path, question.body(self.model) | sent)
            if status == 200:
                return body
            if status in (400, 422) and (unwanted := _unwanted(body, sent)):
                self._refused.add(unwanted)
                continue
            raise UsageError(f"{self.url} refuses the request ({status}): {_words(body)}")

    def _get(self, path: str) -> bytes:
        status, body = self._exchange("GET", path, None)
        if status != 200:
            raise UsageError(f"{self.url}/{path} answers {status}: {_words(body)} Name a model with --name.")
        return body

    def _exchange(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        """Status and body. All of it has its time together, the head of the answer too."""
        try:
            return within(self.limits.seconds, partial(self._ask, method, path, body), "It took too long.")
        except FaultError as error:
            raise _PassingError("timeouts") from error

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        try:
            with self._http.stream(method, f"{self.url}/{path}", json=body) as response:
                if response.status_code in _PASSING or response.status_code >= 500:
                    kind = "rate-limited" if response.status_code == 429 else "server-errors"
                    raise _PassingError(kind, _retry_after(response))
                read = bytearray()
                for part in response.iter_bytes():
                    read += part
                    if len(read) > _MAX_BODY:
                        raise MalformedError(f"An answer of more than {_MAX_BODY} bytes was cut off.")
                return response.status_code, bytes(read)
        except httpx.TimeoutException as error:
            raise _PassingError("timeouts") from error
        except httpx.ConnectError as error:
            raise _PassingError("broken") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise _PassingError("broken") from error


def _unwanted(body: bytes, sent: dict[str, Any]) -> str | None:
    """The optional field that a refusal names, or else the first that was sent."""
    named = [name for name in _OPTIONAL if name in sent and name.encode() in body]
    return next(iter(named), next((name for name in _OPTIONAL if name in sent), None))


def _words(body: bytes) -> str:
    """What a provider says, fit for a terminal."""
    text = body[:300].decode("utf-8", "replace")
    return plain_line(text, " ").strip() or "nothing."


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else None
