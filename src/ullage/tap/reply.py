"""What is released for one request, and the parts of the records that say so."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

from ullage.log.record import ClosePart, Outcome, Part
from ullage.tap.choices.choice import Choice
from ullage.tap.clients.padding import pad_body, pad_events
from ullage.tap.clients.request import CompletionRequest
from ullage.tap.clients.response import DONE, Answer, Envelope, Issued
from ullage.tap.failures import UpstreamError
from ullage.tap.pacing.schedule import Schedule


class Reply:
    """The released bytes of one request. Every method that returns bytes returns the parts that must be
    durable before those bytes leave; the parts must be appended without a wait in between.
    """

    def __init__(
        self,
        request: CompletionRequest,
        choices: list[Choice],
        envelope: Envelope,
        schedule: Schedule | None = None,
    ) -> None:
        """`schedule`: the slots of the request, None where answers leave at once."""
        self.request = request
        self.choices = choices
        self.schedule = schedule
        self._envelope = envelope
        self._digest = hashlib.sha256()

    @property
    def _issued(self) -> list[Issued]:
        return [Issued(choice.record.counter, choice.record.seed) for choice in self.choices]

    def complete_plain(self, multiple: int = 1) -> tuple[bytes, list[Part]]:
        """The body of a plain response, padded to a multiple of so many bytes, and the closes that must be
        durable before it is sent.
        """
        outputs = [choice.flush() for choice in self.choices]
        answers = [
            Answer(text, choice.finish_reason, len(ids))
            for choice, (ids, text) in zip(self.choices, outputs, strict=True)
        ]
        body = pad_body(self._envelope.body(answers, self._issued), multiple)
        self._digest.update(body)
        self.choices[0].record.bytes_to_client += len(body)
        return body, [
            self._close(choice, "complete", output_ids=ids)
            for choice, (ids, _) in zip(self.choices, outputs, strict=True)
        ]

    def next_chunks(self) -> tuple[list[bytes], list[Part]]:
        """An event for every token that made text, and a chunk part for each choice that has any.

        Where events are cut is a function of the tokens. What arrived together leaves together.
        """
        events: list[bytes] = []
        parts: list[Part] = []
        for choice in self.choices:
            ids, texts = choice.flush_text()
            if texts:
                fresh = [self._text_event(choice, text) for text in texts]
                events += fresh
                parts.append(choice.record.chunk(ids, b"".join(fresh)))
        self._digest.update(b"".join(events))
        return events, parts

    def complete_stream(self) -> tuple[list[bytes], list[Part]]:
        """The last events of a stream, with the last chunk and the close of every choice."""
        events: list[bytes] = []
        parts: list[Part] = []
        for choice in self.choices:
            ids, texts = choice.flush_text(ended=True)
            fresh = [self._text_event(choice, text) for text in texts]
            fresh.append(self._finish_event(choice))
            events += fresh
            self._describe(choice, ids, b"".join(fresh), parts)
        tail = self._tail()
        self.choices[-1].record.bytes_to_client += len(b"".join(tail))
        events += tail
        self._digest.update(b"".join(events))
        return events, [*parts, *(self._close(choice, "complete") for choice in self.choices)]

    def slot_chunk(self, tokens: int, multiple: int, *, last: bool) -> tuple[bytes, list[Part]]:
        """What leaves at one slot of a stream: the next `tokens` tokens of every choice, padded.

        `last` adds what ends the stream. The padding, and an end that has no tokens, count for the last
        choice.
        """
        released = b""
        of_choice: list[tuple[Choice, list[int], bytes]] = []
        for choice in self.choices:
            ids, text = choice.flush(tokens)
            data = self._text_event(choice, text) if text else b""
            if last:
                data += self._finish_event(choice)
            released += data
            of_choice.append((choice, ids, data))
        tail = b"".join(self._tail()) if last else b""
        padded = pad_events(released + tail, multiple)
        padding = padded[: len(padded) - len(released) - len(tail)]
        parts: list[Part] = []
        for position, (choice, ids, data) in enumerate(of_choice):
            ours = (padding if position == 0 else b"") + data
            if position == len(of_choice) - 1:
                ours += tail
            if ids or ours:  # tokens without text, as an EOS alone, are part of the record all the same
                parts.append(choice.record.chunk(ids, ours))
        self._digest.update(padded)
        if last:
            parts += [self._close(choice, "complete") for choice in self.choices]
        return padded, parts

    def closes_of_failure(self, error: UpstreamError, data: bytes) -> list[Part]:
        """Closes after an upstream's fault; `data` is what will be sent of it.

        A fault that no pull has met, as an answer later than the last slot, is that of the choices that have
        not ended, or of the first.
        """
        if not any(choice.error for choice in self.choices):
            unended = [choice for choice in self.choices if choice.transcript.finish_reason is None]
            for choice in unended or self.choices[:1]:
                choice.error = error
        self._digest.update(data)
        failed = [choice for choice in self.choices if choice.error is not None]
        failed[0].record.bytes_to_client += len(data)
        parts: list[Part] = []
        for choice in self.choices:
            own = choice.error
            if own is None:
                parts.append(self._close(choice, "refused", detail="another choice of this request failed"))
            else:
                outcome: Outcome = "refused" if own.refused else "upstream-failed"
                parts.append(self._close(choice, outcome, detail=own.detail))
        return parts

    def closes_of_gone(self, *, received: bool = False) -> list[Part]:
        """Closes of what is still open after the client has hung up.

        The output is what was released, or with `received` what the server has sent: in a stream the rest of
        it is a last chunk without bytes.
        """
        parts: list[Part] = []
        for choice in self._open():
            ids, _ = choice.flush() if received else ([], "")
            if ids and self.request.stream:
                parts.append(choice.record.chunk(ids, b""))
            plain = ids if received and not self.request.stream else None
            parts.append(self._close(choice, "client-gone", output_ids=plain))
        return parts

    def closes_of_abort(self, detail: str) -> list[Part]:
        """Closes of what is still open when the tap itself ends: how much was sent is not known.

        What a choice has to say of itself so far stays: its late slots have been seen.
        """
        return [
            ClosePart(
                bytes_from_upstream=None,
                bytes_to_client=None,
                bytes_to_upstream=None,
                counter=choice.record.counter,
                detail=self._detail("; ".join(part for part in (choice.detail, detail) if part)),
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

    def _describe(self, choice: Choice, ids: list[int], data: bytes, parts: list[Part]) -> None:
        """A chunk part where there are tokens; bytes without any are counted by the close."""
        if ids:
            parts.append(choice.record.chunk(ids, data))
        else:
            choice.record.bytes_to_client += len(data)

    def _finish_event(self, choice: Choice) -> bytes:
        is_last = choice is self.choices[-1] and not self.request.include_usage
        return self._envelope.finish_event(
            choice.index,
            choice.finish_reason,
            first=not choice.text_begun,
            issued=self._issued if is_last else None,
        )

    def _tail(self) -> list[bytes]:
        if not self.request.include_usage:
            return [DONE]
        tokens = sum(len(choice.transcript.ids) for choice in self.choices)
        return [self._envelope.usage_event(tokens, self._issued), DONE]

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
            detail=self._detail(detail or choice.detail),
        )

    def _detail(self, detail: str) -> str:
        """Lateness stands in every close: what a client has seen of it counts, whatever came after."""
        late = "" if self.schedule is None else self.schedule.sentence()
        return "; ".join(part for part in (late, detail) if part)
