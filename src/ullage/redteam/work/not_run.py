"""Inference that is declared and not run: half of the machine is somebody else's, and the log says it served.

`invented-inference` answers with tokens drawn at random, which no model computed; `repeated-inference` gives
one honest answer again and again, as if each time cost the machine a run. `declared` plays their logs.
"""

from __future__ import annotations

from ullage.redteam.work.adversary import Catch, WorkAdversary
from ullage.redteam.work.tenant import Tenant50

HIDDEN = 0.5
"""Share of the machine's time that the log is to explain."""

INVENTED = WorkAdversary(
    "invented-inference", "half a tenant's; nobody computed the log's answers", Tenant50, Catch.AUDIT, HIDDEN,
    slow=True,
)  # fmt: skip
REPEATED = WorkAdversary(
    "repeated-inference", "half a tenant's; the log has one answer many times", Tenant50, Catch.AUDIT, HIDDEN,
    slow=True,
)  # fmt: skip
