"""What somebody may do in an organisation."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mercat.auth.v1 import auth_pb2

from services.auth.organisations.roles import check_within, scopes_of, standing
from services.auth.scopes import BY_MEMBER_ROLE, BY_ROLE, PERSONAL
from services.common.errors import PermissionDenied

CONSUMER, PUBLISHER, ADMIN = auth_pb2.ROLE_CONSUMER, auth_pb2.ROLE_PUBLISHER, auth_pb2.ROLE_ADMIN


def row(
    principal: str, role: str, *, personal_of: str | None = None, owner_role: int | None = None
) -> dict[str, object]:
    return {
        "principal_id": principal, "member_role": role, "role_scopes": None, "personal_of": personal_of,
        "owner_role": owner_role,
    }  # fmt: skip


@pytest.mark.parametrize("role", [CONSUMER, PUBLISHER, ADMIN])
def test_a_person_at_home_has_their_role_on_the_platform(role: int) -> None:
    assert standing(row("usr_1", "owner", personal_of="usr_1", owner_role=role)) == (role, BY_ROLE[role])


@pytest.mark.parametrize("role", [CONSUMER, PUBLISHER, ADMIN])
def test_programs_at_home_have_no_more_than_their_person_and_nothing_of_the_platform(role: int) -> None:
    for principal, member_role in (("sva_1", "owner"), ("org_1", "admin")):
        got, scopes = standing(row(principal, member_role, personal_of="usr_1", owner_role=role))
        assert got == min(role, PUBLISHER)
        assert scopes <= BY_ROLE[role] & BY_MEMBER_ROLE["owner"]
        assert not scopes & PERSONAL


@pytest.mark.parametrize("role", BY_MEMBER_ROLE)
def test_in_an_organisation_the_role_there_counts(role: str) -> None:
    assert standing(row("usr_1", role)) == (PUBLISHER, BY_MEMBER_ROLE[role] | PERSONAL)
    assert standing(row("sva_1", role)) == (PUBLISHER, BY_MEMBER_ROLE[role])


def test_teams_add_to_what_a_member_may_and_change_nobodys_platform_role() -> None:
    teams = json.dumps([["billing", None], ["own", ["audit:read", "ledger:write"]], ["gone", None]])
    role, scopes = standing(row("usr_1", "viewer") | {"team_roles": teams})
    assert role == PUBLISHER
    assert scopes == BY_MEMBER_ROLE["billing"] | {"audit:read"} | PERSONAL


@given(st.sets(st.sampled_from(sorted(BY_ROLE[ADMIN]))))
def test_a_role_of_its_own_has_nothing_that_owners_have_not(scopes: set[str]) -> None:
    assert scopes_of("own", json.dumps(sorted(scopes))) == scopes & BY_MEMBER_ROLE["owner"]
    assert scopes_of("gone", None) == frozenset()
    assert scopes_of("viewer", json.dumps(sorted(scopes))) == BY_MEMBER_ROLE["viewer"]


@given(st.sets(st.sampled_from("abcd")), st.sets(st.sampled_from("abcd")))
def test_nobody_gives_what_they_do_not_hold(scopes: set[str], held: set[str]) -> None:
    if scopes <= held:
        check_within(scopes, held)
    else:
        with pytest.raises(PermissionDenied) as caught:
            check_within(scopes, held)
        assert caught.value.metadata["scopes"].split() == sorted(scopes - held)
