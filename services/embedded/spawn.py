"""Becomes another program: `spawn.py PARENT SIGNAL UID GID REACH -- PROGRAM ARGUMENT…`.

Runs between fork and exec, as a program of its own, because what it does is not safe in a forked copy of a process
with threads: it asks the kernel (Linux) to send SIGNAL when the parent dies, and as root turns into UID:GID. With
REACH it keeps the capability to enter folders, so that a home or a virtual environment below `/root` serves an
unprivileged PostgreSQL without its permissions being widened. Standard library only; no site-packages.
"""

import ctypes  # at once: the standard library may lie where the later user cannot go
import os
import resource
import sys

_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2
_CAPABILITY_VERSION_3 = 0x20080522
_LIBC = ctypes.CDLL(None, use_errno=True)


def _become(uid: int, gid: int, reach: bool) -> None:
    linux = sys.platform == "linux"
    if reach and linux:
        _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if reach and linux:
        # Docker's default set has only the wider of the two.
        _ = _keep(_CAP_DAC_READ_SEARCH) or _keep(_CAP_DAC_OVERRIDE)


def _keep(capability: int) -> bool:
    bit = 1 << capability
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Effective, permitted, inheritable; capabilities 0-31, then 32-63.
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    return bool(_LIBC.capset(header, sets) == 0 and _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability) == 0)


def _prctl(*arguments: int) -> int:
    padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:5]]
    return int(_LIBC.prctl(ctypes.c_int(arguments[0]), *padded[1:]))


def main(argv: list[str]) -> None:
    parent, death_signal, uid, gid, reach = (int(value) for value in argv[:5])
    program = argv[6:]
    # Its memory holds secrets, and no crash writes them out. Who looks for one can allow it to a running process.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if uid >= 0 and os.geteuid() == 0:
        _become(uid, gid, bool(reach))
    if death_signal and sys.platform == "linux":
        # After setuid, which clears it.
        _prctl(_PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:  # it died before the kernel was asked
            sys.exit(143)
    os.execv(program[0], program)  # noqa: S606 - its own parent is the caller's code


if __name__ == "__main__":
    main(sys.argv[1:])
