"""What a report is made from: claims files, evidence bundles, and what commands print with `--json`.

Every file is untrusted: sizes are limited, claims are validated one by one, and of a document only the
fields that a page shows are read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ullage.claims import Claim, is_plain, merge
from ullage.errors import MalformedError, UsageError
from ullage.plain_files import read_plain_file

_MAX_BYTES = 64 << 20
_MAX_CLAIMS = 100_000
_MAX_DIGITS = 300  # of a whole number: as a float, it is finite
CLAIMS = "claims.json"


@dataclass(frozen=True)
class Document:
    """One input. `data` is the document's JSON object; `bundle` the folder, if it is an evidence bundle."""

    name: str
    digest: str
    claims: tuple[Claim, ...]
    data: Mapping[str, Any] = field(default_factory=dict)
    bundle: Path | None = None


def read_document(path: Path) -> Document:
    """A bundle's folder, a `claims.json`, or what a command printed with `--json`.

    Raises UsageError when there is none, MalformedError.
    """
    if path.is_dir():
        inner = read_document(path / CLAIMS)
        return Document(str(path), inner.digest, inner.claims, bundle=path)
    try:
        raw = read_plain_file(path, _MAX_BYTES)
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no file {path}: give a bundle, a claims file, or a --json document."
        ) from error
    except OSError as error:
        raise MalformedError(f"{path} cannot be read: {error.strerror}.") from error
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    data = _parse(path, raw)
    return Document(str(path), digest, _claims(path, data), data)


def all_claims(documents: Iterable[Document]) -> tuple[Claim, ...]:
    """Every claim once, in order of appearance."""
    return merge(document.claims for document in documents)


def rows(data: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The objects of a list in a document; nothing where there is none."""
    value = data.get(name)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def number_in(row: Mapping[str, Any], name: str) -> float | None:
    """A figure of a row, if it is one."""
    value = row.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def text_in(row: Mapping[str, Any], name: str) -> str:
    """A string of a row, or nothing."""
    value = row.get(name)
    return value if isinstance(value, str) else ""


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise MalformedError(
            f"{path} is not JSON, or has a number too large to reckon with: give a bundle, a claims file, "
            "or a --json document."
        ) from error
    if not isinstance(data, dict) or not isinstance(data.get("claims"), list):
        raise MalformedError(f"{path} holds no claims: its JSON has no list named `claims`.")
    if set(data) == {"version", "claims"} and data["version"] != 1:
        raise MalformedError(
            f"{path} is a claims file of version {data['version']!r:.20}; this program reads version 1."
        )
    return data


def _refuse(name: str) -> float:
    raise ValueError(name)


def _finite(digits: str) -> float:
    """A number with a point or an exponent. Raises ValueError for 1e999, with which no page can reckon."""
    value = float(digits)
    if math.isinf(value):
        raise ValueError(digits)
    return value


def _whole(digits: str) -> int:
    """A number without. Raises ValueError for one that no float holds."""
    if len(digits) > _MAX_DIGITS:
        raise ValueError(digits[:_MAX_DIGITS])
    return int(digits)


def _claims(path: Path, data: Mapping[str, Any]) -> tuple[Claim, ...]:
    if len(data["claims"]) > _MAX_CLAIMS:
        raise MalformedError(f"{path} holds more than {_MAX_CLAIMS:,} claims.")
    made = []
    for position, value in enumerate(data["claims"]):
        try:
            made.append(Claim.model_validate_json(json.dumps(value)))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise MalformedError(f"{path}: claim {position + 1}: {where}: {first['msg']}.") from error
        if not is_plain(made[-1]):
            raise MalformedError(f"{path}: claim {position + 1} has control characters.")
    return tuple(made)
