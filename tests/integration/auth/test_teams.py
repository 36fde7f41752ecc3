"""Teams, as members of an organisation meet them."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from mercat.auth.v1 import audit_pb2, auth_pb2
from mercat.auth.v1 import organisation_pb2 as org
from mercat.auth.v1 import team_pb2 as pb
from mercat.inference.v1 import inference_pb2
from mercat.usage.v1 import usage_pb2

from tests import graphs
from tests.expect import fails, until
from tests.platform import USD, Account, Platform

# What a developer may that a viewer may not.
DEVELOPER = {"inference:call", "keys:write", "models:write", "webhooks:read", "webhooks:write"}


@pytest.fixture
def owner(platform: Platform) -> Account:
    return platform.organisation(platform.sign_up(auth_pb2.ROLE_PUBLISHER))


@pytest.fixture
def grace(platform: Platform, owner: Account) -> Account:
    return platform.join(owner, platform.sign_up(), "viewer")


def scopes(person: Account) -> set[str]:
    return set(person.organisations.GetOrganisation(org.GetOrganisationRequest()).organisation.scopes)


def make(owner: Account, name: str, role: str = "") -> pb.Team:
    team: pb.Team = owner.teams.CreateTeam(pb.CreateTeamRequest(name=name, role=role)).team
    return team


def take_in(owner: Account, team: pb.Team, person: Account) -> None:
    owner.teams.AddTeamMember(pb.AddTeamMemberRequest(team_id=team.team_id, user_id=person.profile.user_id))


def take_out(owner: Account, team: pb.Team, person: Account) -> None:
    owner.teams.RemoveTeamMember(pb.RemoveTeamMemberRequest(team_id=team.team_id, user_id=person.profile.user_id))


def names(person: Account, **asked: Any) -> list[tuple[str, int]]:
    return [(t.name, t.member_count) for t in person.teams.ListTeams(pb.ListTeamsRequest(**asked)).teams]


def test_what_a_team_gives_lasts_as_long_as_the_membership(owner: Account, grace: Account) -> None:
    before = scopes(grace)
    team = make(owner, "research", "developer")
    take_in(owner, team, grace)
    take_in(owner, team, grace)  # who is in it stays in it
    assert names(grace, user_id=grace.profile.user_id) == [("research", 1)]
    until(lambda: scopes(grace) == before | DEVELOPER)
    key = grace.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k", scopes=["inference:call"]))
    called = Account(grace.platform, key.secret)
    assert scopes(called) == {"inference:call"}
    owner.teams.UpdateTeam(pb.UpdateTeamRequest(team_id=team.team_id, role="billing"))
    until(lambda: scopes(grace) == before | {"billing:read", "billing:write"})
    until(lambda: scopes(called) == set())  # felt by keys too
    take_out(owner, team, grace)
    until(lambda: scopes(grace) == before)
    listed = owner.teams.ListTeamMembers(pb.ListTeamMembersRequest(team_id=team.team_id)).members
    assert not listed
    take_in(owner, team, grace)
    owner.teams.DeleteTeam(pb.DeleteTeamRequest(team_id=team.team_id))
    until(lambda: scopes(grace) == before)
    assert fails(owner.teams.DeleteTeam, pb.DeleteTeamRequest(team_id=team.team_id)).reason == "TEAM_NOT_FOUND"


def test_who_leaves_the_organisation_is_in_no_team_when_they_come_back(
    platform: Platform, owner: Account, grace: Account
) -> None:
    team = make(owner, "research", "developer")
    take_in(owner, team, grace)
    owner.organisations.RemoveMember(org.RemoveMemberRequest(user_id=grace.profile.user_id))
    assert names(owner) == [("research", 0)]
    again = platform.join(owner, grace, "viewer")
    assert "models:write" not in scopes(again)
    stranger = platform.sign_up()
    request = pb.AddTeamMemberRequest(team_id=team.team_id, user_id=stranger.profile.user_id)
    assert fails(owner.teams.AddTeamMember, request).reason == "MEMBER_NOT_FOUND"


def test_nobody_gives_or_takes_by_a_team_what_they_do_not_hold(
    platform: Platform, owner: Account, grace: Account
) -> None:
    owner.organisations.SetRole(org.SetRoleRequest(name="people", scopes=["members:read", "members:write"]))
    people = platform.join(owner, platform.sign_up(), "people")
    team = make(owner, "research", "developer")
    take_in(owner, team, grace)
    user, theirs = {"user_id": people.profile.user_id}, {"team_id": team.team_id}
    for call, request in (
        (people.teams.CreateTeam, pb.CreateTeamRequest(name="mine", role="admin")),
        (people.teams.AddTeamMember, pb.AddTeamMemberRequest(**theirs, **user)),
        (people.teams.UpdateTeam, pb.UpdateTeamRequest(**theirs, role="")),
        (people.teams.DeleteTeam, pb.DeleteTeamRequest(**theirs)),
        (people.teams.RemoveTeamMember, pb.RemoveTeamMemberRequest(**theirs, user_id=grace.profile.user_id)),
        (people.organisations.RemoveMember, org.RemoveMemberRequest(user_id=grace.profile.user_id)),
    ):
        assert fails(call, request).reason == "SCOPE_MISSING"
    assert names(owner) == [("research", 1)]
    own = make(people, "own", "people")  # what they hold they give
    owner.teams.UpdateTeam(pb.UpdateTeamRequest(team_id=own.team_id, role="admin"))
    request = pb.AddTeamMemberRequest(team_id=own.team_id, **user)
    assert fails(people.teams.AddTeamMember, request).reason == "SCOPE_MISSING"
    for role, field in (("owner", "role"), ("none-such", "role")):
        error = fails(owner.teams.CreateTeam, pb.CreateTeamRequest(name="x1", role=role))
        assert [v.field for v in error.violations] == [field]


def test_a_team_keeps_its_role_and_its_name(platform: Platform, owner: Account) -> None:
    owner.organisations.SetRole(org.SetRoleRequest(name="auditor", scopes=["audit:read"]))
    team = make(owner, "research", "auditor")
    assert fails(owner.organisations.DeleteRole, org.DeleteRoleRequest(name="auditor")).reason == "ROLE_IN_USE"
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: owner.teams.CreateTeam.future(pb.CreateTeamRequest(name="other")), range(4)))
    assert sorted(m.exception() is None for m in made) == [False, False, False, True]
    taken = fails(owner.teams.UpdateTeam, pb.UpdateTeamRequest(team_id=team.team_id, name="other"))
    assert (taken.reason, [v.field for v in taken.violations]) == ("TEAM_EXISTS", ["name"])
    renamed = owner.teams.UpdateTeam(pb.UpdateTeamRequest(team_id=team.team_id, name="science", etag=team.etag)).team
    assert (renamed.name, renamed.role) == ("science", "auditor")
    stale = fails(owner.teams.UpdateTeam, pb.UpdateTeamRequest(team_id=team.team_id, role="", etag=team.etag))
    assert stale.code is grpc.StatusCode.ABORTED
    alone = platform.session(platform.sign_up())
    assert fails(alone.teams.CreateTeam, pb.CreateTeamRequest(name="me")).reason == "PERSONAL_ORGANISATION"

    def told() -> bool:
        asked = audit_pb2.ListAuditEntriesRequest(filter=audit_pb2.AuditFilter(action="UpdateTeam"))
        listed = owner.audit.ListAuditEntries(asked).entries
        return [e.resource_id for e in listed if "denied" not in e.metadata] == [team.team_id]

    until(told)


def test_usage_is_asked_for_by_team(platform: Platform, owner: Account) -> None:
    members = [platform.join(owner, platform.sign_up(), "developer") for _ in range(2)]
    owner.top_up(USD)
    model = platform.publish(owner, graphs.tiny())
    x = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))
    for person, calls in zip(members, (1, 2), strict=True):
        for _ in range(calls):
            person.inference.Predict(inference_pb2.PredictRequest(model=model, inputs=[x]))
    team, none = make(owner, "research"), make(owner, "nobody")
    take_in(owner, team, members[1])

    def counted(**asked: str) -> int:
        points = owner.usage.QueryUsage(usage_pb2.QueryUsageRequest(meter="requests", **asked)).points
        return sum(int(p.value) for p in points)

    until(lambda: counted() == 3, 30)
    assert [counted(team_id=t.team_id) for t in (team, none)] == [2, 0]
    assert counted(team_id=team.team_id, user_id=members[0].profile.user_id) == 0
    request = usage_pb2.QueryUsageRequest(meter="requests", team_id=team.team_id)
    assert fails(platform.session(platform.sign_up()).usage.QueryUsage, request).reason == "TEAM_NOT_FOUND"
