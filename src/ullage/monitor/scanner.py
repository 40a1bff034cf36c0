"""Find, decode, recognise, and look again inside: one text in, one report out. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from ullage.monitor import recognise
from ullage.monitor.alphabets import GRAPH, GROUPS
from ullage.monitor.decoders import AROUND, decodings, in_groups
from ullage.monitor.drawn import is_list, is_written, looks_drawn, mixes_letters
from ullage.monitor.escapes import find_escaped
from ullage.monitor.finding import READ, Finding, Report, unexplained_bits
from ullage.monitor.inflate import Inflated, inflate
from ullage.monitor.invisible import find_invisible
from ullage.monitor.joined import pieces
from ullage.monitor.limits import DEFAULT, Limits
from ullage.monitor.marked import LEAST_ANNOUNCED, find_announced, find_marked, label_of
from ullage.monitor.natural import cumulative_costs
from ullage.monitor.runs import Run, Scored, graph_runs, hex_runs, passing, word_runs
from ullage.monitor.scattered import READABLE_BITS, find_scattered, gains, mixed_case_gains
from ullage.monitor.shifted import find_shifted
from ullage.monitor.thresholds import Thresholds, fitted

_SYMBOLS: Final = {"hex": 16, "decimal": 10, "base32": 32, "lower": 26, "upper": 26, "ascii85": 85}
_MOST_PARTS: Final = 256
_SHARE_OF_WORDS: Final = 0.7
_SHARE_IN_GROUPS: Final = 0.4
_MOST_GROUPED: Final = 320  # letters
_ENOUGH: Final = 4096  # letters, whole groups in every alphabet but base85
_LEAST_SIGNS: Final = 8  # different ones in a text that says something
_LEAST_TEXT: Final = 8  # bytes of decoded text that make a decoding believable
_NOT_DECODED: Final = frozenset({"decimal"})
Recogniser = Callable[[bytes], str | None]


@dataclass
class _Scan:
    """What one scan has used up."""

    limits: Limits
    thresholds: Thresholds
    recogniser: Recogniser | None
    decoded: int = 0
    unlisted: int = 0
    unlisted_bits: int = 0
    findings: list[Finding] = field(default_factory=list)

    def keep(self, finding: Finding) -> None:
        if len(self.findings) < self.limits.findings:
            self.findings.append(finding)
        else:
            self.unlisted += 1
            self.unlisted_bits += finding.payload_bits if finding.depth == 0 else 0

    @property
    def room(self) -> int:
        return max(0, self.limits.decoded_bytes - self.decoded)


@dataclass(frozen=True)
class Layer:
    """A payload that was found: where, under what, how many bits, and its bytes where it decodes."""

    encoding: str
    start: int
    end: int
    bits: int
    payload: bytes | None
    kind: str | None = None


def scan(
    text: str | bytes,
    limits: Limits = DEFAULT,
    *,
    thresholds: Thresholds | None = None,
    recogniser: Recogniser | None = None,
) -> Report:
    """Scan a text of at most a few MiB; longer ones go through `ullage.monitor.stream`.

    `recogniser` may name payloads that only the caller knows (pieces of the declared model). Half surrogate
    pairs and invalid UTF-8 are looked at as the bytes they are.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    state = _Scan(limits, thresholds or fitted(), recogniser)
    for layer in layers(data, state.thresholds):
        _open(state, layer, 0, (layer.start, layer.end))
    findings = tuple(state.findings)
    bits = unexplained_bits(findings) + state.unlisted_bits
    return Report(findings, bits, len(data), state.unlisted)


def _open(state: _Scan, layer: Layer, depth: int, span: tuple[int, int]) -> None:
    """Note a finding, then look inside its payload, decompressing within the limits."""
    payload = layer.payload
    kind = layer.kind or recognise.RANDOM
    inside: bytes | None = None
    if payload is not None:
        state.decoded += len(payload)
        named = state.recogniser(payload) if state.recogniser else None
        seen = recognise.recognise(payload)
        kind = named or (layer.kind if layer.kind and seen == recognise.RANDOM else seen)
        kind = layer.kind if layer.kind in ("private-key", "jwt", "uuid") else kind
        inside = payload if seen == recognise.TEXT else None
    stream = inflate(payload, 1) if payload is not None else None
    if stream is not None and kind == recognise.RANDOM:
        kind = stream.format
    state.keep(Finding(layer.encoding, depth, span[0], span[1], layer.bits, kind))
    if payload is None:
        return
    if depth + 1 >= state.limits.depth or not state.room:
        if inside is not None or stream is not None:
            why = "too-deep" if state.room else "decoding-limit"
            state.keep(Finding("limit", depth + 1, span[0], span[1], 8 * len(payload), why))
        return
    inflated = inflate(payload, min(state.room, 8 << 20))
    if inflated is not None:
        _open_stream(state, inflated, depth + 1, span)
    elif inside is not None:
        for inner in layers(inside, state.thresholds):
            _open(state, inner, depth + 1, span)


