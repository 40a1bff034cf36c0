"""Whether the seeds in a log are those that its tap had to issue, for a verifier who was handed the seed key.

The log's header commits to that key, so seeds cannot be chosen afterwards. A seed depends on the request's
digest, and the digest on nothing but the request: it is made again from the record.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, field

from ullage.errors import UsageError
from ullage.log.record import HeaderPart, OpenPart, Record
from ullage.log.sealed.sealing import seed_commitment
from ullage.sampling.seeds import issue_seed

MAX_CHOICES = 16  # of one request, as the tap allows


@dataclass(frozen=True)
class SeedCheck:
    """The seed key of one log."""

    log_id: str
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, header: HeaderPart, key: bytes) -> SeedCheck:
        """Raises UsageError for another key than the one that the log commits to."""
        if header.seed_commitment is None:
            raise UsageError("The log commits to no seed key, so its seeds cannot be checked.")
        if not hmac.compare_digest(header.seed_commitment, seed_commitment(key)):
            raise UsageError("The log commits to another seed key than that in --seed-key.")
        return cls(header.log_id, key)

    def problems(self, record: Record) -> list[str]:
        """What is wrong with the record's seed: nothing, or a sentence."""
        opened = record.open
        digest = bytes.fromhex(opened.request_digest.removeprefix("sha256:"))
        if not any(digest == request_digest(opened, n) for n in range(opened.choice + 1, MAX_CHOICES + 1)):
            return [f"Record {record.counter} has the digest of another request than its own."]
        if issue_seed(self.key, self.log_id, opened.counter, digest) != opened.seed:
            return [f"Record {record.counter} has another seed than the tap had to issue: it was chosen."]
        return []


def request_digest(opened: OpenPart, choices: int) -> bytes:
    """The digest of the canonical request for that many choices (`docs/tap.md`)."""
    parameters = opened.parameters
    canonical = {
        "version": 1,
        "endpoint": opened.endpoint,
        "prompt_ids": list(opened.prompt_ids),
        "parameters": {
            "temperature": parameters.temperature,
            "top_p": parameters.top_p,
            "top_k": parameters.top_k,
            "max_tokens": parameters.max_tokens,
            "stop": list(parameters.stop),
        },
        "n": choices,
        "stream": opened.stream,
        "client_seed": None if opened.client_seed is None else str(opened.client_seed),
    }
    # RFC 8785 for these types: keys in ASCII, integers below 2^53.
    text = json.dumps(canonical, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode()).digest()
