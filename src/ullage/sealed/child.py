"""The sealed process: reads log and weights, and writes one byte, the outcome.

    python -m ullage.sealed.child DESCRIPTOR     (started by `ullage audit --sealed`)

The request comes as JSON on standard input. What the process prints goes nowhere, and who started it makes
the verdict: a signature made in here could be one of many, and say more than an outcome.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Exit code 0 when an outcome was written, 1 otherwise; nothing else is said."""
    descriptor = int(sys.argv[1])
    request = json.loads(sys.stdin.buffer.read(1 << 16))
    from ullage.sealed.confinement import seal

    seal()
    try:
        said = _audited(request)
    except Exception:  # whatever it was, it must not speak
        return 1
    os.write(descriptor, said)
    return 0


def _audited(request: dict[str, Any]) -> bytes:
    from ullage.model import instruction_set

    instruction_set.pin()
    from ullage.audit.run import AuditRequest, audit_log
    from ullage.sealed.verdict import outcome_byte

    def path(name: str) -> Path | None:
        return Path(request[name]) if request[name] else None

    result = audit_log(
        AuditRequest(
            log=Path(request["log"]),
            model=Path(request["model"]),
            sample=request["sample"],
            limit_dtype=request["dtype"],
            log_key=path("log_key"),
            keys=Path(request["keys"]),
            record_keys=path("record_keys"),
            agreed=(int(request["tree_size"]), bytes.fromhex(request["root"])),
        )
    )
    return outcome_byte(result.verdict.outcome)


if __name__ == "__main__":
    sys.exit(main())
