"""What a provider does, by the sandbox's and by Stripe's; and the requests to Stripe beside its published contract."""

import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from services.billing.payments.provider import Kind, Provider, ProviderRefused, ProviderUnavailable, Status
from services.billing.payments.sandbox import SandboxProvider
from services.billing.payments.stripe_provider import StripeProvider
from services.common import ids
from services.common.db import Database, migrate
from services.embedded.ports import free_ports
from services.embedded.postgres import Postgres
from tests import processes
from tests.stripe_server import KEY, Stripe


@pytest.fixture(scope="module")
async def database(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Database]:
    async with Postgres(tmp_path_factory.mktemp("sandbox") / "postgres") as postgres:
        await migrate(postgres.url, "billing", "services.billing")
        database = await Database.connect(postgres.url, "billing")
        yield database
        await database.close()


@pytest.fixture(params=["sandbox", "stripe"])
async def provider(request: pytest.FixtureRequest, database: Database, stripe: Stripe) -> AsyncIterator[Provider]:
    if request.param == "sandbox":
        yield SandboxProvider(database)
        return
    made = StripeProvider(KEY, stripe.url)
    yield made
    await made.close()


async def opened(provider: Provider, cents: int, card: str = "pm_card_visa") -> tuple[str, str]:
    """A customer and a payment that is not confirmed."""
    customer = await provider.create_customer(ids.new("org"), ids.new("key"))
    method = await provider.attach_card(customer, card, ids.new("key"))
    return customer, await provider.open_payment(customer, method.ref, cents, ids.new("pay"))


async def test_a_card_is_kept(provider: Provider) -> None:
    customer = await provider.create_customer(ids.new("org"), ids.new("key"))
    setup = await provider.set_up_card(customer, ids.new("key"))
    assert setup.client_secret.startswith(setup.ref)
    card = await provider.attach_card(customer, "pm_card_visa", ids.new("key"))
    assert (card.brand, card.last4) == ("visa", "4242")
    assert await provider.attach_card(customer, card.ref, ids.new("key")) == card, "it is kept already"
    other = await provider.create_customer(ids.new("org"), ids.new("key"))
    with pytest.raises(ProviderRefused):
        await provider.attach_card(other, card.ref, ids.new("key"))
    await provider.detach_card(card.ref)
    await provider.detach_card("pm_unknown")


async def test_an_opened_payment_moves_nothing_and_is_confirmed_once(provider: Provider) -> None:
    _, ref = await opened(provider, 1250)
    assert (await provider.get_payment(ref)).status == Status.PENDING
    first = await provider.confirm_payment(ref, off_session=True)
    assert first.status == Status.SUCCEEDED
    assert await provider.confirm_payment(ref, off_session=True) == first
    assert await provider.get_payment(ref) == first
    assert await provider.cancel_payment(ref) == first, "what has moved money is answered as it is"


async def test_a_refused_payment_stays_refused(provider: Provider) -> None:
    _, ref = await opened(provider, 1250, "pm_card_chargeCustomerFail")
    for _ in range(2):
        outcome = await provider.confirm_payment(ref, off_session=True)
        assert (outcome.status, outcome.code) == (Status.FAILED, "card_declined")
    assert (await provider.get_payment(ref)).status == Status.FAILED


async def test_a_cancelled_payment_charges_nobody(provider: Provider) -> None:
    _, ref = await opened(provider, 1250)
    assert (await provider.cancel_payment(ref)).status == Status.FAILED
    assert (await provider.confirm_payment(ref, off_session=True)).status == Status.FAILED


async def test_a_refund_happens_once_for_its_id_and_never_past_the_payment(provider: Provider) -> None:
    _, ref = await opened(provider, 1000)
    await provider.confirm_payment(ref, off_session=True)
    refund_id = ids.new("rfd")
    first = await provider.refund(ref, 700, refund_id)
    assert first.status == Status.SUCCEEDED
    assert await provider.refund(ref, 700, refund_id) == first
    with pytest.raises(ProviderRefused):
        await provider.refund(ref, 700, ids.new("rfd"))
    assert (await provider.refund(ref, 300, ids.new("rfd"))).ref != first.ref


