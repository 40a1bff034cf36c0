"""Scenario files: YAML read strictly, every complaint with its line (`docs/formats/scenario.md`)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from ullage.claims import Evidence
from ullage.errors import UsageError
from ullage.slowdown.constraints import (
    COPPER,
    INFINIBAND,
    UNCONSTRAINED,
    Constraints,
    Note,
    Scenario,
    first_fault,
)
from ullage.slowdown.parameters import RANGES
from ullage.slowdown.ranges import Range

_MAX_BYTES = 256 << 10
_MAX_NAME = 200
_MAX_DEPTH = 8
_DAY = 86_400.0

_FIELDS: dict[str, dict[str, tuple[str, float]]] = {
    "fleet": {
        "dark_share": ("dark_share", 1),
        "racks": ("racks", 1),
        "gpus_a_rack": ("gpus_a_rack", 1),
        "memory_a_rack": ("memory_a_rack", 1),
        "response_days": ("response_days", 1),
        "diversion_a_year": ("diversion", 1),
    },
    "network": {"egress": ("egress", 1), "ingress": ("ingress", 1)},
    "tokens": {"covert_fraction": ("covert_fraction", 1), "residual": ("residual", 1)},
    "compute": {
        "accounted_time": ("accounted_time", 1),
        "accounted_operations": ("accounted_operations", 1),
    },
    "memory": {
        "resident": ("resident_memory", 1),
        "wipe_period": ("wipe_period", 1),
        "wipe_cycle": ("wipe_cycle", 1),
        "erased": ("erased", 1),
    },
    "updates": {"interval_days": ("update_interval", _DAY), "accomplice_share": ("accomplice_share", 1)},
}
"""Section and key of the file, the field of `Constraints`, and the factor to its unit."""

_WORDS: dict[tuple[str, str], dict[str, dict[str, float | bool]]] = {
    ("network", "links"): {
        "present": {"egress": INFINIBAND, "ingress": INFINIBAND},
        "cut": {"egress": COPPER, "ingress": COPPER},
    },
    ("tokens", "enforced"): {"true": {"enforced": True}, "false": {"enforced": False}},
}
_TOP = ("version", "name", "model", "assumptions", *_FIELDS)
_EVIDENCE = {evidence.value for evidence in Evidence} | {"assumed"}


@dataclass(frozen=True)
class ScenarioFile:
    """A file's scenario, the model it names, its own ranges, and whether it fixes the dark share."""

    scenario: Scenario
    model: str
    ranges: dict[str, Range]
    fixes_dark_share: bool


class _Reader:
    """Walks the YAML nodes and knows where each value stood."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, int] = {}  # field -> line
        self.notes: dict[str, Note] = {}
        self.warnings: list[str] = []

    def fault(self, node: yaml.Node | int, message: str) -> UsageError:
        line = node if isinstance(node, int) else node.start_mark.line + 1
        return UsageError(f"{self.path}:{line}: {message}")

    def pairs(self, node: yaml.Node, what: str) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            raise self.fault(node, f"{what} must be a mapping of names to values.")
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.fault(key, f"{what}: a name must be plain text.")
            if key.value in seen:
                raise self.fault(key, f"{what}: '{key.value}' stands there twice.")
            seen.add(key.value)
            yield key.value, key, value

    def text(self, node: yaml.Node, what: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value or len(node.value) > _MAX_NAME:
            raise self.fault(node, f"{what} must be a text of 1 to {_MAX_NAME} characters.")
        return str(node.value)

    def number(self, node: yaml.Node, what: str) -> float:
        if isinstance(node, yaml.ScalarNode):
            try:
                value = float(node.value)
            except ValueError:
                value = math.nan
            if not math.isnan(value):
                return value
        raise self.fault(node, f"{what} must be a number.")

    def sourced(self, node: yaml.Node, what: str, field: str) -> yaml.Node:
        """The value itself; notes its evidence and source where the file states them."""
        self.lines[field] = node.start_mark.line + 1
        self.notes[field] = Note("assumed", "scenario")
        if not isinstance(node, yaml.MappingNode):
            return node
        value: yaml.Node | None = None
        evidence, source = "assumed", "scenario"
        for key, key_node, part in self.pairs(node, what):
            if key == "value":
                value = part
            elif key == "source":
                source = self.text(part, f"{what}.source")
            elif key == "evidence":
                evidence = self.text(part, f"{what}.evidence")
                if evidence not in _EVIDENCE:
                    raise self.fault(part, f"{what}.evidence must be one of {', '.join(sorted(_EVIDENCE))}.")
            else:
                raise self.fault(
                    key_node, f"{what}: unknown name '{key}'; value, source, evidence are known."
                )
        if value is None:
            raise self.fault(node, f"{what} has no value.")
        self.notes[field] = Note(evidence, source)
        return value


def read_scenario(path: Path) -> ScenarioFile:
    """Read and check a scenario file. Raises UsageError with `file:line:` for whatever is wrong."""
    try:
        data = path.read_bytes() if path.stat().st_size <= _MAX_BYTES else None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    if data is None:
        raise UsageError(f"{path} is larger than {_MAX_BYTES} bytes: not a scenario.")
    return _scenario(_Reader(path), _compose(path, data))


def _compose(path: Path, data: bytes) -> yaml.Node:
    try:
        text = data.decode("utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise UsageError(f"{path}:{event.start_mark.line + 1}: nested too deeply for a scenario.")
            if isinstance(event, yaml.AliasEvent):
                raise UsageError(f"{path}:{event.start_mark.line + 1}: anchors and aliases are not allowed.")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or "unreadable characters"
        raise UsageError(f"{path}:{line}: not YAML: {problem}.") from error
    if node is None:
        raise UsageError(f"{path}:1: the file is empty.")
    return node


def _scenario(reader: _Reader, root: yaml.Node) -> ScenarioFile:
    texts = {"name": reader.path.stem, "model": ""}
    constraints, ranges = Constraints(), dict(RANGES)
    versioned = False
    for key, key_node, node in reader.pairs(root, "the file"):
        if key == "version":
            versioned = True
            if reader.text(node, "version") != "1":
                raise reader.fault(node, "this version of Ullage reads scenarios of version 1.")
        elif key in texts:
            texts[key] = reader.text(node, key)
        elif key == "assumptions":
            ranges.update(_ranges(reader, node))
        elif key in _FIELDS:
            constraints = _section(reader, key, node, constraints)
        else:
            raise reader.fault(key_node, f"unknown section '{key}'; known are {', '.join(_TOP)}.")
    if not versioned:
        raise reader.fault(root, "'version: 1' is missing.")
    if fault := first_fault(constraints):
        field, reason = fault
        raise reader.fault(reader.lines.get(field, 1), f"{field} {reason}.")
    scenario = Scenario(texts["name"], constraints, reader.notes, _loud(reader), _assumed(reader))
    return ScenarioFile(scenario, texts["model"], ranges, "dark_share" in reader.lines)


_SILENCE = {
    "update_interval": "updates.interval_days: not given, taken as free at any time",
    "accomplice_share": "updates.accomplice_share: not given, taken as everything",
    "response_days": "fleet.response_days: not given, open cheating is taken to go on for ever",
}


def _loud(reader: _Reader) -> tuple[str, ...]:
    """What the file leaves open although strategies need it."""
    uncovered = [f"{field}: not covered, taken as unconstrained" for field in _uncovered(reader)]
    return (*uncovered, *(text for field, text in _SILENCE.items() if field not in reader.lines))


def _assumed(reader: _Reader) -> tuple[str, ...]:
    """What the file leaves open and is taken in the verifier's favour."""
    silent = []
    if "wipe_period" in reader.lines and "erased" not in reader.lines:
        silent.append("memory.erased: not given, every wipe is taken to erase all memory")
    if "covert_fraction" in reader.lines and "residual" not in reader.lines:
        silent.append("tokens.residual: not given, lengths, times and order are taken to carry nothing")
    return tuple(silent)


