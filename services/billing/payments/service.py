"""Cards, and payments by them, for people."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from mercat.billing.v1 import payments_pb2, payments_pb2_grpc

from services.billing.payments import amounts
from services.billing.payments.customers import Customers
from services.billing.payments.provider import Provider, ProviderRefused, ProviderUnavailable
from services.billing.payments.reversals import Reversals
from services.billing.payments.rows import auto_top_up_of, method_of, payment_of, refund_of
from services.billing.payments.saga import TOP_UP, Payments
from services.billing.payments.store import PaymentStore, Row
from services.common import audit, pages
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import (
    FailedPrecondition,
    IdempotencyKeyReused,
    InvalidFields,
    NotFound,
    Unavailable,
    Violation,
)
from services.common.rpc.context import Context, caller, current

_CENTS = f"must be whole cents: a multiple of {amounts.CENT} nanos"
_NO_CARD = "you have no card; attach one first"


class PaymentNotFound(NotFound, reason="PAYMENT_NOT_FOUND"): ...


class PaymentMethodNotFound(NotFound, reason="PAYMENT_METHOD_NOT_FOUND"): ...


class NoPaymentMethod(FailedPrecondition, reason="NO_PAYMENT_METHOD"):
    """The organisation has no card."""


class PaymentServicer(payments_pb2_grpc.PaymentServiceServicer):
    """Serves `mercat.billing.v1.PaymentService`."""

    def __init__(
        self, database: Database, store: PaymentStore, provider: Provider, customers: Customers, payments: Payments,
        reversals: Reversals, clock: Clock,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._provider = provider
        self._customers = customers
        self._payments = payments
        self._reversals = reversals
        self._clock = clock

    # Cards

    async def CreateSetupIntent(
        self, request: payments_pb2.CreateSetupIntentRequest, context: Context
    ) -> payments_pb2.CreateSetupIntentResponse:
        with _provider_errors():
            customer = await self._customers.ensure(caller().org_id)
            setup = await self._provider.set_up_card(customer, current().request_id)
        return payments_pb2.CreateSetupIntentResponse(
            setup_intent_id=setup.ref, client_secret=setup.client_secret, provider=self._provider.name
        )

    async def AttachPaymentMethod(
        self, request: payments_pb2.AttachPaymentMethodRequest, context: Context
    ) -> payments_pb2.AttachPaymentMethodResponse:
        org_id = caller().org_id
        with _provider_errors():
            customer = await self._customers.ensure(org_id)
            card = await self._provider.attach_card(customer, request.payment_method, current().request_id)
        async with self._cards(org_id) as connection:
            method = await self._store.add_method(connection, org_id, self._provider.name, card, self._clock.now())
            if method["detached_at"] is not None:
                raise FailedPrecondition(
                    "this card was detached; set it up anew", reason="CARD_REFUSED", metadata={"code": "detached"}
                )
            if request.make_default and not method["is_default"]:
                method = await self._store.set_default(connection, org_id, self._provider.name, method["id"])
            audit.about("payment_method", method["id"])
        return payments_pb2.AttachPaymentMethodResponse(payment_method=method_of(method))

    async def ListPaymentMethods(
        self, request: payments_pb2.ListPaymentMethodsRequest, context: Context
    ) -> payments_pb2.ListPaymentMethodsResponse:
        before, most = _page(request)
        async with self._database.connection() as connection:
            rows = await self._store.list_methods(connection, caller().org_id, self._provider.name, before, most + 1)
        return payments_pb2.ListPaymentMethodsResponse(
            payment_methods=[method_of(r) for r in rows[:most]], next_page_token=_next(rows, most)
        )

    async def SetDefaultPaymentMethod(
        self, request: payments_pb2.SetDefaultPaymentMethodRequest, context: Context
    ) -> payments_pb2.SetDefaultPaymentMethodResponse:
        org_id = caller().org_id
        async with self._cards(org_id) as connection:
            method = await self._method(connection, org_id, request.payment_method_id)
            method = await self._store.set_default(connection, org_id, method["provider"], method["id"])
        return payments_pb2.SetDefaultPaymentMethodResponse(payment_method=method_of(method))

    async def DetachPaymentMethod(
        self, request: payments_pb2.DetachPaymentMethodRequest, context: Context
    ) -> payments_pb2.DetachPaymentMethodResponse:
        """It is charged no more from here on; that the provider forgets it follows, also after a death."""
        org_id = caller().org_id
        async with self._cards(org_id) as connection:
            method = await self._method(connection, org_id, request.payment_method_id)
            await self._store.detach_method(connection, method, self._clock.now())
        return payments_pb2.DetachPaymentMethodResponse()

    @asynccontextmanager
    async def _cards(self, org_id: str) -> AsyncIterator[Connection]:
        """A transaction that changes the organisation's cards, one after the other."""
        async with self._database.transaction() as connection:
            await self._store.lock_customer(connection, org_id, self._provider.name)
            yield connection

    async def _method(self, connection: Connection, org_id: str, method_id: str) -> Row:
        audit.about("payment_method", method_id)
        method = await self._store.get_method(connection, org_id, self._provider.name, method_id)
        if method is None:
            raise PaymentMethodNotFound(f"you have no payment method {method_id}")
        return method

    # Payments

    async def CreatePayment(
        self, request: payments_pb2.CreatePaymentRequest, context: Context
    ) -> payments_pb2.CreatePaymentResponse:
        if not amounts.whole(request.amount_nanos):
            raise InvalidFields(violations=[Violation("amount_nanos", _CENTS)])
        principal = caller()
        async with self._database.transaction() as connection:
            if request.payment_method_id:
                method = await self._method(connection, principal.org_id, request.payment_method_id)
            else:
                found = await self._store.default_method(connection, principal.org_id, self._provider.name)
                if found is None:
                    raise NoPaymentMethod(_NO_CARD)
                method = found
            payment_id = await self._payments.start(
                connection, org_id=principal.org_id, user_id=principal.user_id, amount=request.amount_nanos,
                purpose=TOP_UP, subject=_subject(context, principal.org_id), method_ref=method["ref"],
            )  # fmt: skip
            audit.about("payment", payment_id)
            payment = await self._store.get_payment(connection, payment_id)
        assert payment is not None
        if payment["amount"] != request.amount_nanos:
            raise IdempotencyKeyReused("this idempotency key was used with another payment; use a new key")
        return payments_pb2.CreatePaymentResponse(payment=payment_of(payment))

    async def GetPayment(
        self, request: payments_pb2.GetPaymentRequest, context: Context
    ) -> payments_pb2.GetPaymentResponse:
        async with self._database.connection() as connection:
            row = await self._store.get_payment(connection, request.payment_id)
        if row is None or row["org_id"] != caller().org_id:
            raise PaymentNotFound(f"you have no payment {request.payment_id}")
        return payments_pb2.GetPaymentResponse(payment=payment_of(row))

    async def ListPayments(
        self, request: payments_pb2.ListPaymentsRequest, context: Context
    ) -> payments_pb2.ListPaymentsResponse:
        before, most = _page(request)
        async with self._database.connection() as connection:
            rows = await self._store.list_payments(connection, caller().org_id, before, most + 1)
        return payments_pb2.ListPaymentsResponse(
            payments=[payment_of(r) for r in rows[:most]], next_page_token=_next(rows, most)
        )

    async def RefundPayment(
        self, request: payments_pb2.RefundPaymentRequest, context: Context
    ) -> payments_pb2.RefundPaymentResponse:
        if not amounts.whole(request.amount_nanos):
            raise InvalidFields(violations=[Violation("amount_nanos", _CENTS)])
        audit.about("payment", request.payment_id)
        async with self._database.transaction() as connection:
            payment = await self._store.get_payment(connection, request.payment_id)
            if payment is None:
                raise PaymentNotFound(f"there is no payment {request.payment_id}")
            refund_id = await self._reversals.refund(
                connection, payment, request.amount_nanos, request.reason, _subject(context, caller().org_id)
            )
            refund = await self._store.reversal_of(connection, refund_id, "")
            await audit.also(connection, payment["org_id"])
        assert refund is not None
        return payments_pb2.RefundPaymentResponse(refund=refund_of(refund))

    # Automatic top-ups

    async def SetAutoTopUp(
        self, request: payments_pb2.SetAutoTopUpRequest, context: Context
    ) -> payments_pb2.SetAutoTopUpResponse:
        org_id, wanted = caller().org_id, request.auto_top_up
        _check_auto_top_up(wanted)
        async with self._database.transaction() as connection:
            if wanted.enabled and await self._store.default_method(connection, org_id, self._provider.name) is None:
                raise NoPaymentMethod(_NO_CARD)
            row = await self._store.set_auto_top_up(
                connection, org_id, enabled=wanted.enabled, threshold=wanted.threshold_nanos,
                amount=wanted.amount_nanos, now=self._clock.now(),
            )  # fmt: skip
        return payments_pb2.SetAutoTopUpResponse(auto_top_up=auto_top_up_of(row))

    async def GetAutoTopUp(
        self, request: payments_pb2.GetAutoTopUpRequest, context: Context
    ) -> payments_pb2.GetAutoTopUpResponse:
        async with self._database.connection() as connection:
            row = await self._store.get_auto_top_up(connection, caller().org_id)
        return payments_pb2.GetAutoTopUpResponse(auto_top_up=auto_top_up_of(row))


