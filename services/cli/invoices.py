"""`mercat invoices`: what was billed, and the calls behind it."""

from pathlib import Path
from typing import Annotated

import typer
from mercat.billing.v1 import invoices_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.cli.usage import show_units
from services.common import money

Invoice = invoices_pb2.Invoice
InvoiceArgument = Annotated[str, typer.Argument(metavar="INVOICE", help="inv_…, as `mercat invoices list` shows it.")]


def register(app: typer.Typer) -> None:
    invoices = typer.Typer(
        help="What was billed, and the calls behind it.", no_args_is_help=True, rich_markup_mode="rich",
        callback=lambda: None,
    )  # fmt: skip
    for name, function in (
        ("list", list_invoices), ("show", show), ("pdf", pdf), ("usage", usage), ("pay", pay), ("void", void),
    ):  # fmt: skip
        invoices.command(name)(command(function))
    app.add_typer(invoices, name="invoices")


def list_invoices(session: Session, limit: Limit = 50) -> None:
    """Lists your invoices, credit notes and self-billing statements, newest first.

    Example: mercat invoices list -n 12
    """
    request = invoices_pb2.ListInvoicesRequest()
    answer = gather(session.client.invoices.ListInvoices, request, "invoices", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["number", "issued (UTC)", "kind", "total", "due", "status", "invoice"],
        [
            (
                i.number, output.when(i.finalized_at), _word(Invoice.Kind.Name(i.kind), "KIND_"),
                money.show(i.total_nanos, i.currency), money.show(i.due_nanos, i.currency), _status(i), i.invoice_id,
            )
            for i in answer.invoices
        ],
        empty="There are no invoices.", right=["total", "due"],
    )  # fmt: skip


def show(session: Session, invoice: InvoiceArgument) -> None:
    """Shows an invoice with its lines.

    Example: mercat invoices show inv_06ba…
    """
    _show(session, session.client.invoices.GetInvoice(invoices_pb2.GetInvoiceRequest(invoice_id=invoice)).invoice)


def pdf(
    session: Session,
    invoice: InvoiceArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; otherwise it is named by its number.")
    ] = None,
) -> None:
    """Writes an invoice as a document for people.

    Example: mercat invoices pdf inv_06ba… -o invoice.pdf
    """
    asked = invoices_pb2.GetInvoicePdfRequest(invoice_id=invoice)
    document = session.client.invoices.GetInvoicePdf(asked).document
    path = out or Path(f"{invoice}.pdf")
    path.write_bytes(document.data)
    if session.json:
        output.say_json({"file": str(path), "bytes": len(document.data)})
    else:
        output.say(f"Written to {path}, {output.size(len(document.data))}.")


def usage(
    session: Session,
    invoice: InvoiceArgument,
    line: Annotated[str, typer.Argument(help="The line, il_…, as `mercat invoices show` names it.")],
    limit: Limit = 50,
) -> None:
    """Opens a line into the calls behind it; the amounts of all of them are the line's.

    Example: mercat invoices usage inv_06ba… il_06bb… -n 100
    """
    request = invoices_pb2.ListInvoiceLineUsageRequest(invoice_id=invoice, line_id=line)
    answer = gather(session.client.invoices.ListInvoiceLineUsage, request, "calls", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["time (UTC)", "call", "model", "units", "cost", "in this line"],
        [
            (
                output.when(c.record.timestamp), c.record.request_id, f"{c.record.model}@{c.record.version}",
                show_units(c.record.units), money.show(c.record.cost_nanos), money.show(c.amount_nanos),
            )
            for c in answer.calls
        ],
        empty="No calls are behind this line.", right=["cost", "in this line"],
    )  # fmt: skip


def pay(session: Session, invoice: InvoiceArgument) -> None:
    """Tries to collect an open invoice now, such as after another card was added.

    Example: mercat invoices pay inv_06ba…
    """
    answer = session.client.invoices.PayInvoice(invoices_pb2.PayInvoiceRequest(invoice_id=invoice)).invoice
    if session.json:
        output.say_json(answer)
    else:
        output.say(f"Asked for {money.show(answer.due_nanos, answer.currency)}; see `mercat invoices show {invoice}`.")


def void(session: Session, invoice: InvoiceArgument) -> None:
    """Gives up an open invoice that should not have been; for administrators.

    Example: mercat invoices void inv_06ba… --profile admin
    """
    _show(session, session.client.invoices.VoidInvoice(invoices_pb2.VoidInvoiceRequest(invoice_id=invoice)).invoice)


def _show(session: Session, i: Invoice) -> None:
    if session.json:
        output.say_json(i)
        return
    period = f"{output.when(i.period_start)} to {output.when(i.period_end)} UTC" if i.period_start.seconds else ""
    output.facts([
        ("number", i.number), ("kind", _word(Invoice.Kind.Name(i.kind), "KIND_")), ("status", _status(i)),
        ("issued (UTC)", output.when(i.finalized_at)), ("calls of", period),
        ("total", money.show(i.total_nanos, i.currency)),
        ("paid call by call", money.show(i.prepaid_nanos, i.currency) if i.prepaid_nanos else ""),
        ("of it owed for calls", money.show(i.owed_nanos, i.currency) if i.owed_nanos else ""),
        ("corrects", i.corrects_number),
        ("due", money.show(i.due_nanos, i.currency)), ("paid (UTC)", output.when(i.paid_at)),
        ("tried again (UTC)", output.when(i.next_attempt_at) if i.attempts else ""),
    ])  # fmt: skip
    output.table(
        ["line", "what", "quantity", "calls", "amount"],
        [
            (
                x.line_id, x.description, f"{x.quantity:,}" if x.quantity else "", f"{x.calls:,}" if x.calls else "",
                money.show(x.amount_nanos, i.currency),
            )
            for x in i.lines
        ],
        empty="", right=["quantity", "calls", "amount"],
    )  # fmt: skip


def _status(i: Invoice) -> str:
    return _word(Invoice.Status.Name(i.status), "STATUS_")


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower().replace("_", " ")
