"""Budgets for people."""

from datetime import UTC, date

from mercat.auth.v1 import auth_pb2, auth_pb2_grpc
from mercat.billing.v1 import budgets_pb2, budgets_pb2_grpc

from services.billing.budgets.store import Budget, BudgetStore
from services.billing.ledger import CURRENCY
from services.billing.models import Models
from services.billing.recalls import ALL, recall
from services.billing.store import Store
from services.common import audit, ids, pages
from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import InvalidFields, NotFound, ResourceExhausted, Unauthenticated, Violation
from services.common.events import Events
from services.common.rpc.channels import InternalChannel
from services.common.rpc.context import Context, caller

_MOST = 100  # budgets of an organisation: each lease looks at all of them


class BudgetNotFound(NotFound, reason="BUDGET_NOT_FOUND"): ...


class BudgetServicer(budgets_pb2_grpc.BudgetServiceServicer):
    """Serves `mercat.billing.v1.BudgetService`."""

    def __init__(
        self, database: Database, store: Store, budgets: BudgetStore, control: InternalChannel, events: Events,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._budgets = budgets
        self._auth = auth_pb2_grpc.PrincipalServiceStub(control)
        self._models = Models(control)
        self._events = events
        self._clock = clock

    async def SetBudget(self, request: budgets_pb2.SetBudgetRequest, context: Context) -> budgets_pb2.SetBudgetResponse:
        if request.key_id and request.model:
            raise InvalidFields(violations=[Violation("model", "a budget is by key or by model, not both")])
        org_id = caller().org_id
        if request.key_id:
            await self._check_key(request.key_id)
        model_id = (await self._models.known(request.model)).model_id if request.model else ""
        async with self._database.transaction() as connection:
            await self._store.lock_or_open_wallets(connection, [org_id])
            now = self._clock.now()
            await self._budgets.put_budget(
                connection, id=ids.new("bdg"), org_id=org_id, name=request.name, key_id=request.key_id,
                model_id=model_id, model=request.model, period=request.period, limit_nanos=request.limit_nanos,
                notify_only=request.notify_only, thresholds=sorted(set(request.thresholds)), now=now,
            )  # fmt: skip
            # What workers hold was set aside without this budget.
            await self._store.end_leases(connection, org_id, now)
            day = now.astimezone(UTC).date()
            await self._budgets.tell(connection, [org_id], day, now)
            found = {b.name: b for b in await self._budgets.states(connection, [org_id], day)}
            if len(found) > _MOST:
                raise ResourceExhausted(f"an organisation may have {_MOST} budgets", reason="TOO_MANY_BUDGETS")
            made = found[request.name]
            audit.about("budget", made.budget_id)
        await recall(self._events, org_id, ALL)
        return budgets_pb2.SetBudgetResponse(budget=_budget(made))

    async def _check_key(self, key_id: str) -> None:
        try:
            await self._auth.GetPrincipal(auth_pb2.GetPrincipalRequest(org_id=caller().org_id, key_id=key_id))
        except Unauthenticated:
            raise NotFound(f"the organisation has no key {key_id}", reason="API_KEY_NOT_FOUND") from None

    async def ListBudgets(
        self, request: budgets_pb2.ListBudgetsRequest, context: Context
    ) -> budgets_pb2.ListBudgetsResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        after = str(key[0]) if key else ""
        async with self._database.connection() as connection:
            found = await self._budgets.states(connection, [caller().org_id], self._today())
        rest = sorted((b for b in found if b.name > after), key=lambda b: b.name)
        token = pages.encode([rest[most - 1].name]) if len(rest) > most else ""
        return budgets_pb2.ListBudgetsResponse(budgets=[_budget(b) for b in rest[:most]], next_page_token=token)

    async def DeleteBudget(
        self, request: budgets_pb2.DeleteBudgetRequest, context: Context
    ) -> budgets_pb2.DeleteBudgetResponse:
        org_id = caller().org_id
        async with self._database.transaction() as connection:
            await self._store.lock_wallets(connection, [org_id])
            budget_id = await self._budgets.delete_budget(connection, org_id, request.name)
            if not budget_id:
                raise BudgetNotFound(f"you have no budget {request.name}")
            audit.about("budget", budget_id)
        return budgets_pb2.DeleteBudgetResponse()

    def _today(self) -> date:
        return self._clock.now().astimezone(UTC).date()


def _budget(b: Budget) -> budgets_pb2.Budget:
    made = budgets_pb2.Budget(
        budget_id=b.budget_id, name=b.name, key_id=b.key_id, model=b.model, period=b.period, limit_nanos=b.limit,  # type: ignore[arg-type]
        notify_only=b.notify_only, thresholds=b.thresholds, reached=b.reached, currency=CURRENCY, spent_nanos=b.spent,
        reserved_nanos=b.reserved, remaining_nanos=max(b.limit - b.spent, 0),
    )  # fmt: skip
    made.reset_time.FromDatetime(b.resets_at)
    return made
