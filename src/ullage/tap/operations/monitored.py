"""The monitor of `ullage.monitor` in a tap: its settings, its alarms in the operator's words."""

from __future__ import annotations

from dataclasses import dataclass

from ullage.monitor.budget import Allowance, PayloadBudget
from ullage.monitor.watch import Alarm, Watch
from ullage.tap.tell import tell_operator


@dataclass(frozen=True)
class Monitoring:
    """`blocks`: a client with an alarm is refused for the rest of the day. For the others see `Allowance`."""

    blocks: bool = False
    honest_bits: float = Allowance.honest_bits
    day_bits: int | None = None

    def start(self) -> Watch:
        """The watch of a tap that begins to serve. Raises UsageError."""
        allowance = Allowance(honest_bits=self.honest_bits, day_bits=self.day_bits)
        return Watch(PayloadBudget(allowance), self._tell, blocks=self.blocks)

    def _tell(self, alarm: Alarm) -> None:
        """One line, by standard error. What was found is not in it, only what kind it was."""
        what = ", ".join(alarm.kinds) or "pieces over several messages"
        then = "; refused for the rest of the day" if self.blocks else ""
        tell_operator(
            f"ALARM: client {alarm.client} got {alarm.account.bits:,} payload bits in "
            f"{alarm.account.messages:,} texts today, at last {what}{then}"
        )


def watch_counts(watch: Watch | None) -> dict[str, float]:
    """Its figures under the names of the metrics page."""
    return {
        "monitor_payload_bits_total": watch.bits if watch else 0,
        "monitor_skipped_total": watch.skipped if watch else 0,
        "monitor_alarms_total": watch.alarms if watch else 0,
    }
