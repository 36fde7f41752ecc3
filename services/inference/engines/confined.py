"""How a process that runs other people's models is started and what it may do."""

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "GLIBC_TUNABLES")
# The C library's memory in huge pages, where the kernel leaves that to the program: a run reads all weights, and finds
# them by fewer translations. Measured: 3 % of MiniLM's time.
_HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def environment() -> dict[str, str]:
    """This process's, without its secrets."""
    return _HUGE_PAGES | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


def confine(memory_mib: int) -> None:
    """Called by the process itself: it ends with its parent, gains no rights, leaves no core, and has at most so much
    address space, MiB."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
