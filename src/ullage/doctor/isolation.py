"""Can this machine shut a server in, cap its cable and read it?"""

from __future__ import annotations

import errno
from pathlib import Path

from ullage.doctor.attempt import NAMESPACES, attempt
from ullage.doctor.finding import Finding, State

_WIRE = ("wire.unexplained_fraction", "wire.egress_rate")
_SYSCTL = {"network": "net", "mount": "mnt", "pid": "pid", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup"}
_EVERYBODY = ["0", "0", "4294967295"]
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_IPC_LOCK": 14, "CAP_SYS_ADMIN": 21}


def findings() -> list[Finding]:
    """Namespaces, cable, packets, control groups, capabilities."""
    return [_capabilities(), _namespaces(), _cable(), _packets(), _groups()]


def effective_capabilities(status: str) -> int:
    """The mask in the text of `/proc/self/status`; 0 if there is none."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def in_user_namespace(uid_map: str) -> bool:
    """Whether the text of `/proc/self/uid_map` is that of a user namespace inside the machine's own."""
    return bool(uid_map.strip()) and uid_map.split() != _EVERYBODY


def _capabilities() -> Finding:
    mask = effective_capabilities(_read("/proc/self/status"))
    held = [name for name, bit in _CAPABILITIES.items() if mask >> bit & 1]
    lacking = [name for name in _CAPABILITIES if name not in held]
    state = State.YES if not lacking else State.PARTLY if held else State.NO
    detail = f"has {', '.join(held) or 'none of those that count here'}"
    detail += f"; lacks {', '.join(lacking)}" if lacking else ""
    if held and in_user_namespace(_read("/proc/self/uid_map")):
        return Finding(
            "capabilities", "Capabilities", State.PARTLY, f"{detail}; within a user namespace alone",
            "They count for what was made in that namespace. The lines below say what works.",
        )  # fmt: skip
    means = {
        State.YES: "A tap can isolate its server, and an agent can lock memory.",
        State.PARTLY: "The lines below say which commands that concerns.",
        State.NO: "Everything that needs no isolation works: tap, log, audit, witness, slowdown.",
    }[state]
    return Finding("capabilities", "Capabilities", state, detail, means)


def _namespaces() -> Finding:
    outcomes = {kind: attempt(f"namespace-{kind}") for kind in NAMESPACES}
    missing = [kind for kind, outcome in outcomes.items() if outcome.ok is not True]
    if not missing:
        return Finding(
            "namespaces", "Namespaces", State.YES, f"{', '.join(outcomes)} can be made",
            "`ullage tap --isolate` can leave a server one cable and nothing else.", _WIRE,
        )  # fmt: skip
    first = outcomes[missing[0]]
    state = State.NO if "network" in missing or len(missing) == len(outcomes) else State.PARTLY
    limited = first.number == errno.ENOSPC  # which the kernel says of its limit on namespaces, not of a disk
    if limited:
        detail = f"the kernel's limit is reached: {', '.join(missing)}"
    else:
        detail = f"not permitted: {', '.join(missing)} ({first.why})"
    if not limited and attempt("user-namespace").ok:
        detail += "; within a user namespace they are, which isolation here does not use"
    remedy = (
        f"raise {', '.join(f'user.max_{_SYSCTL[kind]}_namespaces' for kind in missing)} with sysctl"
        if limited
        else "run it as root"
    )
    means = (
        f"`ullage tap --isolate` does not start: {remedy}, or put the server on a machine whose only "
        "cable ends at the tap."
        if state is State.NO
        else f"`ullage tap --isolate` starts only with --isolate-without {':'.join(missing)}, and says so."
    )
    return Finding("namespaces", "Namespaces", state, detail, means, (*_WIRE, "wire.other_ways_out"))


def _cable() -> Finding:
    outcome = attempt("cable")
    if outcome.ok:
        return Finding(
            "cable", "Cable and cap", State.YES, "veth, ifb and tbf work in a namespace of its own",
            "The cap on a server's bytes is held by this kernel.", ("wire.egress_rate",),
        )  # fmt: skip
    why = "the kernel's limit on namespaces is reached" if outcome.number == errno.ENOSPC else outcome.why
    return Finding(
        "cable", "Cable and cap", State.UNKNOWN if outcome.ok is None else State.NO,
        f"a capped cable cannot be made ({why})",
        "`--cap` needs another machine, or a switch that limits the port.", ("wire.egress_rate",),
    )  # fmt: skip


def _packets() -> Finding:
    outcome = attempt("packet")
    if outcome.ok:
        return Finding(
            "packets", "Reading frames", State.YES, "an AF_PACKET socket opens",
            "`ullage wire meter` reads a live link.", ("wire.unexplained_fraction",),
        )  # fmt: skip
    return Finding(
        "packets", "Reading frames", State.UNKNOWN if outcome.ok is None else State.NO,
        f"an AF_PACKET socket does not open ({outcome.why})",
        "`ullage wire meter` reads capture files here (--pcap), and no live link.",
        ("wire.unexplained_fraction",),
    )  # fmt: skip


def _groups() -> Finding:
    from ullage.memory.agent.inventory import find_group

    claims = ("memory.erased_fraction", "memory.resident_fraction")
    try:
        group = find_group()
    except (OSError, ValueError):
        group = None
    if group is None:
        return Finding(
            "groups", "Control groups", State.NO, "no memory control group with a limit was found",
            "`ullage agent --machine group` has no bound to work in: use --machine host.",
            claims,
        )  # fmt: skip
    return Finding(
        "groups", "Control groups", State.YES,
        f"{group.path} limits this process to {group.limit >> 20:,} MiB (version {group.version})",
        "An agent can take a group for the machine. The group's limit is this kernel's word, so those claims "
        "trust prover-kernel unless --machine-mib declares the memory.",
        claims,
    )  # fmt: skip


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""
