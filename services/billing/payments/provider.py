"""What moves money and keeps cards: a payment provider, as the sagas see it.

Every call may be repeated under its key, at any time: the provider forgets keys (Stripe after 24 hours), so nothing
that moves money rests on them alone. A payment is opened, its name stored, and only then confirmed; what was opened
twice is confirmed once."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol


class Status(StrEnum):
    """How money moving stands. PENDING: the provider will know later."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REQUIRES_ACTION = "requires_action"
    PENDING = "pending"


@dataclass(frozen=True)
class Outcome:
    """What a provider answers. `code`: why it failed, such as `insufficient_funds`. `client_secret`: with which the
    owner of the card proves who they are."""

    status: Status
    ref: str
    code: str = ""
    client_secret: str = ""


@dataclass(frozen=True)
class Card:
    """A payment method at the provider, under the provider's name `ref`."""

    ref: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int


@dataclass(frozen=True)
class Setup:
    """A SetupIntent: the card's owner gives the card to the provider with it, never to Mercat."""

    ref: str
    client_secret: str


class Event(NamedTuple):
    """What the provider told by itself, and about what."""

    id: str
    type: str
    object_ref: str
    created_at: datetime


class Kind(StrEnum):
    """What moves money at a provider."""

    PAYMENT = "payment"
    REFUND = "refund"
    DISPUTE = "dispute"
    TRANSFER = "transfer"


class Movement(NamedTuple):
    """What the provider keeps of money that moved, or may. A dispute that is PENDING has taken its money already."""

    kind: Kind
    ref: str
    cents: int
    status: Status
    created_at: datetime
    mark: str = ""  # the id that it has here, where the provider was told

    @property
    def moved(self) -> bool:
        return self.status == Status.SUCCEEDED or (self.kind == Kind.DISPUTE and self.status == Status.PENDING)


class ProviderUnavailable(Exception):
    """The provider did not answer, or cannot just now: what was asked may have happened. Ask again."""


class ProviderRefused(Exception):
    """The provider will not do this, however often it is asked."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Provider(Protocol):
    """Each method raises ProviderUnavailable, or ProviderRefused with the provider's code."""

    name: str

    async def create_customer(self, org_id: str, key: str) -> str:
        """The name of a new customer."""
        ...

    async def delete_customer(self, customer: str) -> None:
        """Forgets a customer and their cards; one that is unknown is forgotten."""
        ...

    async def set_up_card(self, customer: str, key: str) -> Setup: ...

    async def attach_card(self, customer: str, method: str, key: str) -> Card:
        """Keeps a card for charges while nobody is there. A test card's name makes a card of its own each time."""
        ...

    async def detach_card(self, method: str) -> None:
        """Forgets a card; one that is unknown is forgotten."""
        ...

    async def open_payment(self, customer: str, method: str, cents: int, payment_id: str) -> str:
        """The name of a payment by a card that moves nothing yet."""
        ...

    async def confirm_payment(self, ref: str, *, off_session: bool) -> Outcome:
        """Charges the card, unless this payment has ended: then how it did. One that is refused can never succeed
        later. `off_session`: nobody is there to prove anything, so it fails where that would be needed."""
        ...

    async def get_payment(self, ref: str) -> Outcome:
        """How the payment stands; what was refused meanwhile is ended."""
        ...

    async def cancel_payment(self, ref: str) -> Outcome:
        """Ends a payment that has not moved money; one that has is answered as it is."""
        ...

    async def refund(self, payment: str, cents: int, refund_id: str) -> Outcome:
        """Gives a part of a payment back, once for a refund's id, for ever."""
        ...

    async def create_account(self, org_id: str, key: str) -> str:
        """The name of a new account of a publisher's, which money can be transferred to when it is ready."""
        ...

    async def onboarding_url(self, account: str, return_url: str) -> str:
        """Where the publisher tells the provider who they are and where their bank is; of use for minutes."""
        ...

    async def account_ready(self, account: str) -> bool:
        """Whether the account takes transfers and pays them out."""
        ...

    async def transfer(self, account: str, cents: int, key: str) -> Outcome:
        """Moves money of the platform to a publisher's account, once for a key, for ever."""
        ...

    # For the proof of the books

    def movements(self, start: datetime, until: datetime) -> AsyncIterator[Movement]:
        """Everything of every kind that was made at the provider within a time; nothing is changed by asking."""
        ...

    async def get_movement(self, kind: Kind, ref: str) -> Movement | None:
        """As it stands now; None: there is none of this name."""
        ...
