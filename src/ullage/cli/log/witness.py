"""`ullage log serve`, `witness`, `cosign`: a log for strangers, and others who vouch for its one history."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ullage.cli.log.source import Json, Key, PolicyFile, choose_policy
from ullage.errors import ExitCode, FaultError, UsageError
from ullage.log.keys import load_verifier, load_witness_signer, load_witness_verifier
from ullage.log.notes.policy import Policy
from ullage.log.source import DirectorySource
from ullage.log.witness.asking import Cosigning, WitnessClient, cosign_log, keep_cosigned
from ullage.server.run import parse_address
from ullage.server.run import serve as run_server

Listen = Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0 takes a free one.")]


def serve(
    directory: Annotated[Path, typer.Argument(help="A log's folder.")],
    listen: Listen = "127.0.0.1:8080",
) -> None:
    """Serve a log to strangers: checkpoint, tiles and entries, read-only (C2SP tlog-tiles).

    What is sealed is never served. Any other server of static files does as well; it must leave out
    the folder sealed/.
    """
    from ullage.log.witness.web import log_app

    if not directory.is_dir():
        raise UsageError(f"There is no folder {directory}.")
    run_server(log_app(directory), *parse_address(listen))


def witness(
    *,
    keys: Annotated[Path, typer.Option(help="Folder with witness.key (`ullage keys init --role witness`).")],
    state: Annotated[Path, typer.Option(help="Folder for what the witness saw; keep it, and keep one.")],
    log: Annotated[
        list[Path], typer.Option(metavar="FILE", help="Public key of a log to watch; give it for each.")
    ],
    listen: Listen = "127.0.0.1:8081",
    new: Annotated[
        bool, typer.Option("--new", help="Begin: this witness has never cosigned anything.")
    ] = False,
    new_only: Annotated[
        bool,
        typer.Option("--new-only", help="As --new, then end: for a service, which must start without --new."),
    ] = False,
) -> None:
    """Cosign logs that only ever grow (C2SP tlog-witness: POST /add-checkpoint, GET /HASH/checkpoint)."""
    from ullage.log.witness.state import WitnessState
    from ullage.log.witness.web import witness_app
    from ullage.log.witness.witness import Witness

    signer = load_witness_signer(keys)
    logs = [load_verifier(file) for file in log]
    address = parse_address(listen)
    opening = WitnessState.create if new or new_only else WitnessState.open
    with opening(state, signer.verifier) as held:
        if new_only:
            typer.echo(f"{state}: a witness that has cosigned nothing yet")
            return
        run_server(witness_app(Witness(signer, logs, held)), *address)


def cosign(
    directory: Annotated[Path, typer.Argument(help="The log's folder.")],
    *,
    witness: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="A witness's URL; give --witness-key for each.")
    ] = None,
    witness_key: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Its public key (witness.pub), in the same order."),
    ] = None,
    key: Key = None,
    policy: PolicyFile = None,
    every: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=1, help="Ask again and again; once without.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask witnesses to cosign the log's checkpoint, and keep what they sign beside it.

    The witnesses are those with a URL in the policy, or those given. The note with all signatures is
    kept in `cosigned` once it has the policy's quorum (one, without a policy), and in `checkpoint` too
    where no tap is writing. Ends with 1 if a witness saw another history of the log, even with --every;
    with 3 if too few answered.
    """
    if not directory.is_dir():
        raise UsageError(f"There is no folder {directory}.")
    rule = choose_policy(key, policy, DirectorySource(directory))
    clients = _clients(rule, witness or [], witness_key or [])
    if every is None:
        raise typer.Exit(int(_cosign_once(directory, rule, clients, as_json)))
    while True:
        try:
            if _cosign_once(directory, rule, clients, as_json) is ExitCode.FAIL:
                raise typer.Exit(int(ExitCode.FAIL))  # a fork does not heal
        except FaultError as error:
            sys.stderr.write(f"ullage: {error}\n")
        time.sleep(every)


def _clients(rule: Policy, urls: list[str], keys: list[Path]) -> list[WitnessClient]:
    if len(urls) != len(keys):
        raise UsageError("Give one --witness-key for each --witness, in the same order.")
    clients = [WitnessClient(load_witness_verifier(key), url) for url, key in zip(urls, keys, strict=True)]
    clients += [WitnessClient(one.key, one.url) for one in rule.witnesses if one.url is not None]
    if not clients:
        raise UsageError("No witness to ask: give --witness and --witness-key, or a policy with their URLs.")
    return clients


def _cosign_once(directory: Path, rule: Policy, clients: list[WitnessClient], as_json: bool) -> ExitCode:
    found = cosign_log(DirectorySource(directory), rule, clients)
    cosigners = [one.witness for one in found.opened.cosignatures]
    enough = rule.is_quorum(cosigners) if rule.quorum is not None else bool(cosigners)
    if enough:
        keep_cosigned(directory, found.opened)
    code = ExitCode.PASS if enough else ExitCode.CANNOT_TELL
    if found.contradicted:
        code = ExitCode.FAIL
    _tell(found, enough, code, as_json)
    return code


def _tell(found: Cosigning, enough: bool, code: ExitCode, as_json: bool) -> None:
    checkpoint = found.opened.checkpoint
    verdict = code.name.lower().replace("_", "-")
    if as_json:
        document = {
            "claims": [],
            "verdict": verdict,
            "size": checkpoint.size,
            "kept": enough,
            "witnesses": [{"name": one.witness.name, "time": one.time} for one in found.opened.cosignatures],
            "refused": [{"name": one.key.name, "reason": str(error)} for one, error in found.refused],
        }
        typer.echo(json.dumps(document))
        return
    for client, error in found.refused:
        sys.stderr.write(f"{client.key.name}: {error}\n")
    names = ", ".join(one.witness.name for one in found.opened.cosignatures) or "nobody"
    typer.echo(f"{verdict}: {checkpoint.size} entries of {checkpoint.origin} cosigned by {names}")
