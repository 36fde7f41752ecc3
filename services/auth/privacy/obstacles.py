"""What a deletion takes along, what stays, and what stands in its way. Pure."""

from collections.abc import Sequence

from mercat.auth.v1 import privacy_pb2
from mercat.billing.v1 import closing_pb2

from services.auth.privacy.store import Row
from services.auth.scopes import OWNER
from services.common import money

GOES = (
    "your profile, sessions, passkeys, second factor, linked accounts, API keys and memberships",
    "your models with all versions and files, and your jobs with what was sent and answered",
    "your reviews, replies, collections, favourites and webhooks, and what others said of your models",
    "cards, payout accounts, budgets and automatic top-ups; subscriptions end, promotional credit lapses",
    "network addresses, programs and what was asked for, wherever the audit log says it of you",
    "mail on its way, exports, and the keys that what is left in backups lies under",
)
STAYS = (
    "ledger, invoices, payments and records of calls, under ids and a pseudonym for your handle, as the law has it",
    "that something was done and when, in the audit log, whose chain proves the rest; not what, nor from where",
    "what you made in organisations of several people: it is theirs",
    "a keyed hash of your handle, so that nobody takes your place, for as long as the operator keeps names back",
)


def theirs(memberships: Sequence[Row]) -> list[Row]:
    """Organisations that have no other members."""
    return [row for row in memberships if not row["others"]]


def pseudonym(org_id: str) -> str:
    """What stands for an organisation's handle from then on."""
    return "deleted-" + org_id.partition("_")[2]


def obstacles(
    memberships: Sequence[Row], closing: closing_pb2.GetClosingResponse, *, only_admin: bool
) -> list[privacy_pb2.Deletion.Obstacle]:
    """The hard ones first. `closing`: of the organisations that go."""
    found = []
    if only_admin:
        found.append(_obstacle("LAST_ADMIN", "you are the only administrator of this platform"))
    owned = [r["handle"] for r in memberships if r["others"] and r["role"] == OWNER and not r["other_owners"]]
    if owned:
        names = ", ".join(owned)
        text = f"you are the last owner of {names}; make somebody else owner first: `mercat org transfer USER`"
        found.append(_obstacle("LAST_OWNER", text))
    if closing.owed_nanos:
        text = f"{money.show(closing.owed_nanos)} are owed; pay first, with `mercat topup` or `mercat invoices pay`"
        found.append(_obstacle("ACCOUNT_OWES", text))
    if closing.pending_count:
        text = f"{closing.pending_count} payments, refunds or payouts are under way; wait until they have ended"
        found.append(_obstacle("PAYMENTS_UNDER_WAY", text))
    if closing.balance_nanos or closing.payable_nanos:
        kinds = ((closing.balance_nanos, "in the wallet"), (closing.payable_nanos, "of earnings"))
        held = [f"{money.show(nanos)} {where}" for nanos, where in kinds if nanos]
        text = f"there are {' and '.join(held)}; have them refunded or paid out first, or give them up with `forfeit`"
        found.append(_obstacle("ACCOUNT_HOLDS_MONEY", text, forfeitable=True))
    return found


def _obstacle(reason: str, message: str, *, forfeitable: bool = False) -> privacy_pb2.Deletion.Obstacle:
    return privacy_pb2.Deletion.Obstacle(reason=reason, message=message, forfeitable=forfeitable)
