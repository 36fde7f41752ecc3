"""An invoice as a document for people."""

from datetime import UTC

from fpdf import FPDF
from fpdf.enums import XPos, YPos
from fpdf.fonts import FontFace
from google.protobuf.timestamp_pb2 import Timestamp
from mercat.billing.v1 import invoices_pb2

from services.common import money

Invoice = invoices_pb2.Invoice
_TITLES = {
    Invoice.KIND_INVOICE: "Invoice", Invoice.KIND_SELF_BILLING: "Self-billing statement",
    Invoice.KIND_CREDIT_NOTE: "Credit note",
}  # fmt: skip
_WIDTHS = (88, 30, 22, 40)  # millimetres


def render(invoice: Invoice) -> bytes:
    """A PDF of a final invoice: always the same bytes for the same invoice."""
    page = FPDF(format="A4")
    page.set_creation_date(invoice.finalized_at.ToDatetime(UTC))
    page.set_title(f"{_TITLES[invoice.kind]} {invoice.number}")
    page.set_author("Mercat")
    page.set_margin(15)
    page.add_page()
    page.set_font("Helvetica", "B", 18)
    page.cell(text=f"{_TITLES[invoice.kind]} {invoice.number}", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    page.set_font("Helvetica", size=10)
    page.ln(4)
    facts = [
        ("Issued", _day(invoice.finalized_at)), ("Organisation", invoice.org_id), ("Status", _status(invoice)),
        ("Calls of", _span(invoice.period_start, invoice.period_end) if invoice.HasField("period_start") else ""),
        ("Corrects", f"{_TITLES[Invoice.KIND_INVOICE]} {invoice.corrects_number}" if invoice.corrects_number else ""),
        ("Invoice id", invoice.invoice_id),
    ]  # fmt: skip
    for name, value in facts:
        if value:
            page.cell(32, 6, name)
            page.cell(0, 6, value, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    page.ln(4)
    with page.table(
        col_widths=_WIDTHS, text_align=("LEFT", "RIGHT", "RIGHT", "RIGHT"), borders_layout="HORIZONTAL_LINES",
        headings_style=FontFace(emphasis="BOLD"), line_height=6,
    ) as table:  # fmt: skip
        table.row(("Description", "Quantity", "Calls", "Amount"))
        for line in invoice.lines:
            span = "" if line.kind == invoices_pb2.InvoiceLine.KIND_USAGE else _span(line.period_start, line.period_end)
            table.row(
                (
                    _latin(f"{line.description}\n{span}" if span else line.description),
                    f"{line.quantity:,}" if line.quantity else "", f"{line.calls:,}" if line.calls else "",
                    money.show(line.amount_nanos, invoice.currency),
                )
            )  # fmt: skip
    page.ln(4)
    for name, amount in _totals(invoice):
        page.cell(sum(_WIDTHS[:3]), 6, name, align="R")
        page.cell(_WIDTHS[3], 6, money.show(amount, invoice.currency), align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    return bytes(page.output())


def _totals(invoice: Invoice) -> list[tuple[str, int]]:
    if invoice.kind == Invoice.KIND_SELF_BILLING:
        return [("Earned", invoice.total_nanos)]
    if invoice.kind == Invoice.KIND_CREDIT_NOTE:
        return [("Credited", invoice.total_nanos)]
    totals = [("Total", invoice.total_nanos)]
    if invoice.prepaid_nanos:
        paid = invoice.prepaid_nanos > 0 or not invoice.owed_nanos
        text = "Paid from the wallet, call by call" if paid else "Owed from before"
        totals.append((text, -invoice.prepaid_nanos))
    totals.append(("Due" if invoice.due_nanos >= 0 else "Credited to the wallet", invoice.due_nanos))
    return totals


def _status(invoice: Invoice) -> str:
    name = Invoice.Status.Name(invoice.status).removeprefix("STATUS_").lower()
    return f"{name}, {_day(invoice.paid_at)}" if invoice.HasField("paid_at") else name


def _day(at: Timestamp) -> str:
    return f"{at.ToDatetime(UTC):%Y-%m-%d}"


def _span(start: Timestamp, end: Timestamp) -> str:
    return f"{start.ToDatetime(UTC):%Y-%m-%d %H:%M} to {end.ToDatetime(UTC):%Y-%m-%d %H:%M} UTC"


def _latin(text: str) -> str:
    """What the document's own fonts can show."""
    return text.encode("latin-1", "replace").decode("latin-1")
