"""What calls would cost now, and for how long that holds."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from mercat.inference.v1 import inference_pb2

from services.common import money, pricing
from services.common.clock import Clock
from services.common.errors import InvalidFields, Violation
from services.common.predict import read_inputs
from services.common.pricing import Line, Rated
from services.common.rpc.context import Call
from services.inference.allowance import span
from services.inference.charge import too_large
from services.inference.deployments import Deployment
from services.inference.hotpath import HotPath, TextOnly
from services.inference.positions import key_of

_CACHED = "cached_input_tokens"
_HOLDS = timedelta(minutes=5)


class Quotes:
    """Prices calls without running them."""

    def __init__(self, path: HotPath, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    async def quote(self, call: Call, request: inference_pb2.QuoteRequest) -> inference_pb2.QuoteResponse:
        """Raises ModelNotFound and the like, InvalidFields, BadTensor, TextOnly, CostTooLarge, Unavailable."""
        if bool(request.inputs) == bool(request.units):
            raise InvalidFields(violations=[Violation("inputs", "give either `inputs` or `units`")])
        deployments, caller = self._path.deployments, call.principal
        deployment = deployments.cached(request.model, caller) or await deployments.get(request.model, caller)
        units = self._units(call, deployment, request)
        calls, test, org_id = request.calls or 1, call.principal.test, call.principal.org_id
        positions: Mapping[str, int] = {}
        if deployment.counted and not test:
            key = key_of(org_id, deployment.proto.model_id, call.arrived_ms)
            nothing = dict.fromkeys(deployment.counted, 0)
            positions = await self._path.positions.take(key, nothing, deployment.price_since)
        rated = Rated(positions, deployment.discounts.get(org_id, 0))
        try:
            cost, lines = (0, []) if test else _together(deployment.price, units, rated, calls)
        except OverflowError:
            raise too_large() from None
        proto = deployment.proto
        response = inference_pb2.QuoteResponse(
            model=proto.model, version=proto.version, price_id=deployment.price_id, currency=deployment.currency,
            cost_nanos=cost, units={meter: count * calls for meter, count in units.items()}, calls=calls,
            lines=[
                inference_pb2.QuoteLine(
                    kind=line.kind, meter=line.meter, tier=line.tier, units=line.units, amount_nanos=line.nanos  # type: ignore[arg-type]
                )
                for line in lines
            ],
            positions=positions, discount_ppm=rated.discount_ppm, at_most=bool(request.inputs) and deployment.measured,
        )  # fmt: skip
        if not test:
            _allow(response, deployment.price, key_of(org_id, proto.model_id, call.arrived_ms).span()[1])
        response.valid_until.FromDatetime(self._valid_until(deployment))
        return response

    def _units(self, call: Call, deployment: Deployment, request: inference_pb2.QuoteRequest) -> dict[str, int]:
        """What one call is counted as."""
        if request.inputs:
            if deployment.decodes:
                raise TextOnly(f"{request.model} goes on with texts: quote its `units`, such as input_tokens")
            inputs = read_inputs(request, deployment.signature)
            priced = self._path.price(call, deployment, inputs)
            units = dict(priced.units)
            if deployment.measured:  # the most that a call with these inputs can come to
                deadline = asyncio.get_running_loop().time() + deployment.timeout
                outputs = deployment.signature.output_names
                units |= self._path.most(deployment, inputs, priced.rows, outputs, deadline)
            return units
        pricing.check_meters(request.units)
        units = {"requests": 1} | dict(request.units)
        if _CACHED in units and all(c.meter != _CACHED for c in deployment.price.components):
            units["input_tokens"] = units.get("input_tokens", 0) + units.pop(_CACHED)  # as calls are charged
        return units

    def _valid_until(self, deployment: Deployment) -> datetime:
        now = self._clock.now()
        ends = [now + _HOLDS, span("monthly", now)[1]]
        if deployment.upcoming:
            ends.append(deployment.upcoming[0].effective_at.ToDatetime(UTC))
        return min(ends)


def _allow(response: inference_pb2.QuoteResponse, price: pricing.Price, resets_at: datetime) -> None:
    """Says what of the month is free, and how much of it the quoted units take."""
    for c in price.allowances:
        before = c.left(response.positions[c.meter])
        covered = min(response.units.get(c.meter, 0), before)
        allowance = response.allowances.add(
            meter=c.meter, free_units=c.free_units, covered_units=covered, left_units=before - covered
        )
        allowance.resets_at.FromDatetime(resets_at)


def _together(
    price: pricing.Price, units: Mapping[str, int], rated: Rated, calls: int
) -> tuple[int, list[Line]]:  # fmt: skip
    """Calls one after the other: what they cost, each rounded, and equal lines as one."""
    total, lines = 0, dict[tuple[int, str, int], Line]()
    positions = dict(rated.positions)
    for _ in range(calls if positions else 1):
        cost, made = pricing.bill(price, units, rated._replace(positions=positions))
        total += cost
        for line in made:
            same = lines.get(key := line[:3])
            lines[key] = line if same is None else line._replace(
                units=same.units + line.units, millionths=same.millionths + line.millionths
            )  # fmt: skip
        for meter in positions:
            positions[meter] += units.get(meter, 0)
    if not positions:
        total *= calls
        lines = {k: x._replace(units=x.units * calls, millionths=x.millionths * calls) for k, x in lines.items()}
    if total > money.INT64_MAX:
        raise pricing.TooDear("calls past int64 nanos")
    return total, list(lines.values())
