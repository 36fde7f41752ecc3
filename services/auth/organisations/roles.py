"""Roles are sets of scopes, and one rule: nobody gives, takes or changes what they do not hold themselves."""

import json
from collections.abc import Iterable

from mercat.auth.v1 import auth_pb2

from services.auth.scopes import BY_MEMBER_ROLE, BY_ROLE, OWNER, PERSONAL
from services.auth.store import Row
from services.common.errors import PermissionDenied

ALL = BY_MEMBER_ROLE[OWNER]


def scopes_of(role: str, own: str | None) -> frozenset[str]:
    """What a role may do; `own` is the JSON of what the organisation says of a role of its own. Nothing where
    there is no such role any more."""
    if (built_in := BY_MEMBER_ROLE.get(role)) is not None:
        return built_in
    return ALL.intersection(json.loads(own)) if own is not None else frozenset()


def held_by(row: Row) -> frozenset[str]:
    """What a member's own role and those of their teams allow together, in an organisation of several people."""
    scopes = scopes_of(row["member_role"], row["role_scopes"])
    for role, own in json.loads(row.get("team_roles") or "[]"):
        scopes |= scopes_of(role, None if own is None else json.dumps(own))
    return scopes


def standing(row: Row) -> tuple["auth_pb2.Role.ValueType", frozenset[str]]:
    """The platform role and the scopes that `principal_id` has in an organisation: of a person in their personal one by
    their role on the platform, else by the role there; nobody else has what the platform's role adds."""
    owner = row["personal_of"]
    if owner is not None and owner == row["principal_id"]:
        return row["owner_role"], BY_ROLE[row["owner_role"]]
    scopes = held_by(row)
    if is_person(row["principal_id"]):
        scopes |= PERSONAL
    if owner is None:
        return auth_pb2.ROLE_PUBLISHER, scopes
    role = min(row["owner_role"], auth_pb2.ROLE_PUBLISHER)
    return role, scopes & BY_ROLE[role]


def is_person(principal_id: str) -> bool:
    """Not so for service accounts, and for keys that members share."""
    return principal_id.startswith("usr_")


def check_within(scopes: Iterable[str], held: Iterable[str]) -> None:
    """Raises PermissionDenied for a scope that is not held."""
    if missing := frozenset(scopes) - frozenset(held):
        raise PermissionDenied(
            f"you do not hold the scope {min(missing)} yourself", reason="SCOPE_MISSING",
            metadata={"scopes": " ".join(sorted(missing))},
        )  # fmt: skip
