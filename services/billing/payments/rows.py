"""Rows of payments as messages of the contract."""

from mercat.billing.v1 import payments_pb2

from services.billing.payments.store import Row


def payment_of(row: Row) -> payments_pb2.Payment:
    payment = payments_pb2.Payment(
        payment_id=row["id"], amount_nanos=row["amount"], currency=row["currency"],
        purpose=payments_pb2.Payment.Purpose.Value(f"PURPOSE_{row['purpose'].upper()}"),
        subject=row["subject"] if row["purpose"] == "invoice" else "",
        status=payments_pb2.Payment.Status.Value(f"STATUS_{row['status'].upper()}"),
        failure_code=row["failure_code"] or "", client_secret=row["client_secret"] or "", provider=row["provider"],
        reversed_nanos=row["reversed"],
    )  # fmt: skip
    payment.created_at.FromDatetime(row["created_at"])
    if row["settled_at"] is not None:
        payment.settled_at.FromDatetime(row["settled_at"])
    return payment


_REFUNDS = {
    "pending": payments_pb2.Refund.STATUS_PENDING, "paid": payments_pb2.Refund.STATUS_SUCCEEDED,
    "returned": payments_pb2.Refund.STATUS_FAILED,
}  # fmt: skip


def refund_of(row: Row) -> payments_pb2.Refund:
    refund = payments_pb2.Refund(
        refund_id=row["id"], payment_id=row["payment_id"], amount_nanos=row["amount"], taken_nanos=row["taken"],
        status=_REFUNDS[row["status"]], failure_code=row["failure_code"] or "",
    )  # fmt: skip
    refund.created_at.FromDatetime(row["created_at"])
    return refund


def method_of(row: Row) -> payments_pb2.PaymentMethod:
    method = payments_pb2.PaymentMethod(
        payment_method_id=row["id"], brand=row["brand"], last4=row["last4"], exp_month=row["exp_month"],
        exp_year=row["exp_year"], is_default=row["is_default"],
    )  # fmt: skip
    method.created_at.FromDatetime(row["created_at"])
    return method


def auto_top_up_of(row: Row | None) -> payments_pb2.AutoTopUp:
    if row is None:
        return payments_pb2.AutoTopUp()
    return payments_pb2.AutoTopUp(
        enabled=row["enabled"], threshold_nanos=row["threshold"], amount_nanos=row["amount"], failures=row["failures"]
    )
