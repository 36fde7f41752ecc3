"""Rows as messages of the contract."""

from mercat.billing.v1 import billing_pb2

from services.billing.ledger import CURRENCY
from services.billing.store import Row


def wallet_of(org_id: str, row: Row | None) -> billing_pb2.Wallet:
    return billing_pb2.Wallet(
        org_id=org_id, currency=CURRENCY, balance_nanos=row["balance"] if row else 0,
        reserved_nanos=row["reserved"] if row else 0,
    )  # fmt: skip


def transaction_of(row: Row) -> billing_pb2.Transaction:
    transaction = billing_pb2.Transaction(
        transaction_id=row["id"], type=row["type"], amount_nanos=row["amount"], currency=row["currency"],
        status=row["status"],
    )  # fmt: skip
    transaction.created_at.FromDatetime(row["created_at"])
    return transaction


def entry_of(row: Row) -> billing_pb2.StatementEntry:
    entry = billing_pb2.StatementEntry(
        posting_id=row["id"], cause=row["cause"], account=row["kind"], amount_nanos=row["amount"]
    )
    entry.created_at.FromDatetime(row["created_at"])
    return entry
