"""`mercat models transfer|transfers|accept|decline`: models that go to another organisation."""

from typing import Annotated

import typer
from mercat.registry.v1 import transfer_pb2 as pb

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather

Transfer = Annotated[str, typer.Argument(metavar="TRANSFER", help="Its id, mtr_….")]
_NAME = "Another name for it there."


def register(models: typer.Typer) -> None:
    for function in (transfer, transfers, accept, decline):
        models.command()(command(function))


def transfer(
    session: Session,
    model: Annotated[str, typer.Argument(help="Your own: just the name will do.")],
    organisation: Annotated[str, typer.Argument(help="Who is to have it: a handle or a username.")],
    name: Annotated[str, typer.Option(help=f"{_NAME} Only if you may accept it there yourself.")] = "",
) -> None:
    """Offers a model to another organisation; moves it at once if you may accept it there yourself. Calls to it go on,
    and earn for the new owner from then on.

    Example: mercat models transfer adder acme
    """
    request = pb.TransferModelRequest(model=session.full_name(model), organisation=organisation, name=name)
    made = session.client.transfers.TransferModel(request).transfer
    if session.json:
        output.say_json(made)
    elif made.accepted:
        output.say(f"It is {made.model} now; the address before leads there.")
    else:
        output.say(
            f"{made.model} is offered to {made.organisation}, until {output.when(made.expires_at)} UTC. There it is "
            f"accepted with `mercat models accept {made.transfer_id}`."
        )


def transfers(session: Session, limit: Limit = 50) -> None:
    """Lists models that are offered by the current organisation, and to it.

    Example: mercat models transfers
    """
    answer = gather(session.client.transfers.ListModelTransfers, pb.ListModelTransfersRequest(), "transfers", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["transfer", "model", "to", "offered", "ends"],
        [
            (t.transfer_id, t.model, t.organisation, output.when(t.created_at), output.when(t.expires_at))
            for t in answer.transfers
        ],
        empty="No model is offered.",
    )  # fmt: skip


def accept(session: Session, transfer: Transfer, name: Annotated[str, typer.Option(help=_NAME)] = "") -> None:
    """Takes over a model that is offered to the current organisation.

    Example: mercat models accept mtr_06b3c…
    """
    request = pb.AcceptModelTransferRequest(transfer_id=transfer, name=name)
    model = session.client.transfers.AcceptModelTransfer(request).model
    if session.json:
        output.say_json(model)
    else:
        output.say(f"{model.model} is yours.")


def decline(session: Session, transfer: Transfer) -> None:
    """Ends an offer of a model, by either side.

    Example: mercat models decline mtr_06b3c…
    """
    session.client.transfers.CancelModelTransfer(pb.CancelModelTransferRequest(transfer_id=transfer))
    if session.json:
        output.say_json({"transferId": transfer})
    else:
        output.say("The offer is ended.")
