"""Everything that can go wrong at the tap, as a client may see it.

An error's status, code and text are a channel of log2(number of errors) bits, so the list is short,
fixed, and says nothing that the upstream wrote. All that the server behind the tap can bring about is one
and the same error; which of its faults it was is in the record.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class _Kind:
    status: int
    type: str
    message: str


class Failure(Enum):
    """The fixed list. A member's name in lower case is the `code` of the error."""

    INVALID_REQUEST = _Kind(400, "invalid_request_error", "The request is not valid.")
    UNSUPPORTED_FIELD = _Kind(
        400, "invalid_request_error", "The request has fields that cannot be recomputed."
    )
    CONTEXT_LENGTH_EXCEEDED = _Kind(400, "invalid_request_error", "The prompt does not fit the context.")
    UNAUTHORIZED = _Kind(401, "invalid_request_error", "The request has no API key that is known here.")
    NOT_FOUND = _Kind(404, "invalid_request_error", "There is nothing at this address.")
    MODEL_NOT_FOUND = _Kind(404, "invalid_request_error", "This tap serves another model.")
    REQUEST_TIMEOUT = _Kind(408, "invalid_request_error", "The request's body did not arrive in time.")
    BODY_TOO_LARGE = _Kind(413, "invalid_request_error", "The request's body is too large.")
    BUDGET_EXHAUSTED = _Kind(429, "budget_error", "This client's budget for the day is used up.")
    INTERNAL_ERROR = _Kind(
        500, "server_error", "The tap failed; its operator finds the reason in its error output."
    )
    UPSTREAM_FAILED = _Kind(502, "upstream_error", "The server behind the tap gave no valid answer.")
    # Names for one and the same error, so that code says what happened and a client cannot tell.
    UPSTREAM_UNREACHABLE = UPSTREAM_FAILED
    UPSTREAM_INVALID = UPSTREAM_FAILED  # noqa: PIE796 - meant
    UPSTREAM_ENDED_EARLY = UPSTREAM_FAILED  # noqa: PIE796 - meant
    UPSTREAM_TIMEOUT = UPSTREAM_FAILED  # noqa: PIE796 - meant
    LOG_UNAVAILABLE = _Kind(503, "unavailable", "The log cannot be written, so nothing is released.")
    ENFORCER_UNAVAILABLE = _Kind(503, "unavailable", "The reference is gone, so nothing is released.")
    METER_UNAVAILABLE = _Kind(
        503, "unavailable", "The meter of the server's link is gone, so nothing is released."
    )
    CLOCK_UNSURE = _Kind(503, "unavailable", "The tap's clock has jumped, so nothing is released.")
    CHANNEL_EXHAUSTED = _Kind(
        503, "unavailable", "Late and failed answers have used up their allowance, so nothing is released."
    )
    OVERLOADED = _Kind(503, "unavailable", "The tap has as many requests as it takes; try again later.")
    SHUTTING_DOWN = _Kind(503, "unavailable", "The tap is shutting down.")

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.value.status

    @property
    def code(self) -> str:
        """The `code` field of the error."""
        return self.name.lower()


class RequestRefusedError(Exception):
    """A request that is answered before it has a counter: nothing of it is forwarded.

    `message` may name fields and limits: it is a function of the request and of the tap's configuration.
    """

    def __init__(self, failure: Failure, message: str | None = None, param: str | None = None) -> None:
        super().__init__(message or failure.value.message)
        self.failure = failure
        self.message = message or failure.value.message
        self.param = param


class UpstreamError(Exception):
    """The server behind the tap broke the contract; `detail` goes to the record and nowhere else."""

    def __init__(self, failure: Failure, detail: str, *, refused: bool = False) -> None:
        super().__init__(detail)
        self.failure = failure
        self.detail = detail
        self.refused = refused  # the answer is there, and the tap withholds it


class ConnectionBrokenError(UpstreamError):
    """The server closed the connection before or within its answer."""

    def __init__(self, detail: str) -> None:
        super().__init__(Failure.UPSTREAM_ENDED_EARLY, detail)


class LogUnavailableError(Exception):
    """A part could not be made durable, so what it describes must not be released."""


def error_body(failure: Failure, message: str | None = None, param: str | None = None) -> bytes:
    """An error in OpenAI's shape, keys in a fixed order."""
    error = {
        "message": message or failure.value.message,
        "type": failure.value.type,
        "param": param,
        "code": failure.code,
    }
    return json.dumps({"error": error}, ensure_ascii=False, separators=(",", ":")).encode()
