"""Who may hear of what."""

from collections.abc import Iterable

from services.common.errors import InvalidFields, NotFound, PermissionDenied, Violation
from services.common.rpc.context import caller
from services.notification.webhooks.catalogue import TYPES
from services.notification.webhooks.store import Row


class EndpointNotFound(NotFound, reason="WEBHOOK_ENDPOINT_NOT_FOUND"): ...


class DeliveryNotFound(NotFound, reason="WEBHOOK_DELIVERY_NOT_FOUND"): ...


def check_types(names: Iterable[str], field: str = "event_types") -> None:
    """That these are types, none meaning all, and that the caller may hear of them. Raises InvalidFields,
    PermissionDenied."""
    asked = list(names) or list(TYPES)
    if unknown := [name for name in asked if name not in TYPES]:
        hint = "see `mercat webhooks events`"
        raise InvalidFields(violations=[Violation(field, f"there is no type {name}; {hint}") for name in unknown])
    scopes = {TYPES[name].scope for name in asked}
    if missing := sorted(scopes.difference(caller().scopes)):
        raise PermissionDenied(
            f"to hear of these this credential lacks the scope {', '.join(missing)}",
            reason="SCOPE_MISSING", metadata={"scopes": " ".join(missing)},
        )  # fmt: skip


def heard(names: Iterable[str]) -> frozenset[str]:
    """Of these types, none meaning all, those that the caller may hear of. Raises InvalidFields for what is none, and
    PermissionDenied when one is named that may not be heard of."""
    asked = list(names)
    if asked:
        check_types(asked)
    return frozenset(asked) or frozenset(t.name for t in TYPES.values() if t.scope in caller().scopes)


def found(row: Row | None) -> Row:
    """Raises EndpointNotFound."""
    if row is None:
        raise EndpointNotFound("you have no such endpoint; see `mercat webhooks list`")
    return row
