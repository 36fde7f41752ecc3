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
    )  # fmt: skip
    payment.created_at.FromDatetime(row["created_at"])
    if row["settled_at"] is not None:
        payment.settled_at.FromDatetime(row["settled_at"])
    return payment


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