def _open_stream(state: _Scan, stream: Inflated, depth: int, span: tuple[int, int]) -> None:
    bits = 8 * len(stream.data)
    if stream.truncated:
        state.decoded += len(stream.data)
        state.keep(Finding(stream.format, depth, span[0], span[1], bits, "decompression-limit"))
        return
    _open(state, Layer(stream.format, 0, len(stream.data), bits, stream.data), depth, span)


def layers(data: bytes, thresholds: Thresholds) -> list[Layer]:
    """The outermost payloads of a text in order of place; none overlaps another."""
    found: list[Layer] = []
    taken = bytearray(len(data))
    for layer in _candidates(data, thresholds):
        if taken.find(1, layer.start, layer.end) < 0:
            found.append(layer)
            taken[layer.start : layer.end] = b"\1" * (layer.end - layer.start)
    return sorted(_reunited(data, found), key=lambda one: (one.start, one.end))


def _candidates(data: bytes, thresholds: Thresholds) -> Iterator[Layer]:
    """Payloads of all detectors, the surest detectors first."""
    if not data:
        return
    for marked in find_marked(data):
        bits = 8 * len(marked.payload)
        yield Layer(marked.encoding, marked.start, marked.end, bits, marked.payload, marked.kind)
    array = np.frombuffer(data, np.uint8)
    hidden = find_invisible(data) if array.max() > 127 else ()
    for stretch in (*find_escaped(data, array), *hidden):
        kind = "uuid" if stretch.encoding == "uuid" else None
        yield Layer(
            stretch.encoding, stretch.start, stretch.end, 8 * len(stretch.payload), stretch.payload, kind
        )
    total = cumulative_costs(array)
    words, digits = word_runs(array, total), hex_runs(array, total)
    long = words.starts[words.ends - words.starts >= LEAST_ANNOUNCED]
    for marked in find_announced(data, long.tolist()):
        bits = 8 * len(marked.payload)
        yield Layer(marked.encoding, marked.start, marked.end, bits, marked.payload, marked.kind)
    chosen = _chosen(data, passing(words, thresholds), passing(digits, thresholds))
    wide = _wide(data, passing(graph_runs(array, total), thresholds, GROUPS), thresholds)
    yield from _of_runs(data, _not_words(wide, chosen))
    yield from _of_runs(data, chosen)
    for turned in find_shifted(data, array, total):
        yield Layer(turned.encoding, turned.start, turned.end, 8 * len(turned.payload), turned.payload)
    yield from _scattered(data, words, thresholds)


def _chosen(data: bytes, words: list[Run], digits: list[Run]) -> list[Run]:
    """Words and hexadecimal runs together; where they overlap, the one with more evidence."""
    words = [run for run in words if not is_written(data[run.start : run.end])]
    drawn = _drawn(data, words) + _drawn(data, [one for one in digits if one.alphabet == "hex"])
    kept: list[Run] = []
    for run in sorted(drawn, key=lambda one: (one.start, -one.evidence)):
        if kept and run.start < kept[-1].end:
            if run.evidence > kept[-1].evidence:
                kept[-1] = run
        else:
            kept.append(run)
    return kept


def _wide(data: bytes, runs: list[Run], thresholds: Thresholds) -> list[Run]:
    """Runs of all signs that are no pattern or list: with much evidence, or whole groups of base85."""
    kept: list[Run] = []
    for run in runs:
        letters = data[run.start : run.end]
        is_clear = run.evidence >= thresholds.limit(GRAPH.name, run.length) and mixes_letters(letters)
        if (is_clear or _is_grouped(letters)) and not is_list(letters):
            kept.append(run)
    return _drawn(data, kept)


