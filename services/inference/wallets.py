"""Wallet leases: slices of accounts' credit, reserved in Postgres before this worker spends them, so that spending is a
subtraction in memory and no budget can be overshot.

An organisation that has budgets by key or model has leases apart for each, which billing says with every lease.

A lease's way: acquired → spent from, renewed every few seconds → retired (used up, idle, ended, recalled or lost)
→ closed, when no call under way holds money of it."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from mercat.auth.v1 import auth_pb2
from mercat.billing.v1 import billing_pb2, billing_pb2_grpc
from nats.aio.msg import Msg

from services.common.clock import SystemClock
from services.common.errors import BudgetExceeded, InsufficientCredit, MercatError, Unavailable
from services.common.events import Events, listen
from services.common.rpc.channels import InternalChannel

log = logging.getLogger(__name__)
RECALL, ALL = "mercat.recall.*", b"all"
_RENEW = 5.0  # seconds
_IDLE = 10.0  # seconds after which an unused lease is given back
_MARGIN = 3.0  # seconds before its expiry from which a lease is no longer spent
_FIRST_CALLS = 16  # calls' worth that a first lease asks for
_MOST_CALLS = 100_000
_AHEAD = 8.0  # seconds that a lease should last at the rate of the one before
_WAITS = (0.03, 0.06, 0.1, 0.15, 0.2)  # seconds between attempts while other workers hold what is missing
_BUDGET_WAITS = (*_WAITS, 0.3, 0.5, 0.7, 1.0)  # what others hold of a budget is spent soon, or comes back
_MOST_TRIES = len(_WAITS) + 1  # leases that were recalled at once
_REFUSED_FOR = 0.25  # seconds that a refusal stands for the calls that follow


class Payer(NamedTuple):
    """Who pays for a call, and what budgets go by. `key_id`: the key, or else the user."""

    org_id: str
    key_id: str
    model_id: str


def payer_of(principal: auth_pb2.Principal, model_id: str) -> Payer:
    """Of a call of a model."""
    return Payer(principal.org_id, principal.key_id or principal.user_id, model_id)


@dataclass(eq=False, slots=True)
class Lease:
    """A slice of an account's credit; amounts in nanos, times on the event loop's clock."""

    lease_id: str
    account: "_Account"
    granted: int
    valid_until: float
    ends: float  # no call begins to spend from it after that
    made: float
    used: float
    spent: int = 0  # by calls that were recorded
    held: int = 0  # by calls under way
    retired: bool = False

    @property
    def room(self) -> int:
        return 0 if self.retired else self.granted - self.spent - self.held


@dataclass(eq=False, slots=True)
class _Account:
    """Whose calls spend from the same leases."""

    leases: list[Lease] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    refused_until: float = 0.0
    refused_cost: int = 0
    refusal: InsufficientCredit | BudgetExceeded | None = None
    ahead: asyncio.Task[None] | None = None  # takes the next lease while there is still room in this one
    ahead_after: float = 0.0


@dataclass(eq=False, slots=True)
class _Organization:
    """Its accounts by key and model; both are None where it has no budgets by them, as billing said last."""

    by_key: bool = False
    by_model: bool = False
    accounts: dict[tuple[str | None, str | None], _Account] = field(default_factory=dict)

    def account(self, payer: Payer) -> _Account:
        name = (payer.key_id if self.by_key else None, payer.model_id if self.by_model else None)
        account = self.accounts.get(name)
        if account is None:
            account = self.accounts[name] = _Account()
        return account

    def leases(self) -> list[Lease]:
        return [lease for account in self.accounts.values() for lease in account.leases]


class Wallets:
    """This worker's leases."""

    def __init__(self, channel: InternalChannel, worker_id: str) -> None:
        self._stub = billing_pb2_grpc.LeaseServiceStub(channel)
        self._worker_id = worker_id
        self._organizations: dict[str, _Organization] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def listen(self, events: Events) -> None:
        """Gives back idle slices when another worker needs the credit, and all when budgets have changed."""

        async def recall(message: Msg) -> None:
            organization = self._organizations.get(message.subject.rpartition(".")[2])
            if organization is not None:
                self._retire([x for x in organization.leases() if not x.held or message.data == ALL])

        await listen(events, RECALL, recall)

    def hold(self, payer: Payer, cost: int) -> Lease | None:
        """Holds `cost` nanos of a lease for a call, without waiting; None when no lease has that much."""
        organization = self._organizations.get(payer.org_id)
        if organization is not None:
            account = organization.account(payer)
            now = asyncio.get_running_loop().time()
            for lease in account.leases:
                if lease.room >= cost and now < lease.valid_until - _MARGIN and now < lease.ends:
                    lease.held += cost
                    lease.used = now
                    if 2 * lease.room < lease.granted and account.ahead is None and now > account.ahead_after:
                        self._look_ahead(account, payer, cost)
                    return lease
        return None

    def _look_ahead(self, account: _Account, payer: Payer, cost: int) -> None:
        """Takes the next lease beside the calls: billing may be away for some seconds and nobody notices."""
        if 2 * sum(lease.room for lease in account.leases) > account.leases[-1].granted:
            return

        async def take() -> None:
            try:
                async with account.lock:
                    await self._lease(account, payer, cost)
            except MercatError:
                account.ahead_after = asyncio.get_running_loop().time() + 1.0
            finally:
                account.ahead = None

        account.ahead = asyncio.get_running_loop().create_task(take())

    async def acquire(self, payer: Payer, cost: int) -> Lease:
        """Like `hold`, and takes a new lease when none has room.

        Raises:
            InsufficientCredit: the account has not that much, other workers' idle slices included.
            BudgetExceeded: a budget has not that much left, likewise.
            Unavailable: billing cannot be asked.
        """
        organization = self._organizations.setdefault(payer.org_id, _Organization())
        while True:
            account = organization.account(payer)
            async with account.lock:
                if account is organization.account(payer):  # it may be another's now, who has budgets of its own
                    return await self._acquire(organization, account, payer, cost)

    async def _acquire(self, organization: _Organization, account: _Account, payer: Payer, cost: int) -> Lease:
        loop = asyncio.get_running_loop()
        if lease := self.hold(payer, cost):
            return lease
        if account.refusal and loop.time() < account.refused_until and cost >= account.refused_cost:
            raise account.refusal
        tried = 0
        while True:
            tried += 1
            try:
                await self._lease(account, payer, cost)
            except (InsufficientCredit, BudgetExceeded) as e:
                waits = _BUDGET_WAITS if isinstance(e, BudgetExceeded) else _WAITS
                if tried <= len(waits) and int(e.metadata.get("reserved_nanos", "0")) > 0:
                    self._retire([lease for lease in organization.leases() if not lease.held])
                    await asyncio.sleep(waits[tried - 1])
                    if lease := self.hold(payer, cost):
                        return lease
                    continue
                account.refusal, account.refused_cost = e, cost
                account.refused_until = loop.time() + _REFUSED_FOR
                raise
            if lease := self.hold(payer, cost):
                return lease
            if tried > _MOST_TRIES:
                raise Unavailable("the wallet lease was recalled at once", reason="LEASE_LOST", retry_after=0.2)

    async def _lease(self, account: _Account, payer: Payer, cost: int) -> None:
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        wanted = cost * _FIRST_CALLS
        if account.leases:
            newest = account.leases[-1]
            rate = (newest.spent + newest.held) / max(asked_at - newest.made, 0.01)
            wanted = max(wanted, min(int(rate * _AHEAD), cost * _MOST_CALLS))
        answer = await self._stub.AcquireLease(
            billing_pb2.AcquireLeaseRequest(
                org_id=payer.org_id, worker_id=self._worker_id, minimum_nanos=cost, wanted_nanos=wanted,
                key_id=payer.key_id, model_id=payer.model_id,
            ),
            timeout=5,
        )  # fmt: skip
        organization = self._organizations[payer.org_id]
        if (organization.by_key, organization.by_model) != (answer.by_key, answer.by_model):
            self._retire(organization.leases())
            organization.by_key, organization.by_model = answer.by_key, answer.by_model
        account, clock = organization.account(payer), SystemClock()
        lease = Lease(
            answer.lease_id, account, answer.granted_nanos, asked_at + _lasts(answer.expires_at, clock.machine()),
            asked_at + _lasts(answer.ends_at, clock.now()), asked_at, asked_at,
        )  # fmt: skip
        self._retire([old for old in account.leases if old.room < cost])
        account.leases.append(lease)

    def check(self, lease: Lease) -> None:
        """Raises Unavailable when a call outlived its lease: what it holds may have been given to somebody else."""
        if asyncio.get_running_loop().time() >= lease.valid_until:
            raise Unavailable("the wallet lease ran out during the call", reason="LEASE_LOST", retry_after=1)

    def settle(self, lease: Lease, held: int, spent: int) -> None:
        """Ends what `hold` began: so many nanos of those held were spent (the call is recorded), the rest is free."""
        lease.held -= held
        lease.spent += spent
        if lease.retired and not lease.held:
            self._close([lease])

    def _retire(self, leases: list[Lease]) -> None:
        for lease in leases:
            lease.retired = True
        self._close([lease for lease in leases if not lease.held])

    def _close(self, leases: list[Lease]) -> None:
        if not leases:
            return
        for lease in leases:
            lease.account.leases.remove(lease)
        task = asyncio.get_running_loop().create_task(self._give_back(leases))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _give_back(self, leases: list[Lease]) -> None:
        request = billing_pb2.CloseLeasesRequest(worker_id=self._worker_id)
        for lease in leases:
            request.leases.add(lease_id=lease.lease_id, spent_nanos=lease.spent)
        try:
            await self._stub.CloseLeases(request, timeout=5)
        except MercatError as e:  # they come back by themselves when they expire
            log.warning("%d leases could not be closed: %s", len(leases), e)

    async def keep(self) -> None:
        """Renews the leases in use and gives back the idle ones, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_RENEW)
            now = loop.time()
            # From one that ended nobody takes any more; calls under way still spend what they hold.
            self._retire([
                x for x in self._leases()
                if not x.retired and (now >= x.ends or (not x.held and now - x.used > _IDLE))
            ])  # fmt: skip
            self._forget()
            live = list(self._leases())
            if not live:
                continue
            try:
                answer = await self._stub.RenewLeases(
                    billing_pb2.RenewLeasesRequest(worker_id=self._worker_id, lease_ids=[x.lease_id for x in live]),
                    timeout=4,
                )
            except MercatError as e:
                log.warning("leases could not be renewed: %s", e)
                continue
            lost, ended = set(answer.lost_lease_ids), set(answer.ended_lease_ids)
            lives = _lasts(answer.expires_at, SystemClock().machine())
            for lease in live:
                if lease.lease_id in lost:
                    lease.retired, lease.valid_until = True, now
                    if not lease.held and lease in lease.account.leases:
                        lease.account.leases.remove(lease)
                else:
                    lease.valid_until = now + lives
            self._retire([x for x in self._leases() if x.lease_id in ended and not x.retired])

    def _leases(self) -> Iterator[Lease]:
        for organization in self._organizations.values():
            yield from organization.leases()

    def _forget(self) -> None:
        """Accounts that nobody calls from: an organisation may have very many keys."""
        for organization in self._organizations.values():
            used = {
                name: x
                for name, x in organization.accounts.items()
                if x.leases or x.lock.locked() or x.ahead is not None
            }
            organization.accounts = used

    async def close(self) -> None:
        """Gives everything back; for a worker that stops. What is being leased ahead is waited for, or it would come
        back only when it expires."""
        accounts = [x for organization in self._organizations.values() for x in organization.accounts.values()]
        ahead = [account.ahead for account in accounts if account.ahead is not None]
        if ahead:
            await asyncio.wait(ahead, timeout=5)
        self._retire(list(self._leases()))
        if self._closing:
            await asyncio.wait(set(self._closing), timeout=5)


def _lasts(until: Timestamp, now: datetime) -> float:
    """Seconds from now."""
    return until.ToNanoseconds() / 1e9 - now.timestamp()
