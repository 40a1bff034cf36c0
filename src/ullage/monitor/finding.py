"""What the monitor says about a text: findings, and how many bits nobody has explained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# A payload that was read to its end: its bits are explained by what they say.
READ = frozenset({"text"})
# A payload that is only a wrapping: what counts is what was inside.
WRAPPINGS = frozenset({"gzip", "zlib", "bzip2", "xz"})


@dataclass(frozen=True, slots=True)
class Finding:
    """A payload under one layer of encoding.

    `start` and `end` are offsets into the UTF-8 bytes of the text that was scanned; a finding inside a
    decoded payload (`depth` > 0) has those of the outermost layer. `payload_bits` is what the layer carries.
    """

    encoding: str
    depth: int
    start: int
    end: int
    payload_bits: int
    kind: str

    def document(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "encoding": self.encoding,
            "depth": self.depth,
            "start": self.start,
            "end": self.end,
            "payload_bits": self.payload_bits,
            "kind": self.kind,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All findings of a text in order of place and depth, the bytes scanned, and the bits unexplained.

    `unlisted` is how many findings were counted and not kept, beyond the limit.
    """

    findings: tuple[Finding, ...]
    unexplained_bits: int
    bytes_scanned: int
    unlisted: int = 0

    @property
    def payload_bits(self) -> int:
        """Bits carried by all outermost findings that are kept, read or not."""
        return sum(one.payload_bits for one in self.findings if one.depth == 0)

    def document(self) -> dict[str, object]:
        """What `ullage scan --json` prints."""
        return {
            "findings": [one.document() for one in self.findings],
            "unexplained_bits": self.unexplained_bits,
        }


@dataclass(frozen=True, slots=True)
class Seen:
    """What one text of an answer held: its payload bits, and what was found as `encoding/kind`, sorted."""

    bits: int
    kinds: tuple[str, ...]


def outer_bits(findings: Iterable[Finding]) -> list[tuple[Finding, int]]:
    """Each outermost finding with the bits of it that nobody has explained.

    One that decodes to text with nothing hidden in it is explained; one that holds a further payload counts
    with its innermost unread layer. `findings` in the order of a report.
    """
    groups: list[tuple[Finding, list[Finding]]] = []
    for one in findings:
        if one.depth == 0:
            groups.append((one, []))
        elif groups:
            groups[-1][1].append(one)
    return [(outer, _bits_of(outer, inner)) for outer, inner in groups]


def unexplained_bits(findings: Iterable[Finding]) -> int:
    """Bits of all outermost findings that nobody has explained."""
    return sum(bits for _, bits in outer_bits(findings))


def _bits_of(outer: Finding, inner: list[Finding]) -> int:
    is_opened = outer.kind in READ or (outer.kind in WRAPPINGS and bool(inner))
    if not is_opened:
        return outer.payload_bits
    unread = (one.payload_bits for one in inner if one.kind not in READ | WRAPPINGS)
    return min(outer.payload_bits, sum(unread))
