"""What is released for one request, and the parts of the records that say so."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

from ullage.log.record import ClosePart, Outcome, Part
from ullage.tap.choice import Choice
from ullage.tap.request import CompletionRequest
from ullage.tap.response import DONE, Answer, Envelope, Issued


class Reply:
    """The released bytes of one request. Every method that returns bytes returns the parts that must be
    durable before those bytes leave; the parts must be appended without a wait in between.
    """

    def __init__(self, request: CompletionRequest, choices: list[Choice], envelope: Envelope) -> None:
        self.request = request
        self.choices = choices
        self._envelope = envelope
        self._digest = hashlib.sha256()

    @property
    def _issued(self) -> list[Issued]:
        return [Issued(choice.record.counter, choice.record.seed) for choice in self.choices]

    def complete_plain(self) -> tuple[bytes, list[Part]]:
        """The body of a plain response and the closes that must be durable before it is sent."""
        outputs = [choice.flush() for choice in self.choices]
        answers = [
            Answer(text, choice.finish_reason, len(ids))
            for choice, (ids, text) in zip(self.choices, outputs, strict=True)
        ]
        body = self._envelope.body(answers, self._issued)
        self._digest.update(body)
        self.choices[0].record.bytes_to_client += len(body)
        return body, [
            self._close(choice, "complete", output_ids=ids)
            for choice, (ids, _) in zip(self.choices, outputs, strict=True)
        ]

    def next_chunks(self) -> tuple[bytes, list[Part]]:
        """Events for the text that waits, and a chunk part for each; nothing while all text is held back."""
        released: list[bytes] = []
        parts: list[Part] = []
        for choice in self.choices:
            if choice.pending_text:
                ids, text = choice.flush()
                event = self._text_event(choice, text)
                released.append(event)
                parts.append(choice.record.chunk(ids, event))
        data = b"".join(released)
        self._digest.update(data)
        return data, parts

    def complete_stream(self) -> tuple[bytes, list[Part]]:
        """The last bytes of a stream, with the last chunk and the close of every choice."""
        last = self.choices[-1]
        closing_usage = self.request.include_usage
        released: list[bytes] = []
        parts: list[Part] = []
        for choice in self.choices:
            ids, text = choice.flush()
            data = self._text_event(choice, text) if text else b""
            issued = self._issued if choice is last and not closing_usage else None
            first = not choice.text_begun
            data += self._envelope.finish_event(
                choice.index, choice.finish_reason, first=first, issued=issued
            )
            if ids:
                parts.append(choice.record.chunk(ids, data))
            else:
                choice.record.bytes_to_client += len(data)
            released.append(data)
        tail = DONE
        if closing_usage:
            tokens = sum(len(choice.transcript.ids) for choice in self.choices)
            tail = self._envelope.usage_event(tokens, self._issued) + DONE
        last.record.bytes_to_client += len(tail)
        data = b"".join(released) + tail
        self._digest.update(data)
        return data, [*parts, *(self._close(choice, "complete") for choice in self.choices)]

    def closes_of_failure(self, data: bytes) -> list[Part]:
        """Closes after an upstream's fault; `data` is the error that will be sent."""
        self._digest.update(data)
        failed = [choice for choice in self.choices if choice.error is not None]
        failed[0].record.bytes_to_client += len(data)
        parts: list[Part] = []
        for choice in self.choices:
            error = choice.error
            if error is None:
                parts.append(self._close(choice, "refused", detail="another choice of this request failed"))
            else:
                outcome: Outcome = "refused" if error.refused else "upstream-failed"
                parts.append(self._close(choice, outcome, detail=error.detail))
        return parts

    def closes_of_gone(self) -> list[Part]:
        """Closes of what is still open after the client has hung up."""
        return [self._close(choice, "client-gone") for choice in self._open()]

    def closes_of_abort(self, detail: str) -> list[Part]:
        """Closes of what is still open when the tap itself ends: how much was sent is not known."""
        return [
            ClosePart(
                bytes_from_upstream=None,
                bytes_to_client=None,
                bytes_to_upstream=None,
                counter=choice.record.counter,
                detail=detail,
                finish_reason=None,
                outcome="aborted",
                output_ids=tuple(choice.record.output_ids),
                released_digest=None,
                time_closed=time.time_ns(),
            )
            for choice in self._open()
        ]

    def _open(self) -> list[Choice]:
        return [choice for choice in self.choices if not choice.record.closed]

    def _text_event(self, choice: Choice, text: str) -> bytes:
        first, choice.text_begun = not choice.text_begun, True
        return self._envelope.text_event(choice.index, text, first=first)

    def _close(
        self, choice: Choice, outcome: Outcome, output_ids: Sequence[int] | None = None, detail: str = ""
    ) -> ClosePart:
        return choice.record.close(
            outcome,
            "sha256:" + self._digest.hexdigest(),
            choice.traffic,
            output_ids=output_ids,
            finish_reason=choice.finish_reason if outcome == "complete" else None,
            fingerprint=choice.fingerprint,
            detail=detail or choice.detail,
        )
