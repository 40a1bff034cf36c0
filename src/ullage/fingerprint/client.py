"""The verifier's side of the connection to a prover's fingerprints. Nothing that comes back is trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar

import httpx
from pydantic import BaseModel

from ullage.deadline import within
from ullage.errors import FaultError, IntegrityError, MalformedError, UsageError
from ullage.fingerprint.messages import (
    MAX_LISTED,
    MAX_OPENED,
    MAX_RESPONSE_BYTES,
    Answer,
    Challenge,
    Commitments,
    Committed,
    Open,
    Openings,
    parse,
)

_SECONDS: Final = 120.0
_MOST: Final = 1_000_000

_Message = TypeVar("_Message", bound=BaseModel)


class RefusedError(IntegrityError):
    """The prover does not answer a challenge about something that it committed to."""


class FingerprintClient:
    """A prover's listener. `received` counts the bytes of its answers' bodies."""

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"'{url[:80]}' is not a URL such as http://127.0.0.1:8500.")
        self._url = url.rstrip("/")
        self.received = 0
        self._http = httpx.Client(timeout=_SECONDS, trust_env=False, follow_redirects=False)

    def commitments(self) -> list[Committed]:
        """All commitments that the prover still holds, in its order.

        Raises UsageError, FaultError, MalformedError.
        """
        found: list[Committed] = []
        first = 0
        while True:
            try:
                data = self._ask("GET", f"/v1/fingerprints?first={first}", None)
            except RefusedError as error:
                raise UsageError(
                    f"What answers at {self._url} has no fingerprints; give the address of `--fingerprints`."
                ) from error
            page = parse(Commitments, data).commitments
            numbers = [one.number for one in page]
            if any(after <= before for before, after in zip([first - 1, *numbers], numbers, strict=False)):
                raise MalformedError("The prover's commitments are not in the order of their numbers.")
            found += page
            if len(page) < MAX_LISTED:
                return found
            if len(found) > _MOST:
                raise MalformedError(f"The prover lists more than {_MOST} commitments.")
            first = numbers[-1] + 1

    def answer(self, transcript: bytes, seed: bytes, coordinates: int, step: float) -> bytes:
        """The fingerprint's bytes, as the prover says. Raises RefusedError, FaultError, MalformedError."""
        challenge = Challenge(
            coordinates=coordinates, seed=seed.hex(), step=repr(step), transcript=transcript.hex()
        )
        found = parse(Answer, self._ask("POST", "/v1/fingerprints/answer", challenge))
        return bytes.fromhex(found.fingerprint)

    def open(self, transcript: bytes, tokens: Sequence[int]) -> Iterator[tuple[bytes, tuple[bytes, ...]]]:
        """The bytes and the audit path of each of these states, not yet checked. Raises as `answer`."""
        for start in range(0, len(tokens), MAX_OPENED):
            asked = Open(tokens=list(tokens[start : start + MAX_OPENED]), transcript=transcript.hex())
            found = parse(Openings, self._ask("POST", "/v1/fingerprints/open", asked)).openings
            if len(found) != len(asked.tokens):
                raise MalformedError("The prover opens another number of states than it was asked for.")
            for one in found:
                yield bytes.fromhex(one.state), tuple(bytes.fromhex(step) for step in one.path)

    def _ask(self, method: str, path: str, body: BaseModel | None) -> bytes:
        late = f"The prover at {self._url} did not answer within {_SECONDS:g} s."
        return within(_SECONDS, partial(self._exchange, method, path, body), late)

    def _exchange(self, method: str, path: str, body: BaseModel | None) -> bytes:
        data = None if body is None else body.model_dump_json().encode()
        try:
            with self._http.stream(method, self._url + path, content=data) as response:
                content = bytearray()
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > MAX_RESPONSE_BYTES:
                        raise MalformedError(f"The prover's answer has more than {MAX_RESPONSE_BYTES} bytes.")
        except (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise UsageError(f"No prover answers at {self._url}: {error}.") from error
        except httpx.HTTPError as error:
            raise FaultError(f"The prover at {self._url} broke off: {type(error).__name__}.") from error
        self.received += len(content)
        if response.status_code != httpx.codes.OK:
            raise RefusedError(f"The prover refuses with status {response.status_code}.")
        return bytes(content)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
