"""Ports that are handed out before anybody listens on them."""

import multiprocessing
import random
import socket
import sys

import pytest

from services.embedded.ports import free_ports, is_free


def _given(seed: int, ports: "multiprocessing.Queue[list[int]]", end: "multiprocessing.synchronize.Event") -> None:
    ports.put(free_ports(3, chance=random.Random(seed)))
    end.wait(60)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not let a server listen on a port that is held")
def test_nobody_is_given_what_another_process_was_given():
    spawn = multiprocessing.get_context("spawn")
    ports, end = spawn.Queue(), spawn.Event()
    other = spawn.Process(target=_given, args=(7, ports, end))
    other.start()
    try:
        theirs = ports.get(timeout=60)
        mine = free_ports(3, chance=random.Random(7))
        assert not set(theirs) & set(mine)
        for port in theirs:  # whose they are may listen, twice where ports are shared
            with socket.create_server(("127.0.0.1", port)):
                assert not is_free(port)
            with (
                socket.create_server(("127.0.0.1", port), reuse_port=True),
                socket.create_server(("127.0.0.1", port), reuse_port=True),
            ):
                pass
            assert is_free(port)
    finally:
        end.set()
        other.join()
    assert free_ports(3, chance=random.Random(7)) == theirs
