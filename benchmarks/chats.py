"""A client that holds chats: many at a time, some beside one with a long prompt, one in turn with the engine's own
loop, or many that it leaves in the middle.

python -m benchmarks.chats JOB.json
"""

import asyncio
import itertools
import json
import random
import sys
import time
from pathlib import Path
from statistics import median, quantiles

import uvloop

from benchmarks.callers import KINDS, Caller, Heard, Messages

_RANDOM = random.SystemRandom()
_USUAL = 2.0  # seconds of usual gaps, before the long prompt comes


def conversation(longer: int = 0) -> Messages:
    """One that begins like no other, so that no server knows a part of it; all of one `longer` have as many tokens,
    and about as many more than those of 0."""
    number = f"{_RANDOM.randrange(10**12):012}"
    asked = "Tell me a long story about a ship and an island"
    return ("system", f"Conversation {number}."), ("user", asked + " island" * longer)


def first_length(caller: int, callers: int, tokens: int) -> int:
    """Tokens of a caller's first answer, such that not all callers come to their next ones together."""
    return max(1, tokens * (caller + 1) // callers)


async def steady(job: dict, callers: list[Caller]) -> dict:
    """Chats one after the other for `seconds` from the time on when each caller has had a token. The last ones end,
    uncounted but for what they took, unless they are `cut`."""
    lengths = [first_length(number, len(callers), job["answer"]) for number in range(len(callers))]
    first = [await caller.ask(conversation(), most) for caller, most in zip(callers, lengths, strict=True)]
    heard = list(first)
    end = float("inf")

    async def talk(caller: Caller, current: Heard) -> None:
        await current.ended.wait()
        while time.perf_counter() < end:
            current = await caller.ask(conversation(), job["answer"])
            heard.append(current)
            await current.ended.wait()

    talks = [asyncio.create_task(talk(*pair)) for pair in zip(callers, first, strict=True)]
    await asyncio.gather(*(each.began.wait() for each in first))
    began = time.perf_counter()
    end = began + job["seconds"]
    if job["cut"]:
        await asyncio.sleep(job["seconds"])
        for each in talks:
            each.cancel()
    await asyncio.wait(talks)
    if not any(each.times for each in heard):
        sys.exit("no chat came to its first token")
    came = [(at, n) for each in heard for at, n in zip(each.times, each.tokens, strict=True)]
    return {
        "tokens_per_second": sum(n for at, n in came if began < at <= end) / job["seconds"],
        "first_token_ms": median(each.times[0] - each.asked for each in heard if each.times) * 1e3,
        **gaps([each.times for each in heard], began, end),
        "broken": sum(each.ended.is_set() and not each.whole for each in heard),
        "tokens": sum(n for _, n in came),
        "messages": sum(each.messages for each in heard),
        "octets": sum(caller.octets for caller in callers),
    }


async def beside(job: dict, callers: list[Caller]) -> dict:
    """The gaps between tokens of all but one caller, before and while that one has a prompt of `longer` more tokens."""
    *others, last = callers
    heard = [await caller.ask(conversation(), job["answer"]) for caller in others]
    await asyncio.gather(*(each.began.wait() for each in heard))
    began = time.perf_counter()
    await asyncio.sleep(_USUAL)
    coming = await last.ask(conversation(job["longer"]), 1)
    await coming.began.wait()
    times = [each.times for each in heard]
    found = {
        "usual": gaps(times, began, coming.asked),
        "meanwhile": gaps(times, coming.asked, coming.times[0]),
        "first_token_ms": (coming.times[0] - coming.asked) * 1e3,
    }
    for caller in callers:
        caller.close()
    return found


async def in_pairs(job: dict, callers: list[Caller]) -> dict:
    """Milliseconds to the first token of as many chats as there are callers and to the last of all of them, `number`
    times and after some to warm up, each beside those of the engine's own loop just before: `floor` is its command."""
    pipe = asyncio.subprocess.PIPE
    floor = await asyncio.create_subprocess_exec(*job["floor"], stdin=pipe, stdout=pipe)
    assert floor.stdin is not None
    assert floor.stdout is not None
    found: dict[str, list[tuple[float, ...]]] = {"own": [], "through": []}
    for turn in range(-job["warm_up"], job["number"]):
        floor.stdin.write(b"%d\n" % len(callers))
        own = tuple(map(float, (await floor.stdout.readline()).split()))
        heard = await asyncio.gather(*(caller.ask(conversation(), job["answer"]) for caller in callers))
        await asyncio.gather(*(each.ended.wait() for each in heard))
        if not all(each.whole for each in heard):
            sys.exit("a chat was not answered to its end")
        if turn >= 0:
            asked = min(each.asked for each in heard)
            first, last = min(each.times[0] for each in heard), max(each.times[-1] for each in heard)
            found["own"].append(own)
            found["through"].append(((first - asked) * 1e3, (last - asked) * 1e3))
    floor.stdin.close()
    await floor.wait()
    return found


async def left(job: dict, callers: list[Caller]) -> dict:
    """`number` chats, as many at a time as there are callers, each left after a random time of up to `seconds`: by the
    protocol's own way or with the connection."""
    numbers = iter(range(job["number"]))
    found = {"before_first": 0, "in_the_middle": 0, "whole": 0}

    async def talk(caller: Caller) -> None:
        for _ in numbers:
            heard = await caller.ask(conversation(), job["answer"])
            await asyncio.sleep(_RANDOM.uniform(0, job["seconds"]))
            found["whole" if heard.whole else "in_the_middle" if heard.times else "before_first"] += 1
            if _RANDOM.random() < 0.5:
                caller.leave()
            else:
                caller.close()
                caller = caller_of(job)
        caller.close()

    await asyncio.gather(*(talk(caller) for caller in callers))
    return found


def gaps(times: list[list[float]], began: float, end: float) -> dict[str, float]:
    """What lay between messages with tokens in a time, milliseconds."""
    found = [(b - a) * 1e3 for each in times for a, b in itertools.pairwise(each) if began < b <= end]
    cuts = quantiles(found, n=100, method="inclusive") if len(found) > 1 else [0.0] * 99
    return {"gap_p50_ms": cuts[49], "gap_p99_ms": cuts[98]}


def caller_of(job: dict) -> Caller:
    return KINDS[job["kind"]](job["target"], job["key"], job["model"])


async def main(job: dict) -> dict:
    callers = [caller_of(job) for _ in range(job["callers"])]
    return await {"steady": steady, "beside": beside, "in_pairs": in_pairs, "left": left}[job["what"]](job, callers)


if __name__ == "__main__":
    print(json.dumps(uvloop.run(main(json.loads(Path(sys.argv[1]).read_text())))))
