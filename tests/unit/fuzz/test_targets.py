"""A short run of each fuzz target; `python -m tests.fuzz TARGET --runs 1000000` is the long one."""

import base64
import random

import pytest

from tests.fuzz.__main__ import loop
from tests.fuzz.mutate import Mutator
from tests.fuzz.targets import TARGETS

RUNS = 3_000


@pytest.mark.parametrize("name", TARGETS)
async def test_nothing_crashes(name: str, seed_number: int) -> None:
    assert loop(name, RUNS, seed_number) == 0


@pytest.mark.parametrize("name", TARGETS)
async def test_what_it_begins_from_is_good(name: str) -> None:
    """Else the runs would be about how soon everything is refused."""
    target = TARGETS[name]()
    assert target.seeds
    for data in target.seeds:
        assert len(data) <= target.longest
        target.run(data)


# Inputs that crashed once, by target, in base64.
MENDED = [
    ("gguf", ""),
    ("oauth-token", "QmFzaWMg6Q=="),
    ("oauth-token", "CmdyYW50X3R5cGUAPXg="),
    ("archive", "H4sI"),
    ("archive", "H4sIlQAA"),
    ("tus", "bmFtZSBRLj09bmFtWyB0+Q=="),
    ("pickle", "gAJjX190b3JjaF9fLm0KTQopgXJjdAopUnNiLg=="),
    ("pickle", "gAJTJ1xvJwou"),
    (
        "http2",
        (
            "AAAMBAAAAAAAAAQAAABkAAUAEAAAAABDAQQAAAABAAc6bWV0aG9kBFBPU1QABTpwYXRoBC8AAAAAAAAAAAQIYS9iAAxjb250ZW50LXR5"
            "cGUQYXBwbGljYW9udC9pZ3JwYwAFYS1iaW4CQUEAAAoAAQB0AAABAAAAAAVoZWxsbw=="
        ),
    ),
]


@pytest.mark.parametrize(("name", "text"), MENDED)
async def test_what_crashed_once_does_not(name: str, text: str) -> None:
    TARGETS[name]().run(base64.b64decode(text))


def test_a_crash_is_counted_and_one_seed_makes_one_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.fuzz.target import Target

    def run(data: bytes) -> None:
        if b"[" in data:
            raise RecursionError("as a parser would")

    monkeypatch.setitem(TARGETS, "breaks", lambda: Target(run, [b"a", b"bcd"]))
    crashes = loop("breaks", 2_000, 7)
    assert crashes > 0
    assert crashes == loop("breaks", 2_000, 7)
    assert "RecursionError" in capsys.readouterr().out
    made = [Mutator([b"abc"], 20, random.Random(3)).make() for _ in range(2)]
    assert made[0] == made[1]
