"""What the child gives up before it opens anything: memory, time, files, processes, privileges and the network."""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

from services.registry.validation.report import Limits

# From <linux/sched.h> and <linux/prctl.h>; Python has os.unshare from 3.12 on only.
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_PR_SET_NO_NEW_PRIVS = 38


def confine(limits: Limits) -> None:
    """Bounds this process for good. Call it while there is one thread, before libraries start theirs."""
    _leave_the_network()
    for kind, soft, hard in (
        (resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes),
        # Were they equal, the kernel would send SIGKILL alone, which does not say why.
        (resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 5),
        (resource.RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        resource.setrlimit(kind, (soft, hard))


def start_nothing() -> None:
    """No further thread or process, once libraries are loaded. The kernel does not hold root to it."""
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _leave_the_network() -> None:
    """Into a network of its own without a way out, where the kernel lets us: as root, or in a user namespace. Where it
    does not, the limits must do; what is opened is data in either case."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.unshare(_CLONE_NEWNET) == 0:
        return
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return
    with contextlib.suppress(OSError):  # without a mapping it could make no file, which it need not
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
