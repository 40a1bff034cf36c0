"""In what form the server's tokens come over its link to the tap.

An event a token costs about 250 bytes a token on the link. The tap makes its own streams, so that it may ask
for larger pieces, or for the whole answer, whatever the client asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Form = Literal["events", "chunks", "whole"]

CHUNK_TOKENS = 32


@dataclass(frozen=True)
class Link:
    """`events`: as the server likes; `chunks`: pieces of `tokens` tokens; `whole`: one answer, no stream.

    `logprobs`: token ids are asked for as part of log-probabilities, for servers that know no other way.
    """

    form: Form = "events"
    tokens: int = CHUNK_TOKENS
    logprobs: bool = False

    @property
    def interval(self) -> int:
        """Tokens a piece that the server is asked for; 0: as it likes."""
        return self.tokens if self.form == "chunks" else 0


DEFAULT_LINK = Link()
