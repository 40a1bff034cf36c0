"""The demo's verifier: one process that audits log after log, so that torch is loaded once.

It reads a request a line on standard input, `{"log", "key", "keys", "record_keys", "model", "out"}`, and
answers with a line `{"verdict", "reasons", "claims"}` or `{"error"}`. `ullage audit` does the same for one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ullage.model import instruction_set

instruction_set.pin()  # before torch is loaded

from ullage.audit.run import AuditRequest, audit_log  # noqa: E402
from ullage.claims import to_json  # noqa: E402
from ullage.errors import UllageError  # noqa: E402


def answer(line: str) -> dict[str, object]:
    """Audit one log."""
    asked = {name: Path(value) for name, value in json.loads(line).items()}
    try:
        result = audit_log(
            AuditRequest(
                log=asked["log"],
                model=asked["model"],
                log_key=asked["key"],
                keys=asked["keys"],
                record_keys=asked["record_keys"],
                out=asked["out"],
            )
        )
    except UllageError as error:
        return {"error": str(error)}
    return {
        "verdict": result.verdict.outcome.value,
        "reasons": list(result.verdict.reasons),
        "claims": to_json(result.claims),
    }


def main() -> None:
    """The verifier's process: a request a line on standard input, an answer a line on standard output."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(line)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