async def test_what_moved_is_listed_by_time_and_by_name(provider: Provider) -> None:
    start = datetime.now(UTC) - timedelta(seconds=2)
    _, ref = await opened(provider, 1250)
    _, unconfirmed = await opened(provider, 700)
    await provider.confirm_payment(ref, off_session=True)
    refund_id = ids.new("rfd")
    refund = await provider.refund(ref, 300, refund_id)
    end = datetime.now(UTC) + timedelta(seconds=2)
    listed = {m.ref: m async for m in provider.movements(start, end)}
    assert [listed[r][:4] for r in (ref, unconfirmed, refund.ref)] == [
        (Kind.PAYMENT, ref, 1250, Status.SUCCEEDED), (Kind.PAYMENT, unconfirmed, 700, Status.PENDING),
        (Kind.REFUND, refund.ref, 300, Status.SUCCEEDED),
    ]  # fmt: skip
    assert listed[refund.ref].mark == refund_id
    assert [listed[r].moved for r in (ref, unconfirmed)] == [True, False]
    for kind, name in ((Kind.PAYMENT, ref), (Kind.REFUND, refund.ref)):
        assert await provider.get_movement(kind, name) == listed[name]
    assert await provider.get_movement(Kind.PAYMENT, "pi_unknown") is None
    assert {ref, refund.ref} & {m.ref async for m in provider.movements(end, end + timedelta(days=1))} == set()


async def test_nobody_can_prove_who_they_are_while_nobody_is_there(database: Database, stripe: Stripe) -> None:
    payments: list[tuple[Provider, str]] = [
        (SandboxProvider(database), "pm_card_authenticationRequired"),
        (made := StripeProvider(KEY, stripe.url), stripe.card("4000002500003155")),
    ]
    for provider, card in payments:
        _, ref = await opened(provider, 1000, card)
        alone = await provider.confirm_payment(ref, off_session=True)
        assert (alone.status, alone.code) == (Status.FAILED, "authentication_required")
        card = card if provider.name == "sandbox" else stripe.card("4000002500003155")
        _, ref = await opened(provider, 1000, card)
        here = await provider.confirm_payment(ref, off_session=False)
        assert here.status == Status.REQUIRES_ACTION
        assert here.client_secret
        assert (await provider.cancel_payment(ref)).status == Status.FAILED
    await made.close()


async def test_a_sandbox_transfer_happens_once_for_its_key(database: Database) -> None:
    provider = SandboxProvider(database)
    account = await provider.create_account(ids.new("org"), ids.new("key"))
    assert await provider.account_ready(account)
    key = ids.new("po")
    first = await provider.transfer(account, 500, key)
    assert await provider.transfer(account, 500, key) == first
    with pytest.raises(ProviderRefused):
        await provider.transfer("acct_unknown", 500, ids.new("po"))


async def test_a_stripe_that_is_away_is_asked_again_and_never_taken_for_a_refusal() -> None:
    (port,) = free_ports(1)
    provider = StripeProvider(KEY, f"http://127.0.0.1:{port}")
    for call in (
        provider.create_customer("org_1", "k"), provider.confirm_payment("pi_1", off_session=True),
        provider.refund("pi_1", 1, "rfd_1"), provider.transfer("acct_1", 1, "po_1"),
    ):  # fmt: skip
        with pytest.raises(ProviderUnavailable):
            await call
    await provider.close()