def _is_grouped(letters: bytes) -> bool:
    is_short = len(letters) <= _MOST_GROUPED  # longer ones have the evidence without
    return (
        is_short
        and mixes_letters(letters, _SHARE_IN_GROUPS)
        and not is_written(letters)
        and in_groups(letters)
    )


def _not_words(wide: list[Run], words: list[Run]) -> list[Run]:
    """Runs of all signs less those that are a word with its punctuation."""
    starts = np.array([run.start for run in words], np.int64)
    kept: list[Run] = []
    for run in wide:
        first, last = np.searchsorted(starts, [run.start, run.end])
        if sum(word.length for word in words[first:last]) < _SHARE_OF_WORDS * run.length:
            kept.append(run)
    return kept


def _drawn(data: bytes, runs: list[Run]) -> list[Run]:
    return [
        run
        for run in runs
        if looks_drawn(data[run.start : run.end], _SYMBOLS.get(run.alphabet, 60))
        or _reads(data[run.start : min(run.end, run.start + _ENOUGH)], run.alphabet)
    ]


def _reads(letters: bytes, alphabet: str) -> bool:
    """Whether a run decodes to text that says something: base64 of hex has few letters, and is no pattern."""
    encoding, payload = decode(letters, alphabet)
    if payload is None or encoding == alphabet == "ascii85":
        return False
    return len(set(payload)) >= _LEAST_SIGNS and recognise.is_text(payload)


def _of_runs(data: bytes, runs: list[Run]) -> Iterator[Layer]:
    for piece in pieces(data, runs):
        encoding, payload = decode(piece.letters, piece.alphabet)
        bits = 8 * len(payload) if payload is not None else round(piece.bits)
        yield Layer(
            encoding, piece.start, piece.end, bits, payload, label_of(data, piece.start, piece.end, encoding)
        )


def decode(letters: bytes, alphabet: str) -> tuple[str, bytes | None]:
    """The likeliest encoding and its payload: the first that is recognised, else the first that decodes."""
    if alphabet in _NOT_DECODED:
        return alphabet, None
    options = list(decodings(letters, alphabet))
    if alphabet == "ascii85":
        options += decodings(letters.strip(AROUND), alphabet)
    for encoding, payload in options:
        kind = recognise.recognise(payload)
        if kind != recognise.RANDOM and (kind not in READ or len(payload) >= _LEAST_TEXT):
            return encoding, payload
    return options[0] if options else (alphabet, None)


def _reunited(data: bytes, found: Sequence[Layer]) -> list[Layer]:
    """Where parts that say nothing alone say something together, one layer of all of them."""
    parts = [
        one
        for one in found
        if one.payload is not None and recognise.recognise(one.payload) == recognise.RANDOM
    ]
    families = {one.encoding.removeprefix("reversed-") for one in parts}
    if not 2 <= len(parts) <= _MOST_PARTS or len(families) > 3:
        return list(found)
    parts.sort(key=lambda one: one.start)
    letters = b"".join(data[one.start : one.end].rstrip(b"=") for one in parts)
    for alphabet in sorted(families):
        encoding, payload = decode(letters, alphabet)
        if payload is not None and recognise.recognise(payload) != recognise.RANDOM:
            joined = {(one.start, one.end) for one in parts}
            rest = [one for one in found if (one.start, one.end) not in joined]
            whole = Layer(f"split-{encoding}", parts[0].start, parts[-1].end, 8 * len(payload), payload)
            return [*rest, whole]
    return list(found)


def _scattered(data: bytes, words: Scored, thresholds: Thresholds) -> Iterator[Layer]:
    if not len(words.starts):
        return
    readable = find_scattered(data, words, gains(words, thresholds), READABLE_BITS)
    if readable is not None:
        encoding, payload = decode(readable.letters, readable.alphabet)
        if payload is not None and recognise.recognise(payload) != recognise.RANDOM:
            yield Layer(f"split-{encoding}", readable.start, readable.end, 8 * len(payload), payload)
            return
    mixed = mixed_case_gains(words, thresholds)
    piece = find_scattered(data, words, mixed, thresholds.limit("split", 8))
    if piece is not None:
        encoding, _ = decode(piece.letters, piece.alphabet)
        yield Layer(f"split-{encoding}", piece.start, piece.end, round(piece.bits), None)


def within(finding: Finding, offset: int) -> Finding:
    """The same finding in a text that begins `offset` bytes earlier."""
    return replace(finding, start=finding.start + offset, end=finding.end + offset)
