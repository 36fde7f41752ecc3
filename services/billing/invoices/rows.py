"""Rows as messages of the contract."""

from collections.abc import Sequence

from mercat.billing.v1 import invoices_pb2

from services.billing.invoices.store import Row

Invoice = invoices_pb2.Invoice


def invoice_of(row: Row, lines: Sequence[Row] = ()) -> Invoice:
    invoice = Invoice(
        invoice_id=row["id"], number=row["number"] or "", kind=Invoice.Kind.Value(f"KIND_{row['kind'].upper()}"),
        status=Invoice.Status.Value(f"STATUS_{row['status'].upper()}"), org_id=row["org_id"],
        currency=row["currency"], total_nanos=row["due"] + row["prepaid"], prepaid_nanos=row["prepaid"],
        due_nanos=row["due"], attempts=row["attempts"], lines=[line_message(r) for r in lines],
        owed_nanos=row["owed"], corrects_invoice_id=row["corrects"] or "",
        corrects_number=row.get("corrects_number") or "",
    )  # fmt: skip
    for name in ("period_start", "period_end", "next_attempt_at", "created_at", "finalized_at", "paid_at"):
        if row[name] is not None:
            getattr(invoice, name).FromDatetime(row[name])
    return invoice


def line_message(row: Row) -> invoices_pb2.InvoiceLine:
    line = invoices_pb2.InvoiceLine(
        line_id=row["id"], kind=invoices_pb2.InvoiceLine.Kind.Value(f"KIND_{row['kind'].upper()}"),
        description=row["description"], model=row["model"], meter=row["meter"], quantity=row["quantity"],
        calls=row["calls"], price_id=row["price_id"], amount_nanos=row["amount"],
    )  # fmt: skip
    line.period_start.FromDatetime(row["period_start"])
    line.period_end.FromDatetime(row["period_end"])
    return line