async def test_what_happened_without_an_answer_does_not_happen_again(stripe: Stripe) -> None:
    provider = StripeProvider(KEY, stripe.url)
    _, ref = await opened(provider, 1000)
    refund_id = ids.new("rfd")
    stripe.faulty(1, posts=True)
    try:
        for call in (
            lambda: provider.confirm_payment(ref, off_session=True), lambda: provider.refund(ref, 400, refund_id)
        ):  # fmt: skip
            with pytest.raises(ProviderUnavailable):
                await call()
    finally:
        stripe.faulty(0)
    assert (await provider.confirm_payment(ref, off_session=True)).status == Status.SUCCEEDED
    assert (await provider.refund(ref, 400, refund_id)).status == Status.SUCCEEDED
    assert [r["amount"] for r in stripe.get("/v1/refunds", payment_intent=ref)["data"]] == [400]
    await provider.close()


async def test_a_payment_that_stripe_does_not_know_is_not_taken_for_failed(stripe: Stripe) -> None:
    provider = StripeProvider(KEY, stripe.url)
    with pytest.raises(ProviderUnavailable):
        await provider.get_payment("pi_unknown")
    await provider.close()


@pytest.fixture(scope="module")
def contract(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Stripe's own mock, which knows nothing but checks each request against Stripe's OpenAPI."""
    (port,) = free_ports(1)
    log_file = tmp_path_factory.mktemp("contract") / "log"
    with log_file.open("wb") as log:
        process = processes.start(
            [tool("stripe-mock"), "-http-addr", f"127.0.0.1:{port}"], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 20
    while True:
        try:
            httpx.get(url)
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline, Path(log_file).read_text()
            time.sleep(0.05)
    yield url
    process.terminate()
    process.wait(10)


async def test_requests_are_of_the_shape_that_stripe_publishes(contract: str, stripe: Stripe) -> None:
    """Those that the tests before this one made, and these, which localstripe cannot answer."""
    provider = StripeProvider(KEY, stripe.url)
    customer, ref = await opened(provider, 1000)
    await provider.set_up_card(customer, ids.new("key"))
    await provider.confirm_payment(ref, off_session=True)
    await provider.refund(ref, 100, ids.new("rfd"))
    await provider.detach_card(stripe.card("4242424242424242"))
    await provider.cancel_payment((await opened(provider, 1000))[1])
    async for _ in provider.events(datetime.now(UTC) - timedelta(hours=1)):
        break
    async for _ in provider.movements(datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC)):
        pass
    await provider.close()
    seen = set()
    async with httpx.AsyncClient(base_url=contract, headers={"authorization": f"Bearer {KEY}"}) as http:
        for asked in stripe.requests():
            if "_authenticate" in asked["path"] or (
                asked["path"] == "/v1/payment_methods" and "number" in asked["body"]
            ):
                continue  # what a browser asks
            headers = {"content-type": "application/x-www-form-urlencoded"}
            answer = await http.request(asked["method"], asked["path"], content=asked["body"], headers=headers)
            assert answer.status_code == 200, (asked, answer.text)
            seen.add((asked["method"], asked["path"].split("?")[0].split("/")[2], asked["path"].rsplit("/", 1)[-1]))
    assert {("POST", "payment_intents", "confirm"), ("POST", "refunds", "refunds")} <= seen
    published = StripeProvider(KEY, contract)
    account = await published.create_account("org_1", "k")
    assert (await published.onboarding_url(account, "https://example.com/back")).startswith("https://")
    assert isinstance(await published.account_ready(account), bool)
    assert (await published.transfer(account, 500, ids.new("po"))).status == Status.SUCCEEDED
    dispute = await published.get_dispute("dp_1")
    assert dispute.cents > 0
    await published.get_refund("re_1")
    await published.get_setup("seti_1")
    listed = {m.kind async for m in published.movements(datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC))}
    assert listed == set(Kind)
    for kind, ref in zip(Kind, ("pi_1", "re_1", "dp_1", "tr_1"), strict=True):
        one = await published.get_movement(kind, ref)
        assert one is not None
        assert one.cents > 0
    await published.close()
