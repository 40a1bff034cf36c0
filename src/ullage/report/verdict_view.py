"""A bundle's signed verdict as a page shows it. Whether the signature holds is for the caller to check."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ullage.errors import MalformedError
from ullage.plain_files import read_plain_file

_MAX_BYTES = 4 << 20
_OUTCOMES = ("pass", "fail", "cannot-tell")


@dataclass(frozen=True)
class VerdictView:
    """What the statement says. `signature` is empty until somebody checked it: then it names the key."""

    outcome: str
    reasons: tuple[str, ...]
    rule: str
    limit: float | None
    declaration: Mapping[str, str]
    records: int
    population: int
    tokens: int
    scheme: str
    created: int
    signature: str = ""

    @property
    def words(self) -> str:
        return "cannot tell" if self.outcome == "cannot-tell" else self.outcome


def read_verdict(path: Path, signature: str = "") -> VerdictView:
    """The verdict in a DSSE envelope. Raises MalformedError when it is none."""
    try:
        envelope = json.loads(read_plain_file(path, _MAX_BYTES))
        payload = json.loads(base64.b64decode(envelope["payload"], validate=True))
        return _view(payload["predicate"], signature)
    except OSError as error:
        raise MalformedError(f"{path} cannot be read: {error.strerror}.") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise MalformedError(f"{path} is not a verdict in a DSSE envelope.") from error


def worst_outcome(verdicts: list[VerdictView]) -> str:
    """`fail` if any failed, else `cannot-tell` if any could not tell, else `pass`; empty for none."""
    said = {verdict.outcome for verdict in verdicts}
    return next((one for one in ("fail", "cannot-tell", "pass") if one in said), "")


def _view(predicate: Mapping[str, Any], signature: str) -> VerdictView:
    outcome = predicate["verdict"]
    if outcome not in _OUTCOMES:
        raise ValueError(outcome)
    sample, limit = predicate["sample"], _share(predicate["rule"]["limit"])
    return VerdictView(
        outcome=outcome,
        reasons=tuple(str(reason) for reason in predicate["reasons"]),
        rule=str(predicate["rule"]["name"]),
        limit=limit,
        declaration={str(name): str(value) for name, value in predicate["declaration"].items()},
        records=int(sample["records"]),
        population=int(sample["population"]),
        tokens=int(sample["tokens"]),
        scheme=str(sample["scheme"]),
        created=int(predicate["created"]),
        signature=signature,
    )


def _share(value: Any) -> float | None:
    """A share of tokens, or None. Raises ValueError for what is neither, also for NaN."""
    if value is None:
        return None
    share = float(value)
    if not 0 <= share <= 1:
        raise ValueError(value)
    return share
