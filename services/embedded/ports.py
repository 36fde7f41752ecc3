"""Free ports of 127.0.0.1 for servers that cannot listen on a Unix socket."""

import errno
import os
import random
import socket
import sys
from collections import deque

# Below the range Linux takes the local ports of outgoing connections from (32768 on), so that a server that is
# restarted finds its port free.
_FIRST, _LAST = 15000, 32000

# Bound and never listening, so that who asks next is not given what a server is yet to listen on. Linux lets that
# server listen all the same; other systems do not.
_held: deque[int] = deque()  # file descriptors
_MOST = 128  # held


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now. OSError when the host is not an address of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def free_ports(count: int, *, chance: random.Random | None = None) -> list[int]:
    """Ports that nobody listens on now, each once. On Linux no other process is given them while this one lives."""
    chance = chance or random.SystemRandom()
    found: list[int] = []
    while len(found) < count:
        port = chance.randrange(_FIRST, _LAST)
        if port not in found and _hold(port):
            found.append(port)
    return found


def _hold(port: int) -> bool:
    """Whether the port was free and held by nobody."""
    if sys.platform != "linux":
        return is_free(port)
    held = socket.socket()
    try:
        held.bind(("127.0.0.1", port))
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _held.append(held.detach())
    if len(_held) > _MOST:
        os.close(_held.popleft())
    return True