def _check_auto_top_up(wanted: payments_pb2.AutoTopUp) -> None:
    """Raises InvalidFields where what is turned on could not be charged."""
    found = []
    if not amounts.whole(wanted.amount_nanos):
        found.append(Violation("auto_top_up.amount_nanos", _CENTS))
    elif wanted.enabled and wanted.amount_nanos < amounts.LEAST:
        found.append(Violation("auto_top_up.amount_nanos", f"at least {amounts.LEAST}, which is the least charged"))
    if wanted.enabled and not wanted.threshold_nanos:
        found.append(Violation("auto_top_up.threshold_nanos", "is required"))
    if found:
        raise InvalidFields(violations=found)


def _subject(context: Context, org_id: str) -> str:
    """What makes this payment the only one: the caller's idempotency key, for ever, or this call."""
    key = dict(context.invocation_metadata() or ()).get("idempotency-key")
    if key is None:
        return current().request_id
    return hashlib.sha256(f"{org_id}\0{key!s}".encode()).hexdigest()


@contextmanager
def _provider_errors() -> Iterator[None]:
    try:
        yield
    except ProviderRefused as e:
        raise FailedPrecondition(str(e), reason="CARD_REFUSED", metadata={"code": e.code}) from e
    except ProviderUnavailable as e:
        raise Unavailable(
            "the payment provider cannot be reached; repeat it in a moment",
            reason="PAYMENTS_UNAVAILABLE",
            retry_after=1,
        ) from e


def _page(
    request: payments_pb2.ListPaymentsRequest | payments_pb2.ListPaymentMethodsRequest,
) -> tuple[str | None, int]:
    key = pages.decode(request.page_token, str)
    return (str(key[0]) if key else None), pages.size(request.page_size)


def _next(rows: list[Row], most: int) -> str:
    return pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
