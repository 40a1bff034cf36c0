"""One choice under enforcement: what `choice.pull` is for a tap that believes its server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from ullage.enforce.accounting import Tally
from ullage.enforce.protocol import FinishReason
from ullage.tap.choices.choice import Choice, read_to_the_end
from ullage.tap.choices.draft import DEFAULT_REPLACEMENTS, UpstreamDrafts, enforced
from ullage.tap.choices.enforcement import EnforcedRequest, EnforcerClient, EnforcerError
from ullage.tap.choices.text_drafts import TextDrafts
from ullage.tap.choices.tokens import Tokenizer
from ullage.tap.clients.request import CompletionRequest
from ullage.tap.failures import Failure, UpstreamError
from ullage.tap.pacing.enforced import Piece, Slots, Watch, slotted
from ullage.tap.tell import tell_operator
from ullage.tap.upstream.answer import Delta
from ullage.tap.upstream.connections import Traffic, Upstream
from ullage.tap.upstream.link import DEFAULT_LINK, Link


@dataclass(frozen=True)
class Enforcement:
    """How the tap enforces.

    `slot` is in seconds, 0 for release as soon as a token is checked; a slot carries `slot_tokens` tokens,
    and drafts for it count until half a slot before it. `continues` is False for profiles whose noise
    depends on a token's step in its request, so that a server cannot go on from a corrected prefix.
    `text_of` is the tokenizer for a server that gives text and no token ids, else None; `link` says how
    drafts come.
    """

    client: EnforcerClient
    replacements: int = DEFAULT_REPLACEMENTS
    continues: bool = True
    slot: float = 0.0
    slot_tokens: int = 32
    watch: Watch = field(default_factory=lambda: Watch(tell_operator))
    text_of: Tokenizer | None = None
    link: Link = DEFAULT_LINK

    def drafts(
        self, request: CompletionRequest, seed: int, upstream: Upstream, model: str | None, traffic: Traffic
    ) -> UpstreamDrafts | TextDrafts:
        """Where the drafts of one output come from."""
        if self.text_of is None:
            return UpstreamDrafts(request, seed, upstream, model, traffic, link=self.link)
        return TextDrafts(request, upstream, model, traffic, self.text_of)


async def pull_enforced(  # noqa: PLR0917 - as `choice.pull`, and how to enforce
    choice: Choice,
    request: CompletionRequest,
    enforcement: Enforcement,
    upstream: Upstream,
    upstream_model: str | None,
    progress: Callable[[], None],
) -> None:
    """Feed a choice's transcript with the reference's own tokens; `choice.detail` says what became of drafts.

    Whatever the upstream does, the output is the same; only a lost enforcer ends it. On a journaled link
    drafts are read to their end even if this is cancelled, as in `choice.pull`. Raises UpstreamError, which
    it also leaves in `choice.error`.
    """
    await read_to_the_end(
        choice, upstream, _pull_enforced(choice, request, enforcement, upstream, upstream_model, progress)
    )


async def _pull_enforced(  # noqa: PLR0917 - as `pull_enforced`
    choice: Choice,
    request: CompletionRequest,
    enforcement: Enforcement,
    upstream: Upstream,
    upstream_model: str | None,
    progress: Callable[[], None],
) -> None:
    seed = choice.record.seed
    watch = enforcement.watch
    tally = Tally(failure="no drafts, since the lateness budget is spent" if watch.spent else "")
    drafts = enforcement.drafts(request, seed, upstream, upstream_model, choice.traffic)
    opened: EnforcedRequest | None = None
    slots: Slots | None = None
    if enforcement.slot:
        begun = asyncio.get_running_loop().time()
        slots = Slots(enforcement.slot, enforcement.slot_tokens, begun, watch)
    try:
        opened = await enforcement.client.begin(
            request.prompt_ids,
            seed=seed,
            temperature=float(request.temperature),
            top_p=float(request.top_p),
            top_k=request.top_k,
            max_tokens=request.max_tokens,
            stop=request.stop,
        )
        async with contextlib.aclosing(_pieces(opened, drafts, tally, enforcement, slots)) as pieces:
            async for ids, reason in pieces:
                if slots is not None:
                    tally.slots, tally.late = slots.released, slots.late
                choice.take(Delta(list(ids), None, drafts.fingerprint))
                _agree(reason, choice)
                choice.detail = tally.sentence()
                progress()
    except asyncio.CancelledError:
        if slots is not None:
            slots.left()
            tally.slots, tally.late = slots.released, slots.late
            choice.detail = tally.sentence()
        raise
    except EnforcerError as error:
        tally.failure = str(error)
        choice.error = UpstreamError(Failure.ENFORCER_UNAVAILABLE, tally.sentence(), refused=True)
        raise choice.error from error
    except UpstreamError as error:
        choice.error = error
        raise
    finally:
        if opened is not None:
            opened.close()


def _pieces(
    opened: EnforcedRequest,
    drafts: UpstreamDrafts | TextDrafts,
    tally: Tally,
    enforcement: Enforcement,
    slots: Slots | None,
) -> AsyncGenerator[Piece]:
    """The reference's tokens, in slots if there are any."""
    pieces = enforced(
        opened,
        drafts,
        tally,
        replacements=enforcement.replacements,
        continues=enforcement.continues,
        deadline=lambda: slots.deadline(opened.step) if slots is not None else None,
    )
    return pieces if slots is None else slotted(pieces, slots)


def _agree(reason: FinishReason | None, choice: Choice) -> None:
    if reason != choice.transcript.finish_reason:
        raise EnforcerError("The enforcer and the tap disagree on where the output ends.")
