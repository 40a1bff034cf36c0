"""Token ids that the tokenizer would not have made of their own text.

A text can be spelled by many sequences of tokens, and the choice among them carries bits that the text does
not show. Such an output is not forbidden, since honest sampling makes some; it is flagged in its record and
counted, and the audit's bound is over tokens, so it covers the choice.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from ullage.tap.choices.tokens import Tokenizer

_LONGEST_CHARACTER = 4  # bytes of UTF-8, so at most as many tokens


class CanonicalSpelling:
    """Compares outputs with what the tokenizer makes of their text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        frame = tokenizer.encode("")  # special tokens that belong to every prompt, not to the text
        self._prefix = len(frame)
        self._eos: Set[int] = tokenizer.eos_ids

    def departs_at(self, ids: Sequence[int]) -> int | None:
        """The first position at which the ids are not the tokenizer's; None where they are.

        The end of text is left out. The tokenizer sees the output without its prompt, so a first token that
        only follows from the prompt's end may be flagged as well.
        """
        output = list(ids[:-1]) if ids and ids[-1] in self._eos else list(ids)
        text = self._tokenizer.decode(output)
        for _ in range(_LONGEST_CHARACTER):  # an output cut within a character has no spelling there
            if not text.endswith("\N{REPLACEMENT CHARACTER}"):
                break
            del output[-1:]
            text = self._tokenizer.decode(output)
        if not output:
            return None
        spelled = self._tokenizer.encode(text)[self._prefix :]
        if spelled == output:
            return None
        same = (position for position, (a, b) in enumerate(zip(output, spelled, strict=False)) if a != b)
        return next(same, min(len(output), len(spelled)))
