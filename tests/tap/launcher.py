"""The tap as a child process of a test: `python -m tests.tap.launcher JSON`."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from tests.tap.small_tokenizer import small_tokenizer
from ullage.errors import UllageError
from ullage.log.keys import load_tap_keys
from ullage.tap.clients.http import ClientLimits
from ullage.tap.operations.monitored import Monitoring
from ullage.tap.pacing.grid import Pace
from ullage.tap.pacing.ledger import Allowance
from ullage.tap.past import read_past
from ullage.tap.residual.capacity import CovertTerms
from ullage.tap.run import Declaration, TapSettings, open_log, serve
from ullage.tap.upstream.connections import Timeouts
from ullage.tap.upstream.link import Link


def main() -> int:
    options = json.loads(sys.argv[1])
    if options["file_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (options["file_bytes"], resource.RLIM_INFINITY))
    paths: dict[str, Any] = {name: Path(value) for name, value in options["paths"].items()}
    settings = TapSettings(
        upstream=options["upstream"],
        listen=options["listen"],
        model_name="small",
        timeouts=Timeouts(**options["timeouts"]),
        limits=ClientLimits(**options["limits"]),
        max_active=options["max_active"],
        grace=options["grace"],
        link=Link(options["link"]),
        pace=Pace(**options["pace"]) if options["pace"] else None,
        allowance=Allowance(**options["allowance"]),
        covert=CovertTerms(**options["covert"]) if options["covert"] else None,
        monitoring=Monitoring(**options["monitoring"]) if options["monitoring"] else None,
        **paths,
        **options["settings"],
    )
    declaration = Declaration("sha256:" + "0" * 64, options.pop("profile", "murmur3-gumbel/f64"), "float32")
    try:
        keys = load_tap_keys(Path(options["keys"]))
        writer = open_log(Path(options["log"]), keys, declaration)
        past = read_past(Path(options["log"]), keys, time.time_ns(), settings.pace, settings.allowance)
        serve(settings, writer, keys, small_tokenizer(), past)
    except UllageError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
