"""The log on disk, under one name: who writes it and who reads it."""

from __future__ import annotations

from ullage.log.journal.pace import CheckpointPolicy
from ullage.log.journal.recovery import Recovery, holds_log
from ullage.log.reader import LogReader
from ullage.log.writer import LogWriter

__all__ = ["CheckpointPolicy", "LogReader", "LogWriter", "Recovery", "holds_log"]
