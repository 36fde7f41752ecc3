"""Members of an organisation as people type them."""

from typing import Annotated

import typer
from mercat.auth.v1 import organisation_pb2 as pb

from services.cli.command import Session
from services.cli.paging import gather
from services.cli.session import Refusal

Member = Annotated[str, typer.Argument(metavar="USER", help="Username, email address or id, usr_….")]


def member_id(session: Session, user: str) -> str:
    """Refusal when there is no such member."""
    if user.startswith("usr_"):
        return user
    answer = gather(session.client.organisations.ListMembers, pb.ListMembersRequest(), "members", 100_000)
    found = [m.user_id for m in answer.members if user.lower() in (m.username, m.email.lower())]
    if not found:
        raise Refusal(f"{user} is no member.", "see `mercat org members`")
    return found[0]
