"""Closing every way out of this process but the descriptors that it already holds.

A network namespace of its own with nothing in it, no capability, and two filters of system calls: the one of
an isolated server (`ullage.network.seccomp`), and one more that refuses every socket, every file opened for
writing, every change of a name, an attribute or a lock in the file system, every signal and every word to
other processes, and what changes how this one is seen. To be called before any thread is started.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import struct
import tempfile
from pathlib import Path
from typing import Final

from ullage.errors import UsageError
from ullage.network import seccomp, syscalls

_ARCHITECTURES: Final = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
# Numbers on x86-64 and on arm64; None where arm64 has no such call.
_REFUSED: Final[dict[str, tuple[int, int | None]]] = {
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "creat": (85, None),
    "truncate": (76, 45), "ftruncate": (77, 46), "mkdir": (83, None), "mkdirat": (258, 34),
    "rmdir": (84, None), "link": (86, None), "linkat": (265, 37), "symlink": (88, None),
    "symlinkat": (266, 36), "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276), "mknod": (133, None), "mknodat": (259, 33),
    "chmod": (90, None), "fchmodat": (268, 53), "chown": (92, None), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "utimensat": (280, 88), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "fsetxattr": (190, 7), "openat2": (437, 437), "memfd_secret": (447, 447),
    "execve": (59, 221), "execveat": (322, 281), "kill": (62, 129), "tgkill": (234, 131),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "fchmod": (91, 52), "fchmodat2": (452, 452), "fchown": (93, 55), "lchown": (94, None),
    "futimesat": (261, None), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "setxattrat": (463, 463), "removexattrat": (466, 466), "fallocate": (285, 47), "flock": (73, 32),
    "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195),
    "semget": (64, 190), "semop": (65, 193), "semtimedop": (220, 192), "semctl": (66, 191),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "bind": (49, 200), "listen": (50, 201),
    "sendto": (44, 206), "sendmsg": (46, 211), "sendmmsg": (307, 269), "splice": (275, 76), "tee": (276, 77),
    "vmsplice": (278, 75), "sendfile": (40, 71), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
    "sethostname": (170, 161), "setdomainname": (171, 162), "chroot": (161, 51), "acct": (163, 89),
    "syslog": (103, 116), "fanotify_init": (300, 262), "inotify_add_watch": (254, 27),
}  # fmt: skip
# Calls that a process needs, and the values of one argument with which it does not: locks and signals by
# descriptor, flags of files, and its own name.
_REFUSED_VALUES: Final[tuple[tuple[tuple[int, int], int, tuple[int, ...]], ...]] = (
    ((72, 25), 1, (fcntl.F_SETLK, fcntl.F_SETLKW, 37, 38, fcntl.F_SETLEASE, fcntl.F_NOTIFY, fcntl.F_SETOWN,
                   fcntl.F_SETSIG, 15)),  # fcntl; 37, 38: locks of an open file, 15: F_SETOWN_EX
    ((16, 29), 1, (0x4008_6602, 0x401C_5820, 0x5412)),  # ioctl: flags and attributes of a file, TIOCSTI
    ((157, 167), 0, (15, 4, 35, 36)),  # prctl: name, dumpable, memory map, reaper
)  # fmt: skip
_OPEN: Final = (2, None)
_OPENAT: Final = (257, 56)
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_LD, _JEQ, _JSET, _RET = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF_0000, 0x0005_0000


def seal() -> None:
    """Seal this process, for good. Raises UsageError where the kernel does not let us."""
    try:
        flags = syscalls.CLONE_NEWNET | (0 if os.geteuid() == 0 else syscalls.CLONE_NEWUSER)
        syscalls.unshare(flags)
        syscalls.drop_capabilities()
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        seccomp.install()
        syscalls.install_filter(program(platform.machine()))
    except OSError as error:
        raise UsageError(
            f"This process cannot be sealed ({error}): run as root, or where user namespaces are allowed."
        ) from error
    # Libraries look for places for temporary files and caches, by writing there, although they need none.
    tempfile.tempdir = os.environ["TORCHINDUCTOR_CACHE_DIR"] = "/"
    check()


def check() -> None:
    """Raise UsageError unless no socket and no file for writing can be had, and no interface is there."""
    import socket

    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
    except OSError:
        pass
    else:
        raise UsageError("A sealed process could open a socket.")
    names = [line.split(":")[0].strip() for line in _interfaces()]
    # Kernels put templates of tunnels, and ifb, into every new namespace; none of them is up or leads out.
    if any(name.startswith(("eth", "en", "wl", "veth")) for name in names):
        raise UsageError("A sealed process still has a network interface.")
    try:
        os.close(os.open("/tmp/ullage-sealed-check", os.O_WRONLY | os.O_CREAT, 0o600))  # noqa: S108
    except OSError:
        return
    raise UsageError("A sealed process could make a file.")


def _interfaces() -> list[str]:
    return Path("/proc/self/net/dev").read_text("ascii", "replace").splitlines()[2:]


def program(machine: str) -> bytes:
    """The second filter, in classic BPF. Raises UsageError for an unknown architecture."""
    if machine not in _ARCHITECTURES:
        raise UsageError(f"There is no filter of system calls for {machine}.")
    column = 0 if machine == "x86_64" else 1
    code = [
        _instruction(_LD, 0, 0, 4),
        _instruction(_JEQ, 1, 0, _ARCHITECTURES[machine]),
        _refuse(errno.EPERM),
        _instruction(_LD, 0, 0, 0),
    ]
    for numbers in _REFUSED.values():
        if (number := numbers[column]) is not None:
            code += [_instruction(_JEQ, 0, 1, number), _refuse(errno.EPERM)]
    for numbers, argument, values in _REFUSED_VALUES:
        code += [
            _instruction(_JEQ, 0, 2 * len(values) + 2, numbers[column]),
            _instruction(_LD, 0, 0, 16 + 8 * argument),
            *(part for value in values for part in (_instruction(_JEQ, 0, 1, value), _refuse(errno.EPERM))),
            _instruction(_RET, 0, 0, _ALLOW),
        ]
    for numbers, argument in ((_OPEN, 1), (_OPENAT, 2)):
        if (number := numbers[column]) is not None:
            code += [
                _instruction(_JEQ, 0, 4, number),
                _instruction(_LD, 0, 0, 16 + 8 * argument),
                _instruction(_JSET, 0, 1, _WRITING),
                _refuse(errno.EROFS),
                _instruction(_RET, 0, 0, _ALLOW),
            ]
    return b"".join([*code, _instruction(_RET, 0, 0, _ALLOW)])


def _instruction(code: int, true: int, false: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, true, false, value)


def _refuse(number: int) -> bytes:
    return _instruction(_RET, 0, 0, _ERRNO | number)
