"""Whose word is taken for a caller's address."""

import time

import pytest

from services.common.rpc.addresses import DOOR_KEY, EDGE_KEY, Addresses, Edge, door_token

PEER = "ipv4:198.51.100.1:4711"
ADDRESSES = Addresses("internal")
DOOR = {DOOR_KEY: f"{door_token('internal')} 203.0.113.9"}


def test_the_front_doors_word_is_taken() -> None:
    assert ADDRESSES.of(DOOR, PEER) == "203.0.113.9"


def test_the_web_edges_word_is_taken_over_the_front_doors() -> None:
    """Its calls pass the front door, which sees the web edge's own address."""
    assert ADDRESSES.of({**DOOR, EDGE_KEY: Edge("internal").say({"address": "2001:db8::7"})}, PEER) == "2001:db8::7"


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"x-forwarded-for": "203.0.113.9"},
        {DOOR_KEY: "203.0.113.9"},
        {DOOR_KEY: f"{door_token('guess')} 203.0.113.9"},
        {DOOR_KEY: " 203.0.113.9"},
        {DOOR_KEY: "ü 203.0.113.9"},
        {EDGE_KEY: "203.0.113.9"},
        {EDGE_KEY: ""},
        {EDGE_KEY: "AAAA"},
        {EDGE_KEY: Edge("guess").say({"address": "203.0.113.9"})},
    ],
)
def test_nobody_elses_is(metadata: dict[str, str]) -> None:
    assert ADDRESSES.of(metadata, PEER) == "198.51.100.1"


def test_what_was_said_long_ago_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Edge("internal").say({"address": "203.0.113.9"})
    now = time.time()
    for later, expected in ((50, "203.0.113.9"), (70, "198.51.100.1"), (-70, "198.51.100.1")):
        monkeypatch.setattr(time, "time", lambda at=now + later: at)
        assert ADDRESSES.of({EDGE_KEY: said}, PEER) == expected


def test_without_a_token_nobody_is_believed() -> None:
    nobody = Addresses("")
    assert door_token("") == ""
    for metadata in ({DOOR_KEY: " 203.0.113.9"}, {EDGE_KEY: Edge("").say({"address": "203.0.113.9"})}):
        assert nobody.of(metadata, PEER) == "198.51.100.1"


def test_peers() -> None:
    assert ADDRESSES.of({}, "ipv6:[2001:db8::1]:4711") == "2001:db8::1"
    assert ADDRESSES.of({}, "unix:/tmp/socket") == "local"
