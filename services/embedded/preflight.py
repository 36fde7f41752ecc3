"""What is looked at before anything is started, so that a refusal leaves nothing behind."""

import contextlib
import errno
import platform
import sys

import psutil

from services.embedded.errors import StartError
from services.embedded.ports import is_free

SYSTEMS = {"Linux": ("x86_64", "aarch64"), "Darwin": ("x86_64", "arm64")}


def check_platform(system: str = "", machine: str = "", python: tuple[int, ...] = ()) -> None:
    """StartError unless the embedded servers exist for this kind of machine."""
    system, machine = system or platform.system(), (machine or platform.machine()).replace("AMD64", "x86_64")
    python = python or sys.version_info[:2]
    if python < (3, 11):
        raise StartError(f"Mercat needs Python 3.11 or newer and this is {python[0]}.{python[1]}; install a newer one.")
    if machine not in SYSTEMS.get(system, ()):
        raise StartError(
            f"The embedded servers do not exist for {system} on {machine}, "
            "only for Linux and macOS on x86-64 and ARM64; "
            "use one of those, a container, or WSL 2 on Windows."
        )


def check_ports(host: str, port: int, tls_port: int | None) -> None:
    """StartError unless the front door can listen."""
    for number, note in ((port, ""), (tls_port, f" (TLS is served at {port} + 443)")):
        if number is None:
            continue
        try:
            free = is_free(number, host)
        except PermissionError as error:
            raise StartError(
                f"Port {number}{note} may only be used by root; choose one above 1023 with --port."
            ) from error
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, -2, -3, -5):
                raise StartError(f"{host} is not an address of this machine; correct MERCAT_HOST.") from error
            raise StartError(
                f"Port {number} of {host} cannot be used ({error.strerror}); choose another with --port."
            ) from error
        if not free:
            raise StartError(
                f"Port {number}{note} is taken{_by(number)}; end that, or choose another port with --port."
            )


def _by(port: int) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and tuple(connection.laddr)[1:2] == (port,) and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""
