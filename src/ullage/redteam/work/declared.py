"""What a log earns that declares inference which was not run (`not_run`): a real log, audited and credited.

The tap records honestly what came out of the server. The verifier audits the log with the declared model
and credits what the audit verified. For comparison `served` are honest answers, all different, which earn the
half of the machine that they took.
"""

from __future__ import annotations

import hashlib
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ullage.audit.run import AuditRequest, audit_log
from ullage.audit.verdict import Outcome as Verdict
from ullage.log.keys import Role, create_keys, load_tap_keys
from ullage.log.reader import LogReader
from ullage.log.record import ClosePart, HeaderPart, OpenPart, Parameters
from ullage.log.sealed.openers import load_opener
from ullage.log.writer import LogWriter
from ullage.model.builtin import builtin_path
from ullage.model.identity import identify
from ullage.model.reference import Reference
from ullage.redteam.work.not_run import HIDDEN, INVENTED, REPEATED
from ullage.sampling.parameters import SamplingParameters
from ullage.server.rows import Row
from ullage.work.inference import Costs, Credit, credit, is_the_references, served_records
from ullage.work.run import with_inference
from ullage.work.window import Window

ANSWERS = 16
TOKENS = 24
_NOTHING = "sha256:" + hashlib.sha256(b"").hexdigest()

SERVED = "served"


def with_declared(name: str, windows: Sequence[Window]) -> list[Window]:
    """The windows with what this adversary's log earns in them, after a real audit of a real log.

    Costs a token are set so that `served` would earn HIDDEN of the machine. Raises UllageError.
    """
    if not windows:
        return []
    reference = Reference.load(builtin_path())
    rows = answers(name, reference)
    capacity = sum(window.capacity for window in windows)
    # An answer's first token comes of the prompt, its last is never fed: prompts cost next to nothing here.
    fed = sum(max(0, len(row.output_ids) - 1) for row in rows)
    costs = Costs(1e-9, ((1, HIDDEN * capacity / fed),), 0.0)
    begin = windows[0].start_unix
    end = windows[-1].start_unix + int(windows[-1].seconds * 1e9)
    with tempfile.TemporaryDirectory(prefix="ullage-declared-") as place:
        return with_inference(
            windows,
            _earned(Path(place), rows, (begin, end), reference.tokenizer.eos_ids, (costs, windows[0].slots)),
        )


def answers(name: str, reference: Reference) -> list[Row]:
    """What the tap records of this adversary: prompts, seeds and output tokens."""
    from ullage.redteam.tokens.game import decode_rows
    from ullage.server.chooser import SeededChooser

    texts = [f"Request number {n}:" for n in range(ANSWERS)]
    rows = [
        Row(str(n), secrets.randbits(63), reference.tokenizer.encode(text), SamplingParameters())
        for n, text in enumerate(texts)
    ]
    if name == INVENTED.name:
        for row in rows:
            row.output_ids = [secrets.randbelow(reference.vocabulary_size - 8) + 8 for _ in range(TOKENS)]
        return rows
    run = rows[:1] if name == REPEATED.name else rows
    decode_rows(
        reference.model, SeededChooser(), run, TOKENS,
        context_length=reference.context_length, eos=reference.tokenizer.eos_ids,
    )  # fmt: skip
    return run * (ANSWERS // len(run))


def _earned(
    folder: Path,
    rows: Sequence[Row],
    span: tuple[int, int],
    ends: frozenset[int],
    twin: tuple[Costs, int],
) -> list[Credit]:
    """Credit of the audited log. `twin`: costs and slots."""
    keys, log = folder / "keys", folder / "log"
    create_keys(keys, Role.ALL, "redteam.example/tap")
    _write_log(log, keys, rows, span, ends)
    opener = load_opener(keys)
    result = audit_log(AuditRequest(log=log, model=builtin_path(), record_keys=keys))
    examined = {
        record.counter: is_the_references(
            None if record.scores is None else int(record.scores.mismatch.sum()), record.output_tokens
        )
        for record in result.records
    }
    passed = examined if result.verdict.outcome is Verdict.PASS else {}
    reader = LogReader.open(log, opener=opener)
    return credit(served_records(reader.records(), passed, everything=True), *twin)


def _write_log(
    log: Path, keys: Path, rows: Sequence[Row], span: tuple[int, int], ends: frozenset[int]
) -> None:
    """One answer after the other over the span, as an honest tap writes them."""
    tap = load_tap_keys(keys)
    header = HeaderPart(
        created=span[0], dtype="bfloat16", log_id=tap.new_log_id(), software="ullage-redteam",
        model_digest=identify(builtin_path()).digest, profile="murmur3-gumbel/f64", selection_commitment=None,
    )  # fmt: skip
    step = (span[1] - span[0]) // len(rows)
    with LogWriter.create(log, tap, header) as writer:
        for counter, row in enumerate(rows):
            begin = span[0] + counter * step
            ended = row.output_ids[-1] in ends
            writer.append_sync(
                OpenPart(
                    bytes_from_client=100, choice=0, counter=counter, endpoint="completions", group=counter,
                    parameters=Parameters.model_validate(
                        {"max_tokens": TOKENS, "stop": (), **row.parameters.to_record()}
                    ),
                    prompt_ids=tuple(row.prompt_ids), prompt_sources=((len(row.prompt_ids), "client"),),
                    request_digest=_NOTHING, seed=row.seed, stream=False, time_received=begin,
                )
            )  # fmt: skip
            writer.append_sync(
                ClosePart(
                    bytes_from_upstream=100, bytes_to_client=100, bytes_to_upstream=100, counter=counter,
                    finish_reason="stop" if ended else "length", outcome="complete",
                    output_ids=tuple(row.output_ids), released_digest=_NOTHING, time_closed=begin + step,
                )
            )  # fmt: skip
