"""`mercat org team`: members who are given something together."""

from typing import Annotated

import typer
from mercat.auth.v1 import team_pb2 as pb

from services.cli import output
from services.cli.command import Session, command
from services.cli.organisation_members import Member, member_id
from services.cli.paging import Limit, gather
from services.cli.session import Refusal

Team = Annotated[str, typer.Argument(metavar="TEAM", help="Its name or id, tem_….")]
_ROLE = "admin, billing, developer, viewer or one of your own"


def add_to(org: typer.Typer) -> None:
    group = typer.Typer(help="Members who are given something together.", no_args_is_help=True, rich_markup_mode="rich")
    group.command("list")(command(list_teams))
    for function in (create, show, update, delete, add, remove):
        group.command()(command(function))
    org.add_typer(group, name="team")


def list_teams(session: Session, limit: Limit = 50) -> None:
    """Lists the teams of the current organisation.

    Example: mercat org team list
    """
    answer = gather(session.client.teams.ListTeams, pb.ListTeamsRequest(), "teams", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["team", "role", "members", "made", "id"],
        [(t.name, t.role, str(t.member_count), output.when(t.created_at), t.team_id) for t in answer.teams],
        empty="There are no teams; make one with `mercat org team create NAME`.", right=["members"],
    )  # fmt: skip


def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="Small letters, digits, hyphens.")],
    role: Annotated[str, typer.Option(help=f"What its members may beside their own roles: {_ROLE}.")] = "",
) -> None:
    """Makes a team.

    Example: mercat org team create research --role developer
    """
    made = session.client.teams.CreateTeam(pb.CreateTeamRequest(name=name, role=role)).team
    if session.json:
        output.say_json(made)
    else:
        output.say(f"{made.name} is made. Take members in with `mercat org team add {made.name} USER`.")


def show(session: Session, team: Team, limit: Limit = 50) -> None:
    """Shows who is in a team.

    Example: mercat org team show research
    """
    request = pb.ListTeamMembersRequest(team_id=team_id(session, team))
    answer = gather(session.client.teams.ListTeamMembers, request, "members", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["username", "name", "email", "own role", "user"],
        [(m.username, m.display_name, m.email, m.role, m.user_id) for m in answer.members],
        empty="Nobody is in it.",
    )


def update(
    session: Session,
    team: Team,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    role: Annotated[str | None, typer.Option(help=f"{_ROLE}; '' for none.")] = None,
) -> None:
    """Gives a team another name or role.

    Example: mercat org team update research --name science --role viewer
    """
    if name is None and role is None:
        raise typer.BadParameter("say what is to change: --name, --role")
    made = session.client.teams.UpdateTeam(
        pb.UpdateTeamRequest(team_id=team_id(session, team), name=name, role=role)
    ).team
    if session.json:
        output.say_json(made)
    else:
        output.say(f"{made.name} {f'gives the role {made.role}' if made.role else 'gives no role'}.")


def delete(session: Session, team: Team) -> None:
    """Removes a team; its members stay in the organisation.

    Example: mercat org team delete research
    """
    request = pb.DeleteTeamRequest(team_id=team_id(session, team))
    session.client.teams.DeleteTeam(request)
    if session.json:
        output.say_json({"teamId": request.team_id})
    else:
        output.say(f"{output.clean(team)} is removed.")


def add(session: Session, team: Team, user: Member) -> None:
    """Takes a member into a team.

    Example: mercat org team add research grace
    """
    request = pb.AddTeamMemberRequest(team_id=team_id(session, team), user_id=member_id(session, user))
    member = session.client.teams.AddTeamMember(request).member
    if session.json:
        output.say_json(member)
    else:
        output.say(f"{member.username} is in {output.clean(team)}.")


def remove(session: Session, team: Team, user: Member) -> None:
    """Takes a member out of a team; they stay in the organisation.

    Example: mercat org team remove research grace
    """
    request = pb.RemoveTeamMemberRequest(team_id=team_id(session, team), user_id=member_id(session, user))
    session.client.teams.RemoveTeamMember(request)
    if session.json:
        output.say_json({"teamId": request.team_id, "userId": request.user_id})
    else:
        output.say(f"{output.clean(user)} is not in {output.clean(team)} any more.")


def team_id(session: Session, team: str) -> str:
    """Of a team as a person types it. Refusal when there is none."""
    if team.startswith("tem_"):
        return team
    answer = gather(session.client.teams.ListTeams, pb.ListTeamsRequest(), "teams", 100_000)
    found = [t.team_id for t in answer.teams if t.name == team]
    if not found:
        raise Refusal(f"There is no team {team}.", "see `mercat org team list`")
    return found[0]
