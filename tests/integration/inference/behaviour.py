"""What the suites of engines ask of each: inputs of every datatype, and refusals that are nobody else's."""

import asyncio
from typing import Any

import numpy as np
from mercat.registry.v1 import registry_pb2

from services.common.texts.limits import Limits
from services.inference.engines import Loaded, ModelRefused
from services.inference.text.process import DecoderProcess
from tests import graphs


async def no_prompts(deployment: registry_pb2.Deployment, limits: Limits) -> DecoderProcess:
    raise AssertionError("these models take tensors")


def values(shape: tuple[int, ...], seed: int = 0) -> dict[str, Any]:
    """Inputs of `graphs.echo`."""
    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    for name in graphs.ECHOED:
        if name == "text":
            made[name] = np.array([f"ä{n}" * (n % 3) for n in range(int(np.prod(shape)))], object).reshape(shape)
        elif name == "bool":
            made[name] = rng.integers(0, 2, shape).astype(bool)
        elif name[0] == "f":
            made[name] = rng.standard_normal(shape).astype(f"f{int(name[1:]) // 8}")
        else:
            made[name] = rng.integers(0, 100, shape).astype(f"{name[0]}{int(name[1:]) // 8}")
    return made


async def refuses_each_for_itself(model: Loaded, output: str, said: str) -> None:
    """Of many calls at once of a model that squares indices from 0 to 3, one in ten asks for another index."""
    good, bad = {"index": np.array([3, 2])}, {"index": np.array([1, 9])}
    answers = await asyncio.gather(
        *(model.run(bad if n % 10 == 5 else good, [output]) for n in range(40)), return_exceptions=True
    )
    for n, answer in enumerate(answers):
        if n % 10 == 5:
            assert isinstance(answer, ModelRefused)
            assert said in answer.message
        else:
            assert isinstance(answer, dict)
            assert answer[output].tolist() == [9, 4]
