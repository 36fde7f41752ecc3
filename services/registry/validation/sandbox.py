"""What a child gives up on top of `confine` before it runs a publisher's program and not only reads data: all files but
a few to read and one folder to write, its capabilities, and the calls by which it could reach other processes.

Landlock, seccomp and capabilities of Linux, by the kernel's own numbers: <linux/landlock.h>, <linux/seccomp.h>,
<linux/capability.h>."""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # alike on every architecture
_ASK_VERSION = 1
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}  # rights by version; then all 16
_NETWORK = 0b11  # bind and connect, from version 4 on
_SCOPED = 0b11  # abstract sockets and signals of others, from version 6 on

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_FILTER = 38, 22, 2
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_MACHINES = {
    # the audit number of the architecture; then capset, socket, connect, ptrace, kill, tkill, execve, execveat,
    # unshare, setns, process_vm_readv, process_vm_writev, pidfd_send_signal, pidfd_getfd, io_uring_setup, setpgid and
    # setsid, with which it would escape the end of its group
    "x86_64": (0xC000003E, 126, (41, 42, 101, 62, 200, 59, 322, 272, 308, 310, 311, 424, 438, 425, 109, 112)),
    "aarch64": (0xC00000B7, 91, (198, 203, 117, 129, 130, 221, 281, 97, 268, 270, 271, 424, 438, 425, 154, 157)),
}

# What interpreters and numeric libraries look at on their way.
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom", "/dev/zero",
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm", "/sys/devices/system",
)  # fmt: skip


class NoSandbox(Exception):
    """This kernel cannot hold a program; what is missing, in words."""


def enter(readable: Iterable[Path], writable: Path) -> None:
    """For good, for this process and all its threads to come; call it while there is one thread. Files that are open
    stay so. Raises NoSandbox."""
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None:
        raise NoSandbox(f"there is none for {sys.platform} on {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _landlock(libc, [*map(Path, _SYSTEM), *readable], writable)
    architecture, capset, forbidden = machine
    nothing = ctypes.create_string_buffer(24)  # no effective, permitted or inheritable capability
    if libc.syscall(capset, struct.pack("=Ii", 0x20080522, 0), nothing) != 0:
        raise NoSandbox(f"capabilities cannot be given up: {os.strerror(ctypes.get_errno())}")
    _seccomp(libc, architecture, forbidden)


def _landlock(libc: ctypes.CDLL, readable: list[Path], writable: Path) -> None:
    version = libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
    if version < 1:
        raise NoSandbox(f"the kernel has no Landlock: {os.strerror(ctypes.get_errno())}")
    rights = _FILES.get(version, (1 << 16) - 1)
    handled = struct.pack("=QQQ", rights, _NETWORK if version >= 4 else 0, _SCOPED if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = libc.syscall(_CREATE_RULESET, handled, size, 0)
    if rules < 0:
        raise NoSandbox(f"Landlock refuses: {os.strerror(ctypes.get_errno())}")
    try:
        for path in readable:
            _rule(libc, rules, path, rights & _READ)
        _rule(libc, rules, Path("/dev/null"), rights & (_READ | _WRITE_FILE))
        _rule(libc, rules, writable, rights & ~_EXECUTE)
        if libc.syscall(_RESTRICT_SELF, rules, 0) != 0:
            raise NoSandbox(f"Landlock refuses: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(rules)


def _rule(libc: ctypes.CDLL, rules: int, path: Path, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)  # type: ignore[attr-defined,unused-ignore]
    except FileNotFoundError:
        return
    try:
        allowed = rights if path.is_dir() else rights & _OF_FILES
        if libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", allowed, opened), 0) != 0:
            raise NoSandbox(f"Landlock refuses a rule: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(opened)


def _seccomp(libc: ctypes.CDLL, architecture: int, forbidden: tuple[int, ...]) -> None:
    """Calls by number are EPERM, and so is every call of another architecture (or, on x86-64, of x32)."""
    count = len(forbidden)
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 0, count + 3, architecture), (_LOAD, 0, 0, 0)]
    program.append((0x35, count + 1, 0, 0x40000000))  # numbers from here on are x32's
    program += [(_EQUAL, count - i, 0, number) for i, number in enumerate(forbidden)]
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _EPERM)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    wanted = struct.pack("@HP", len(program), ctypes.addressof(code))
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, wanted, 0, 0) != 0:
        raise NoSandbox(f"the kernel takes no filter of calls: {os.strerror(ctypes.get_errno())}")
