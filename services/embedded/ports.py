"""Free ports of 127.0.0.1 for servers that cannot listen on a Unix socket."""

import errno
import random
import socket

# Below the range Linux takes the local ports of outgoing connections from (32768 on), so that a server that is
# restarted finds its port free.
_FIRST, _LAST = 15000, 32000


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
    """Ports that nobody listens on now, each once."""
    chance = chance or random.SystemRandom()
    found: list[int] = []
    while len(found) < count:
        port = chance.randrange(_FIRST, _LAST)
        if port not in found and is_free(port):
            found.append(port)
    return found
