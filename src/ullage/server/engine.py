"""Continuous batching: one thread that owns the model and steps all rows together.

Measured beside transformers' own continuous batching by `benchmarks/serving.py`; the figures and the
choice that follows from them are in `docs/serving.md`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ullage.errors import FaultError, UllageError
from ullage.model.tokenizer import ModelTokenizer
from ullage.sampling.transcript import Transcript
from ullage.server.batch import ModelBatch
from ullage.server.cache import SlotCache
from ullage.server.chooser import TokenChooser
from ullage.server.rows import Failure, Limits, Output, Row, TokenLogprobs
from ullage.server.threads import ThreadTuner

_LOGGER = logging.getLogger("ullage.server")

# Tokens prefilled between two decoding steps: what the running rows wait for at most.
_PREFILL_TOKENS = 1024

Sink = Callable[[Output | Failure], None]


@dataclass(eq=False)
class Ticket:
    """A row on its way through the engine."""

    row: Row
    limits: Limits
    sink: Sink
    loop: asyncio.AbstractEventLoop | None
    transcript: Transcript
    cancelled: bool = False


class Engine:
    """Runs rows to their end on a thread of its own.

    `model` is loaded by the caller, who may have altered it; `chooser` picks the tokens. `threads` are the
    most CPU threads of one matrix product.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: ModelTokenizer,
        chooser: TokenChooser,
        max_batch: int = 32,
        threads: int = 2,
    ) -> None:
        self.tokenizer = tokenizer
        self._chooser = chooser
        self._max_batch = max_batch
        self._tuner = ThreadTuner(threads)
        batch = ModelBatch(model, max_batch, tokenizer.context_length)
        self._batch: ModelBatch | None = batch
        self.context_length = batch.context_length
        self._waiting: deque[Ticket] = deque()
        self._active: list[Ticket] = []  # index = slot in the batch
        self._outbox: list[tuple[Ticket, Output | Failure]] = []
        self._wake = threading.Condition()
        self._stopping = False
        self._paused = False
        self._parked = False  # paused, and no row is left in the batch
        self._frozen_until: float | None = None  # time.monotonic() at which a freeze ends by itself
        self._frozen = False
        self._closed: str | None = None  # why nothing may be submitted while paused
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """End the thread after its current step; rows still in the batch fail."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def occupancy(self) -> tuple[int, int]:
        """Rows in the batch, rows waiting."""
        return len(self._active), len(self._waiting)

    def submit(
        self, row: Row, limits: Limits, sink: Sink, loop: asyncio.AbstractEventLoop | None = None
    ) -> Ticket:
        """Queue a row. `sink` gets every output and at last a finish reason or a Failure.

        It is called in `loop` when one is given, else in the engine's thread. The caller has checked that the
        prompt has tokens of the vocabulary and fits the context with `max_tokens`. Raises FaultError when the
        engine has stopped.
        """
        most = min(limits.max_tokens, self.context_length - len(row.prompt_ids))
        ticket = Ticket(row, limits, sink, loop, Transcript(self.tokenizer, limits.stop, most))
        with self._wake:
            if self._stopping:
                raise FaultError("The server is shutting down.")
            if self._closed:
                raise FaultError(self._closed)
            self._waiting.append(ticket)
            self._wake.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Take a row out of the batch before the next step; its sink hears nothing more. Idempotent."""
        with self._wake:
            ticket.cancelled = True
            self._wake.notify()

    def pause(self, timeout: float) -> None:
        """Let the rows in the batch end, then drop model and key-value memory; new rows wait in the queue.

        Raises FaultError, and goes on serving, when they take longer than `timeout` seconds. Idempotent.
        """
        with self._wake:
            self._paused = True
            self._wake.notify_all()
            if not self._wake.wait_for(lambda: self._parked or self._stopping, timeout):
                self._paused = False
                self._wake.notify_all()
                raise FaultError(f"Requests in flight did not end within {timeout:.0f} seconds.")
            self._batch = None

    def freeze(self, seconds: float) -> None:
        """Hold everything still between two steps, until `thaw` or for `seconds`.

        Raises FaultError when a step takes longer than that.
        """
        with self._wake:
            self._frozen_until = time.monotonic() + seconds
            self._wake.notify_all()
            if not self._wake.wait_for(lambda: self._frozen or self._stopping, seconds):
                self._frozen_until = None
                raise FaultError(f"A step of the model did not end within {seconds:.0f} seconds.")

    def thaw(self) -> bool:
        """Go on; whether it was still frozen. Idempotent."""
        with self._wake:
            was, self._frozen_until = self._frozen and self._frozen_until is not None, None
            self._wake.notify_all()
            return was

    @property
    def cache_in_memory(self) -> SlotCache | None:
        """The key-value memory, at any moment; what it holds stands still only while frozen."""
        batch = self._batch
        return batch.cache if batch else None

    def rows_in_memory(self) -> list[list[int]]:
        """While frozen or paused: the tokens that each slot of the key-value memory stands for."""
        batch = self._batch
        if batch is None:
            return []
        rows = [ticket.row for ticket in self._active]
        lengths = batch.cache.lengths
        return [
            [*row.prompt_ids, *row.output_ids][:length] for row, length in zip(rows, lengths, strict=True)
        ]

    def close_queue(self, why: str) -> None:
        """While paused: fail what waits, and refuse new rows with this sentence until `resume`."""
        with self._wake:
            self._closed = why
            waiting, self._waiting = list(self._waiting), deque()
        self._outbox += [(ticket, Failure(why)) for ticket in waiting]
        self._deliver()

    def resume(self, model: Any) -> None:
        """Serve again with this model, which is as the first one was."""
        batch = ModelBatch(model, self._max_batch, self.tokenizer.context_length)
        with self._wake:
            self._batch = batch
            self._paused, self._closed = False, None
            self._wake.notify_all()

    def _run(self) -> None:
        with torch.inference_mode():
            while self._await_work():
                try:
                    self._step()
                except Exception as error:
                    # The model or the chooser broke. Nothing of this batch can be trusted: its requests end
                    # with an error, and the next ones find an empty batch.
                    reason = f"{type(error).__name__}: {error}"
                    _LOGGER.critical("a step failed, its requests get an error: %s", reason)
                    self._fail_all(f"The model could not compute this step ({type(error).__name__}).")
                self._deliver()
            self._fail_all("The server is shutting down.")
            self._deliver()

    def _await_work(self) -> bool:
        with self._wake:
            self._wake.wait_for(self._has_work)
            while self._frozen_until is not None and not self._stopping:
                self._sit_frozen(self._frozen_until - time.monotonic())
                self._wake.wait_for(self._has_work)
            return not self._stopping

    def _sit_frozen(self, seconds: float) -> None:
        self._frozen = True
        self._wake.notify_all()
        self._wake.wait_for(lambda: self._frozen_until is None or self._stopping, max(0.0, seconds))
        self._frozen, self._frozen_until = False, None

    def _has_work(self) -> bool:
        if self._frozen_until is not None:
            return True
        self._parked = self._paused and not self._active
        if self._parked:
            self._wake.notify_all()
        return bool(self._stopping or self._active or (self._waiting and not self._parked))

    @property
    def _running(self) -> ModelBatch:
        if self._batch is None:
            raise FaultError("The server's memory is being erased.")
        return self._batch

    def _step(self) -> None:
        for slot in range(len(self._active) - 1, -1, -1):
            if self._active[slot].cancelled:
                self._release(slot)
        if joining := self._take_joining():
            self._active.extend(joining)
            self._advance(self._running.prefill([ticket.row.prompt_ids for ticket in joining]), joining)
        if self._active:
            self._advance(self._decode(), list(self._active))

    def _decode(self) -> torch.Tensor:
        tokens = [ticket.row.output_ids[-1] for ticket in self._active]
        self._tuner.apply(len(tokens))
        start = time.perf_counter()
        logits = self._running.decode(tokens)
        self._tuner.record(len(tokens), time.perf_counter() - start)
        return logits

    def _take_joining(self) -> list[Ticket]:
        """Waiting rows that get a slot now: first come, first served, within one prefill's budget."""
        joining: list[Ticket] = []
        longest = 0
        with self._wake:
            while not self._paused and self._waiting and len(self._active) + len(joining) < self._max_batch:
                ticket = self._waiting[0]
                longest = max(longest, len(ticket.row.prompt_ids))
                if not ticket.cancelled:
                    if joining and longest * (len(joining) + 1) > _PREFILL_TOKENS:
                        break
                    joining.append(ticket)
                self._waiting.popleft()
        return joining

    def _advance(self, logits: torch.Tensor, tickets: Sequence[Ticket]) -> None:
        """Choose a token for each row from `logits` (B, V), tell its sink, and release the rows that end."""
        chosen = self._chooser.choose(logits, [ticket.row for ticket in tickets])
        logprobs = self._logprobs(logits, chosen, tickets)
        ended: list[Ticket] = []
        for ticket, token, logprob in zip(tickets, chosen, logprobs, strict=True):
            output = self._output(ticket, int(token), logprob)
            self._outbox.append((ticket, output))
            if output.finish_reason:
                ended.append(ticket)
        for ticket in ended:
            self._release(self._active.index(ticket))

    @staticmethod
    def _output(ticket: Ticket, token: int, logprobs: TokenLogprobs | None) -> Output:
        ticket.row.output_ids.append(token)
        text = ticket.transcript.feed((token,))
        return Output(token, text, logprobs, ticket.transcript.finish_reason)

    @staticmethod
    def _logprobs(
        logits: torch.Tensor, chosen: Sequence[int], tickets: Sequence[Ticket]
    ) -> list[TokenLogprobs | None]:
        found: list[TokenLogprobs | None] = [None] * len(tickets)
        for index, ticket in enumerate(tickets):
            count = ticket.limits.top_logprobs
            if count is not None:
                row = torch.log_softmax(logits[index], dim=-1)
                values, ids = torch.topk(row, count)
                top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
                found[index] = TokenLogprobs(float(row[chosen[index]]), top)
        return found

    def _release(self, slot: int) -> None:
        ticket = self._active[slot]
        self._running.release(slot)
        self._active[slot] = self._active[-1]
        self._active.pop()
        self._chooser.finished(ticket.row)

    def _fail_all(self, message: str) -> None:
        with self._wake:
            tickets = [*self._active, *self._waiting] if self._stopping else list(self._active)
            if self._stopping:
                self._waiting.clear()
        for ticket in tickets:
            self._outbox.append((ticket, Failure(message)))
        self._active.clear()
        while self._batch is not None and self._batch.rows:
            self._batch.release(self._batch.rows - 1)
        for ticket in tickets:
            self._forget(ticket.row)

    def _forget(self, row: Row) -> None:
        try:
            self._chooser.finished(row)
        except (UllageError, KeyError, ValueError) as error:
            _LOGGER.warning("the chooser could not forget row %s: %s", row.request_id, error)

    def _deliver(self) -> None:
        """Hand this step's outputs over, with one wake-up for each event loop."""
        outbox, self._outbox = self._outbox, []
        by_loop: dict[asyncio.AbstractEventLoop | None, list[tuple[Ticket, Output | Failure]]] = {}
        for ticket, output in outbox:
            by_loop.setdefault(ticket.loop, []).append((ticket, output))
        for loop, outputs in by_loop.items():
            if loop is None:
                _hand_over(outputs)
            elif not loop.is_closed():
                try:
                    loop.call_soon_threadsafe(_hand_over, outputs)
                except RuntimeError:  # closed in between: nobody listens any more
                    _LOGGER.debug("an event loop closed before its outputs came")


def _hand_over(outputs: Sequence[tuple[Ticket, Output | Failure]]) -> None:
    for ticket, output in outputs:
        if not ticket.cancelled:
            ticket.sink(output)
