"""Outsourced work: each job goes to a helper in another process, which the accounting cannot see.

Nothing in the answers gives it away. A job costs the helper's line 90 bytes (45 there, 45 back), so the share
that can be outsourced through a metered wire is at most unexplained bytes/s / 90 x seconds a unit; a
helper on this side of the meter is an assumption of the claim.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

from ullage.errors import FaultError
from ullage.redteam.work.adversary import Catch, WorkAdversary
from ullage.work.protocol import MAX_FROM_PROVER, Hello, Job, Message, Open
from ullage.work.prover import Prover
from ullage.work.stream import Stream, parse_address


class Outsourcing(Prover):
    """Passes every message on to an honest agent, and its answers back."""

    helper: Stream | None = None
    process: subprocess.Popen[str] | None = None

    def answer(self, message: Message) -> Iterator[Message]:
        if self.helper is None:
            self.helper = self._hire()
        self.helper.send(message)
        if isinstance(message, (Hello, Job, Open)):
            reply = self.helper.receive(60.0)
            if reply is None:
                raise FaultError("The helper left.")
            yield reply

    def _hire(self) -> Stream:
        command = [sys.executable, "-P", "-m", "ullage.redteam.work.agent", "honest", "--until-eof"]
        # Its standard input is a pipe from here, so it ends with this process, however that ends.
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout is None:
            raise FaultError("The helper has no output.")
        host, port = parse_address(self.process.stdout.readline().rpartition(" ")[2].strip())
        return Stream(socket.create_connection((host, port), 30.0), MAX_FROM_PROVER)


OUTSOURCED = WorkAdversary("outsourced", "passes jobs to a helper", Outsourcing, Catch.WIRE, 1.0)
