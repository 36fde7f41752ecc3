"""Plans and subscriptions, for people."""

from mercat.billing.v1 import plans_pb2, plans_pb2_grpc

from services.billing.ledger import CURRENCY
from services.billing.models import Models
from services.billing.subscriptions.changes import Changed, Changes
from services.billing.subscriptions.store import (
    ENTERPRISE,
    PAY_AS_YOU_GO,
    Row,
    Subscription,
    SubscriptionStore,
    starting,
)
from services.common import audit, pages
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import InvalidFields, NotFound, Violation
from services.common.rpc.channels import InternalChannel
from services.common.rpc.context import Context, caller

_FIRST = (-1, "")  # sorts before every plan


class SubscriptionNotFound(NotFound, reason="SUBSCRIPTION_NOT_FOUND"): ...


class OfferNotFound(NotFound, reason="OFFER_NOT_FOUND"):
    """The model is not offered by the month."""


class _OnlyAsked(Exception):
    """Rolls back what was only to be seen."""


class PlanServicer(plans_pb2_grpc.PlanServiceServicer):
    """Serves `mercat.billing.v1.PlanService`."""

    def __init__(
        self, database: Database, store: SubscriptionStore, changes: Changes, control: InternalChannel, clock: Clock,
        fee_ppm: int,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._changes = changes
        self._models = Models(control)
        self._clock = clock
        self._fee_ppm = fee_ppm

    async def ListPlans(self, request: plans_pb2.ListPlansRequest, context: Context) -> plans_pb2.ListPlansResponse:
        key, most = pages.decode(request.page_token, int, str), pages.size(request.page_size)
        after = (int(key[0]), str(key[1])) if key else _FIRST
        async with self._database.connection() as connection:
            rows = await self._store.list_plans(connection, after, most + 1)
        last = rows[most - 1] if len(rows) > most else None
        return plans_pb2.ListPlansResponse(
            plans=[
                plans_pb2.Plan(
                    plan_id=r["id"], name=r["name"], monthly_nanos=r["monthly_nanos"], trial_days=r["trial_days"],
                    platform_fee_ppm=self._fee_ppm if r["fee_ppm"] is None else r["fee_ppm"],
                )
                for r in rows[:most]
            ],
            next_page_token=pages.encode([last["monthly_nanos"], last["id"]]) if last else "",
        )  # fmt: skip

    async def GetSubscription(
        self, request: plans_pb2.GetSubscriptionRequest, context: Context
    ) -> plans_pb2.GetSubscriptionResponse:
        principal = caller()
        async with self._database.connection() as connection:
            found = await self._store.of(connection, principal.org_id)
        if not found or found[0].model_id:  # the sign-up has not been heard of yet
            found.insert(0, starting(principal.org_id, principal.user_id, PAY_AS_YOU_GO, self._clock.now()))
        plan, *models = (self._message(s) for s in found)
        return plans_pb2.GetSubscriptionResponse(subscription=plan, models=models)

    async def ChangePlan(self, request: plans_pb2.ChangePlanRequest, context: Context) -> plans_pb2.ChangePlanResponse:
        principal = caller()
        try:
            async with self._database.transaction() as connection:
                plan = await self._store.get_plan(connection, request.plan_id)
                if plan is None or not plan["public"]:
                    known = ", ".join(r["id"] for r in await self._store.list_plans(connection, _FIRST, pages.MOST))
                    raise InvalidFields(violations=[Violation("plan_id", f"is no plan to choose; choose {known}")])
                made = await self._changes.change_plan(
                    connection, principal.org_id, principal.user_id, plan, self._clock.now()
                )
                audit.about("subscription", made.subscription.id)
                if request.validate_only:
                    raise _OnlyAsked
        except _OnlyAsked:
            made = Changed(made.subscription, made.change)
        return plans_pb2.ChangePlanResponse(
            subscription=self._message(made.subscription), credit_nanos=made.change.credit,
            charge_nanos=made.change.charge, invoice_id=made.invoice_id,
        )  # fmt: skip

    async def CancelSubscription(
        self, request: plans_pb2.CancelSubscriptionRequest, context: Context
    ) -> plans_pb2.CancelSubscriptionResponse:
        principal, now = caller(), self._clock.now()
        audit.about("subscription", request.subscription_id)
        async with self._database.transaction() as connection:
            found = await self._changes.current(connection, principal.org_id, principal.user_id, now)
            was = next((s for s in found if s.id == request.subscription_id), None)
            if was is None:
                raise SubscriptionNotFound(f"you have no subscription {request.subscription_id}")
            made = await self._changes.cancel(connection, was, now, at_once=request.at_once)
        return plans_pb2.CancelSubscriptionResponse(subscription=self._message(made.subscription))

    async def SetEnterpriseTerms(
        self, request: plans_pb2.SetEnterpriseTermsRequest, context: Context
    ) -> plans_pb2.SetEnterpriseTermsResponse:
        async with self._database.transaction() as connection:
            if not await self._store.of(connection, request.org_id):
                raise SubscriptionNotFound(f"there is no organisation {request.org_id}")
            terms = {
                "id": ENTERPRISE, "monthly_nanos": request.monthly_nanos, "fee_ppm": request.platform_fee_ppm,
                "trial_days": 0,
            }  # fmt: skip
            made = await self._changes.change_plan(connection, request.org_id, "", terms, self._clock.now())
            audit.about("subscription", made.subscription.id)
        return plans_pb2.SetEnterpriseTermsResponse(subscription=self._message(made.subscription))

    async def SetModelOffer(
        self, request: plans_pb2.SetModelOfferRequest, context: Context
    ) -> plans_pb2.SetModelOfferResponse:
        owner = await self._models.own(request.model)
        audit.about("model", owner.model_id)
        if request.discount_ppm and not request.monthly_nanos:
            raise InvalidFields(violations=[Violation("discount_ppm", "is of an offer with a fee")])
        offer = plans_pb2.ModelOffer(
            model=request.model, monthly_nanos=request.monthly_nanos, currency=CURRENCY,
            discount_ppm=request.discount_ppm,
        )  # fmt: skip
        async with self._database.transaction() as connection:
            if request.monthly_nanos:
                await self._store.put_offer(
                    connection, model_id=owner.model_id, model=owner.model, publisher_org_id=owner.org_id,
                    price=request.monthly_nanos, discount_ppm=request.discount_ppm, now=self._clock.now(),
                )  # fmt: skip
            else:
                await self._store.drop_offer(connection, owner.model_id)
        return plans_pb2.SetModelOfferResponse(offer=offer)

    async def GetModelOffer(
        self, request: plans_pb2.GetModelOfferRequest, context: Context
    ) -> plans_pb2.GetModelOfferResponse:
        async with self._database.connection() as connection:
            row = await self._offer(connection, request.model)
        offer = plans_pb2.ModelOffer(
            model=row["model"], monthly_nanos=row["price"], currency=CURRENCY, discount_ppm=row["discount_ppm"]
        )
        return plans_pb2.GetModelOfferResponse(offer=offer)

    async def SubscribeToModel(
        self, request: plans_pb2.SubscribeToModelRequest, context: Context
    ) -> plans_pb2.SubscribeToModelResponse:
        principal = caller()
        async with self._database.transaction() as connection:
            offer = await self._offer(connection, request.model)
            if offer["publisher_org_id"] == principal.org_id:
                raise InvalidFields(violations=[Violation("model", "is your own")])
            made = await self._changes.subscribe_to_model(
                connection, principal.org_id, principal.user_id, offer, self._clock.now()
            )
            audit.about("subscription", made.subscription.id)
        return plans_pb2.SubscribeToModelResponse(
            subscription=self._message(made.subscription), invoice_id=made.invoice_id
        )

    async def _offer(self, connection: Connection, model: str) -> Row:
        owner = await self._models.known(model)
        row = await self._store.get_offer(connection, owner.model_id) if owner.published else None
        if row is None:
            raise OfferNotFound(f"{model} is not offered by the month")
        return row

    def _message(self, s: Subscription) -> plans_pb2.Subscription:
        made = plans_pb2.Subscription(
            subscription_id=s.id, org_id=s.org_id, plan_id=s.plan_id or "",
            status=plans_pb2.Subscription.Status.Value(f"STATUS_{s.status.upper()}"), model=s.model,
            monthly_nanos=s.price, platform_fee_ppm=self._fee_ppm if s.fee_ppm is None else s.fee_ppm,
            cancel_at_period_end=s.cancel, discount_ppm=s.discount_ppm,
        )  # fmt: skip
        made.current_period_start.FromDatetime(s.start)
        made.current_period_end.FromDatetime(s.end)
        made.created_at.FromDatetime(s.created_at)
        if s.trial_end is not None:
            made.trial_end.FromDatetime(s.trial_end)
        if s.canceled_at is not None:
            made.canceled_at.FromDatetime(s.canceled_at)
        return made
