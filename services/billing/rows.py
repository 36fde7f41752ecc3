"""Rows as messages of the contract."""

from mercat.billing.v1 import billing_pb2

from services.billing.leases import available
from services.billing.ledger import CURRENCY
from services.billing.store import Row


def wallet_of(org_id: str, row: Row | None, credit: int = 0) -> billing_pb2.Wallet:
    """A wallet and what stands beside it: `credit` nanos that have not expired."""
    if row is None:
        return billing_pb2.Wallet(org_id=org_id, currency=CURRENCY)
    return billing_pb2.Wallet(
        org_id=org_id, currency=CURRENCY, balance_nanos=row["balance"], reserved_nanos=row["reserved"],
        promotional_nanos=credit, credit_limit_nanos=row["credit_limit"],
        available_nanos=max(available(row, credit), 0),
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
