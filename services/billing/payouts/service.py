"""Payouts and refunds of calls, for publishers."""

from mercat.billing.v1 import invoices_pb2, payouts_pb2, payouts_pb2_grpc

from services.billing.invoices.issuing import Issuing
from services.billing.ledger import PAYABLE
from services.billing.payments.provider import Provider, ProviderRefused, ProviderUnavailable
from services.billing.payouts.refunds import Refunds
from services.billing.payouts.saga import BEGINNING, MONTHLY, WEEKLY, Payouts, following
from services.billing.payouts.store import PayoutStore, Row
from services.common import audit, pages
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import NotFound, Unavailable
from services.common.rpc.context import ROLE_NAMES, Context, caller

Payout = payouts_pb2.Payout
_SCHEDULES = {payouts_pb2.PAYOUT_SCHEDULE_WEEKLY: WEEKLY, payouts_pb2.PAYOUT_SCHEDULE_MONTHLY: MONTHLY}


class PayoutNotFound(NotFound, reason="PAYOUT_NOT_FOUND"): ...


class PayoutAccountNotFound(NotFound, reason="PAYOUT_ACCOUNT_NOT_FOUND"):
    """The publisher has not said where payouts go."""


class PayoutServicer(payouts_pb2_grpc.PayoutServiceServicer):
    """Serves `mercat.billing.v1.PayoutService`."""

    def __init__(
        self, database: Database, store: PayoutStore, payouts: Payouts, refunds: Refunds, issuing: Issuing,
        provider: Provider, clock: Clock,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._payouts = payouts
        self._refunds = refunds
        self._issuing = issuing
        self._provider = provider
        self._clock = clock

    async def ConnectPayoutAccount(
        self, request: payouts_pb2.ConnectPayoutAccountRequest, context: Context
    ) -> payouts_pb2.ConnectPayoutAccountResponse:
        principal, now = caller(), self._clock.now()
        async with self._database.connection() as connection:
            known = await self._store.get_account(connection, principal.org_id)
        try:  # under a key of the organisation, so that a repetition makes no second account
            ref = known["ref"] if known else await self._provider.create_account(principal.org_id, principal.org_id)
            ready = await self._provider.account_ready(ref)
            url = "" if ready else await self._provider.onboarding_url(ref, request.return_url)
        except (ProviderUnavailable, ProviderRefused) as e:
            raise Unavailable(
                "the payment provider cannot make the account just now", reason="PAYMENTS_UNAVAILABLE", retry_after=5
            ) from e
        anchor = known["anchor"] if known else now.replace(microsecond=0)
        schedule = _SCHEDULES.get(request.schedule) or (known["schedule"] if known else MONTHLY)
        audit.about("payout_account", ref)
        async with self._database.transaction() as connection:
            row = await self._store.put_account(
                connection, org_id=principal.org_id, user_id=principal.user_id, provider=self._provider.name, ref=ref,
                ready=ready, schedule=schedule, anchor=anchor, next_at=following(schedule, anchor, now), now=now,
            )  # fmt: skip
        return payouts_pb2.ConnectPayoutAccountResponse(account=_account_of(row), onboarding_url=url)

    async def GetPayoutAccount(
        self, request: payouts_pb2.GetPayoutAccountRequest, context: Context
    ) -> payouts_pb2.GetPayoutAccountResponse:
        async with self._database.connection() as connection:
            row = await self._store.get_account(connection, caller().org_id)
        if row is None:
            raise PayoutAccountNotFound("you have not said where payouts go; connect an account first")
        return payouts_pb2.GetPayoutAccountResponse(account=_account_of(row))

    async def ListPayouts(
        self, request: payouts_pb2.ListPayoutsRequest, context: Context
    ) -> payouts_pb2.ListPayoutsResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            before = str(key[0]) if key else None
            rows = await self._store.list_payouts(connection, caller().org_id, before, most + 1)
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        return payouts_pb2.ListPayoutsResponse(payouts=[_payout_of(r) for r in rows[:most]], next_page_token=token)

    async def GetPayout(self, request: payouts_pb2.GetPayoutRequest, context: Context) -> payouts_pb2.GetPayoutResponse:
        async with self._database.connection() as connection:
            row = await self._own(connection, request.payout_id)
            payout = _payout_of(row)
            for line in await self._store.get_lines(connection, row["id"]):
                payout.lines.add(
                    kind=payouts_pb2.PayoutLine.Kind.Value(f"KIND_{line['kind'].upper()}"), model=line["model"],
                    count=line["count"], amount_nanos=line["amount"],
                )  # fmt: skip
        return payouts_pb2.GetPayoutResponse(payout=payout)

    async def ListPayoutCalls(
        self, request: payouts_pb2.ListPayoutCallsRequest, context: Context
    ) -> payouts_pb2.ListPayoutCallsResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            row = await self._own(connection, request.payout_id)
        page = await self._issuing.calls(
            row["org_id"], PAYABLE, row["earned_from"] or BEGINNING, row["earned_until"],
            str(key[0]) if key else "", most,
        )  # fmt: skip
        answer = payouts_pb2.ListPayoutCallsResponse()
        for _, call, record in page:
            if not call.charge:  # a refund or correction: in the payout after which it was made
                continue
            for name in ("user_id", "key_id", "lease_id", "tags"):  # the consumer's own business
                record.ClearField(name)
            answer.calls.append(invoices_pb2.LineCall(record=record, amount_nanos=call.moved))
        answer.next_page_token = pages.encode([page[-1][0]]) if len(page) == most else ""
        return answer

    async def RefundCall(
        self, request: payouts_pb2.RefundCallRequest, context: Context
    ) -> payouts_pb2.RefundCallResponse:
        principal = caller()
        of = None if ROLE_NAMES.get(principal.role) == "admin" else principal.org_id
        audit.about("usage_record", request.request_id)
        row = await self._refunds.refund(request.request_id, request.reason, of)
        refund = payouts_pb2.CallRefund(
            refund_id=row["id"], request_id=row["request_id"], amount_nanos=row["amount"], reason=row["reason"]
        )
        refund.created_at.FromDatetime(row["created_at"])
        return payouts_pb2.RefundCallResponse(refund=refund)

    async def _own(self, connection: Connection, payout_id: str) -> Row:
        row = await self._store.get_payout(connection, payout_id)
        principal = caller()
        if row is None or (row["org_id"] != principal.org_id and ROLE_NAMES.get(principal.role) != "admin"):
            raise PayoutNotFound(f"you have no payout {payout_id}")
        return row


def _account_of(row: Row) -> payouts_pb2.PayoutAccount:
    schedule = next(value for value, name in _SCHEDULES.items() if name == row["schedule"])
    account = payouts_pb2.PayoutAccount(
        org_id=row["org_id"], provider_account=row["ref"], ready=row["ready"], schedule=schedule
    )
    account.next_payout_at.FromDatetime(row["next_at"])
    return account


def _payout_of(row: Row) -> Payout:
    payout = Payout(
        payout_id=row["id"], org_id=row["org_id"], amount_nanos=row["amount"], currency=row["currency"],
        status=Payout.Status.Value(f"STATUS_{row['status'].upper()}"), failure_code=row["failure_code"],
    )  # fmt: skip
    payout.earned_until.FromDatetime(row["earned_until"])
    payout.created_at.FromDatetime(row["created_at"])
    if row["earned_from"] is not None:
        payout.earned_from.FromDatetime(row["earned_from"])
    if row["status"] == "paid":
        payout.paid_at.FromDatetime(row["settled_at"])
    return payout
