"""Errors in the shape that OpenAI's clients understand."""

from __future__ import annotations

from ullage.errors import UllageError


class ApiError(UllageError):
    """A request that is answered with an error: HTTP status, the field at fault, a short code."""

    def __init__(self, message: str, status: int = 400, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    def body(self) -> dict[str, object]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}
