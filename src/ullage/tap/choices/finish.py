"""Where an output ends, decided by the tap from the token ids alone.

What the upstream says of its reasons is not looked at; the rule is `ullage.sampling.transcript`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

from ullage.errors import MalformedError
from ullage.sampling import transcript
from ullage.sampling.transcript import FinishReason
from ullage.tap.failures import Failure, UpstreamError

__all__ = ["FinishReason", "Transcript"]


class Transcript(transcript.Transcript):
    """The output of one choice as it grows; what the rule forbids is the upstream's fault."""

    def feed(self, ids: Sequence[int]) -> str:
        """Add tokens; returns the text that they make releasable.

        Raises UpstreamError for ids outside the vocabulary and for tokens after the end.
        """
        try:
            return super().feed(ids)
        except MalformedError as error:
            raise UpstreamError(Failure.UPSTREAM_INVALID, str(error)) from error