def _uncovered(reader: _Reader) -> list[str]:
    return [field for field, note in reader.notes.items() if note.evidence == Evidence.NOT_COVERED.value]


def _section(reader: _Reader, section: str, node: yaml.Node, constraints: Constraints) -> Constraints:
    for key, key_node, part in reader.pairs(node, section):
        what = f"{section}.{key}"
        if words := _WORDS.get((section, key)):
            word = reader.text(part, what).lower()
            if word not in words:
                raise reader.fault(part, f"{what} must be {' or '.join(words)}.")
            constraints = replace(constraints, **words[word])  # type: ignore[arg-type]
            continue
        if key not in _FIELDS[section]:
            known = [*_FIELDS[section], *(word for place, word in _WORDS if place == section)]
            raise reader.fault(key_node, f"{section}: unknown name '{key}'; known are {', '.join(known)}.")
        field, factor = _FIELDS[section][key]
        value = reader.sourced(part, what, field)
        bare = isinstance(value, yaml.ScalarNode) and value.value == Evidence.NOT_COVERED.value
        figure = 0.0 if bare else reader.number(value, what) * factor
        if bare or reader.notes[field].evidence == Evidence.NOT_COVERED.value:
            # a figure that nothing covers constrains no more than none
            if field not in UNCONSTRAINED:
                raise reader.fault(value, f"{what} is an assumption that no check covers: give a figure.")
            reader.notes[field] = Note(Evidence.NOT_COVERED.value, "none")
            figure = UNCONSTRAINED[field]
        constraints = replace(constraints, **{field: figure})  # type: ignore[arg-type]
    return constraints


def _ranges(reader: _Reader, node: yaml.Node) -> dict[str, Range]:
    """`name: number` fixes an assumption, `name: [low, mode, high]` replaces its range."""
    changed: dict[str, Range] = {}
    for key, key_node, part in reader.pairs(node, "assumptions"):
        if key not in RANGES:
            raise reader.fault(key_node, f"there is no assumption '{key}'; known are {', '.join(RANGES)}.")
        known = RANGES[key]
        if isinstance(part, yaml.SequenceNode):
            if len(part.value) != 3:
                raise reader.fault(part, f"assumptions.{key} must be a number or [low, mode, high].")
            low, mode, high = (reader.number(entry, f"assumptions.{key}") for entry in part.value)
        else:
            low = mode = high = reader.number(part, f"assumptions.{key}")
        if not 0 < low <= mode <= high < math.inf:
            raise reader.fault(part, f"assumptions.{key}: 0 < low <= mode <= high does not hold.")
        if known.unit == "share" and high > 1:
            raise reader.fault(part, f"assumptions.{key} is a share and must not pass 1.")
        changed[key] = Range(low, mode, high, known.scale, known.unit, known.meaning, "scenario")
    return changed
