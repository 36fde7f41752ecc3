"""What tests of payments do with cards."""

import time

import grpc
from mercat.billing.v1 import payments_pb2

from tests.platform import Account

UNSETTLED = (payments_pb2.Payment.STATUS_PENDING, payments_pb2.Payment.STATUS_PROCESSING)


def attach(person: Account, card: str = "pm_card_visa") -> str:
    """Keeps a test card; its id."""
    request = payments_pb2.AttachPaymentMethodRequest(payment_method=card, make_default=True)
    return str(person.payments.AttachPaymentMethod(request).payment_method.payment_method_id)


def settled(person: Account, payment_id: str, seconds: float = 60) -> payments_pb2.Payment:
    """The payment when it is neither pending nor processing; waits for processes that are away."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            request = payments_pb2.GetPaymentRequest(payment_id=payment_id)
            payment: payments_pb2.Payment = person.payments.GetPayment(request).payment
            if payment.status not in UNSETTLED:
                return payment
        except grpc.RpcError as e:
            if e.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL):
                raise
        assert time.monotonic() < deadline, "the payment did not end"
        time.sleep(0.1)
