"""Audit a log, and bound what its tokens could hide, from Python.

    python examples/audit_and_bound.py LOG MODEL KEYS OUT VOCABULARY

LOG is what a tap recorded, MODEL the declared model's folder, KEYS the folder of `ullage keys init`, OUT a
new folder for the signed evidence, VOCABULARY the number of tokens. The second half needs neither log nor
model: give it the scores of your own experiment instead (docs/formats/scores.md), say from vLLM on a GPU.
"""

import sys

import ullage
from ullage.errors import UllageError


def main() -> int:
    log, model, keys, out, vocabulary = sys.argv[1:]
    try:
        print("What the audit says:")
        for claim in ullage.audit(log, model=model, key=f"{keys}/log.pub", keys=keys, out=out):
            print(" ", claim.name, claim.value, claim.unit, claim.interval)
        print("What the tokens could hide, whoever chose them:")
        for claim in ullage.bound(f"{out}/evidence/audit.parquet", vocabulary=int(vocabulary)):
            print(" ", claim.name, claim.bound.value, claim.value, claim.unit)
    except UllageError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
