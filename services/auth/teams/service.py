"""Serves `mercat.auth.v1.TeamService`. Every change locks the organisation first, as those of members and roles do."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from mercat.auth.v1 import auth_pb2, team_pb2, team_pb2_grpc

from services.auth.organisations.roles import check_within, scopes_of
from services.auth.organisations.service import member_of
from services.auth.organisations.standing import forget, member_of_organisation, role_within, shared
from services.auth.organisations.store import OrganisationStore
from services.auth.scopes import OWNER
from services.auth.store import Row
from services.auth.teams.store import TeamNotFound, TeamStore
from services.common import audit, etags, ids, pages
from services.common.db import Connection
from services.common.errors import (
    AlreadyExists,
    EtagMismatch,
    InvalidFields,
    NotFound,
    ResourceExhausted,
    Violation,
)
from services.common.rpc.context import Context, caller
from services.common.service import Deps

_TEAMS = 200  # of an organisation


class TeamServicer(team_pb2_grpc.TeamServiceServicer):
    """What a team gives is felt everywhere within five seconds, as all of a principal is."""

    def __init__(self, deps: Deps, store: TeamStore, organisations: OrganisationStore) -> None:
        self._database = deps.database
        self._events = deps.events
        self._clock = deps.clock
        self._store = store
        self._organisations = organisations

    async def CreateTeam(self, request: team_pb2.CreateTeamRequest, context: Context) -> team_pb2.CreateTeamResponse:
        principal, team_id = caller(), ids.new("tem")
        audit.about("team", team_id)
        with _names():
            async with self._database.transaction() as connection:
                await shared(self._organisations, connection, principal.org_id)
                await self._check_role(connection, principal, request.role)
                if await self._store.count_teams(connection, principal.org_id) >= _TEAMS:
                    raise ResourceExhausted(f"an organisation may have {_TEAMS} teams", reason="TOO_MANY_TEAMS")
                await self._store.add_team(
                    connection, team_id=team_id, org_id=principal.org_id, name=request.name, role=request.role,
                    now=self._clock.now(),
                )  # fmt: skip
                team = _team(await self._get(connection, team_id))
                audit.changed(after=team)
        return team_pb2.CreateTeamResponse(team=team)

    async def _check_role(self, connection: Connection, principal: auth_pb2.Principal, role: str) -> None:
        """That a team may have a role, and the caller give it."""
        if role == OWNER:
            raise InvalidFields(violations=[Violation("role", "is of persons alone, who answer for the organisation")])
        if role:
            await role_within(self._organisations, connection, principal, role)

    async def _get(self, connection: Connection, team_id: str) -> Row:
        row = await self._store.get_team(connection, team_id, caller().org_id)
        if row is None:
            raise TeamNotFound("the organisation has no such team; see `mercat org team list`")
        return row

    async def _within(self, connection: Connection, team_id: str) -> Row:
        """A team that gives nothing that the caller does not hold; the organisation is locked."""
        principal = caller()
        await self._organisations.lock_organisation(connection, principal.org_id)
        row = await self._get(connection, team_id)
        if row["role"]:
            check_within(scopes_of(row["role"], row["role_scopes"]), principal.scopes)
        return row

    async def ListTeams(self, request: team_pb2.ListTeamsRequest, context: Context) -> team_pb2.ListTeamsResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            after = str(key[0]) if key else ""
            rows = await self._store.list_teams(connection, caller().org_id, request.user_id, after, most + 1)
        token = pages.encode([rows[most - 1]["name"]]) if len(rows) > most else ""
        return team_pb2.ListTeamsResponse(teams=[_team(r) for r in rows[:most]], next_page_token=token)

    async def UpdateTeam(self, request: team_pb2.UpdateTeamRequest, context: Context) -> team_pb2.UpdateTeamResponse:
        principal, revision = caller(), etags.revision(request.etag, "team")
        audit.about("team", request.team_id)
        with _names():
            async with self._database.transaction() as connection:
                before = await self._within(connection, request.team_id)
                if revision not in (0, before["revision"]):
                    raise EtagMismatch("the team was changed meanwhile; read it again")
                role = request.role if request.HasField("role") else before["role"]
                if role != before["role"]:
                    await self._check_role(connection, principal, role)
                await self._store.update_team(
                    connection, request.team_id, request.name if request.HasField("name") else before["name"], role
                )
                team = _team(await self._get(connection, request.team_id))
                audit.changed(_team(before), team)
        await forget(self._events, org_id=principal.org_id)
        return team_pb2.UpdateTeamResponse(team=team)

    async def DeleteTeam(self, request: team_pb2.DeleteTeamRequest, context: Context) -> team_pb2.DeleteTeamResponse:
        audit.about("team", request.team_id)
        async with self._database.transaction() as connection:
            before = await self._within(connection, request.team_id)
            await self._store.delete_team(connection, request.team_id)
            audit.changed(_team(before))
        await forget(self._events, org_id=caller().org_id)
        return team_pb2.DeleteTeamResponse()

    async def ListTeamMembers(
        self, request: team_pb2.ListTeamMembersRequest, context: Context
    ) -> team_pb2.ListTeamMembersResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            await self._get(connection, request.team_id)
            rows = await self._store.list_team_members(
                connection, request.team_id, caller().org_id, str(key[0]) if key else "", most + 1
            )
        members = [member_of(r) for r in rows[:most]]
        token = pages.encode([members[-1].user_id]) if len(rows) > most else ""
        return team_pb2.ListTeamMembersResponse(members=members, next_page_token=token)

    async def AddTeamMember(
        self, request: team_pb2.AddTeamMemberRequest, context: Context
    ) -> team_pb2.AddTeamMemberResponse:
        principal = caller()
        audit.about("team", request.team_id)
        async with self._database.transaction() as connection:
            await self._within(connection, request.team_id)
            member = await member_of_organisation(self._organisations, connection, principal.org_id, request.user_id)
            await self._store.add_team_member(
                connection, request.team_id, principal.org_id, request.user_id, self._clock.now()
            )
        await forget(self._events, org_id=principal.org_id, user_id=request.user_id)
        return team_pb2.AddTeamMemberResponse(member=member_of(member))

    async def RemoveTeamMember(
        self, request: team_pb2.RemoveTeamMemberRequest, context: Context
    ) -> team_pb2.RemoveTeamMemberResponse:
        audit.about("team", request.team_id)
        async with self._database.transaction() as connection:
            await self._within(connection, request.team_id)
            if not await self._store.remove_team_member(connection, request.team_id, request.user_id):
                raise NotFound("the team has no such member; see `mercat org team show`", reason="MEMBER_NOT_FOUND")
        await forget(self._events, org_id=caller().org_id, user_id=request.user_id)
        return team_pb2.RemoveTeamMemberResponse()


@contextmanager
def _names() -> Iterator[None]:
    try:
        yield
    except asyncpg.UniqueViolationError:
        problem = Violation("name", "is that of another team; choose another")
        raise AlreadyExists("this name is taken", reason="TEAM_EXISTS", violations=[problem]) from None


def _team(row: Row) -> team_pb2.Team:
    team = team_pb2.Team(
        team_id=row["id"], name=row["name"], role=row["role"], member_count=row["member_count"],
        etag=str(row["revision"]),
    )  # fmt: skip
    team.created_at.FromDatetime(row["created_at"])
    return team
