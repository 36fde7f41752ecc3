"""Budgets and credit hold against five hundred calls at once over four workers: exactly what is paid for runs, and each
of the others is told why not."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from mercat.auth.v1 import auth_pb2
from mercat.billing.v1 import billing_pb2, budgets_pb2, credits_pb2

from services.common.errors import MercatError, from_rpc_error
from tests import graphs
from tests.platform import USD, Account, Platform
from tests.robustness.oracle import postings, usage_rows
from tests.robustness.traffic import Caller

PRICE = 1_000_000  # nanos a call
CALLS, KEYS = 500, 5
MONTHLY = budgets_pb2.BUDGET_PERIOD_MONTHLY


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("budgets") / "home", workers=4) as running:
        yield running


@pytest.fixture(scope="module")
def models(four: Platform) -> list[str]:
    publisher = four.publisher()
    price = {"requests": PRICE * 1_000_000}
    return [four.publish(publisher, graphs.tiny(), batch=64, price=price) for _ in range(2)]


def keys_of(consumer: Account) -> list[auth_pb2.CreateApiKeyResponse]:
    """Some keys."""
    return [consumer.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name=f"k{n}")) for n in range(KEYS)]


async def at_once(four: Platform, keys: list[str], models: list[str]) -> dict[tuple[int, int], Counter[str]]:
    """Calls of every key and model, all at once; how they ended, by the index of key and model."""
    callers = {(k, m): Caller(four.grpc, key, model) for k, key in enumerate(keys) for m, model in enumerate(models)}
    each = CALLS // len(callers)
    await asyncio.gather(*(c.call(timeout=30) for c in callers.values() for _ in range(each)))
    ended = {}
    for at, c in callers.items():
        ended[at] = Counter({"OK": len(c.seen.ok)}) + c.seen.errors
        assert c.seen.unknown == 0
        assert ended[at].total() == each
        await c.channel.close()
    return ended


def together(ended: dict[tuple[int, int], Counter[str]]) -> Counter[str]:
    return sum(ended.values(), Counter())


def settled(four: Platform, consumer: Account, calls: int) -> None:
    """Everything is posted and given back, and the books agree."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        wallet = consumer.billing.GetWallet(billing_pb2.GetWalletRequest()).wallet
        if len(list(usage_rows(consumer))) == calls and not wallet.reserved_nanos:
            break
        time.sleep(0.2)
    assert len(list(usage_rows(consumer))) == len(postings(consumer)) == calls
    assert not wallet.reserved_nanos
    checked = four.admin().check_ledger()
    assert checked.clean, checked.discrepancies


def set_budget(consumer: Account, name: str, calls: int, **whose: str) -> budgets_pb2.Budget:
    request = budgets_pb2.SetBudgetRequest(name=name, period=MONTHLY, limit_nanos=calls * PRICE, thresholds=[50, 100])
    for field, value in whose.items():
        setattr(request, field, value)
    return consumer.budgets.SetBudget(request).budget  # type: ignore[no-any-return]


def spent(consumer: Account) -> dict[str, int]:
    """Calls that each budget has paid for."""
    listed = consumer.budgets.ListBudgets(budgets_pb2.ListBudgetsRequest()).budgets
    return {b.name: b.spent_nanos // PRICE for b in listed}


def refusal(four: Platform, key: str, model: str) -> MercatError:
    async def one() -> MercatError:
        caller = Caller(four.grpc, key, model)
        call = caller._stub.ModelInfer(caller._request, metadata=caller._metadata, timeout=20)
        try:
            await call
        except Exception as e:
            return from_rpc_error(e)  # type: ignore[arg-type]
        finally:
            await caller.channel.close()
        raise AssertionError("it was not refused")

    return asyncio.run(one())


@pytest.mark.parametrize("fits", [1, 137])
async def test_a_budget_lets_exactly_its_calls_pass(four: Platform, models: list[str], fits: int) -> None:
    consumer = four.sign_up(credit=10 * USD)
    keys = [made.secret for made in keys_of(consumer)]
    budget = set_budget(consumer, "all", fits)
    ended = await at_once(four, keys, models[:1])
    assert together(ended) == {"OK": fits, "RESOURCE_EXHAUSTED BUDGET_EXCEEDED": CALLS - fits}
    settled(four, consumer, fits)
    assert spent(consumer) == {"all": fits}
    assert consumer.balance() == 10 * USD - fits * PRICE
    error = await asyncio.to_thread(refusal, four, keys[0], models[0])
    assert error.reason == "BUDGET_EXCEEDED"
    told = error.metadata
    assert (told["budget"], told["budget_id"]) == ("all", budget.budget_id)
    assert (told["scope"], told["period"]) == ("organization", "monthly")
    resets = datetime.fromisoformat(told["reset_time"])
    assert resets == budget.reset_time.ToDatetime(UTC)
    assert error.retry_after is not None
    assert abs(datetime.now(UTC) + timedelta(seconds=error.retry_after) - resets) < timedelta(seconds=10)


async def test_budgets_by_key_and_model_let_exactly_theirs_pass(four: Platform, models: list[str]) -> None:
    """Of 50 calls by each key to each of two models: one key may 30, one model 180, and all together 200."""
    consumer = four.sign_up(credit=10 * USD)
    keys = keys_of(consumer)
    set_budget(consumer, "first-key", 30, key_id=keys[0].api_key.key_id)
    set_budget(consumer, "second-model", 70, model=models[1])
    set_budget(consumer, "all", 200)
    ended = await at_once(four, [made.secret for made in keys], models)
    by_key = sum((c["OK"] for (k, _), c in ended.items() if k == 0), 0)
    by_model = sum((c["OK"] for (_, m), c in ended.items() if m == 1), 0)
    passed = together(ended)
    assert passed == {"OK": passed["OK"], "RESOURCE_EXHAUSTED BUDGET_EXCEEDED": CALLS - passed["OK"]}
    assert by_key <= 30
    assert by_model <= 70
    assert passed["OK"] == 200
    settled(four, consumer, 200)
    assert spent(consumer) == {"all": 200, "first-key": by_key, "second-model": by_model}


async def test_wallet_credit_and_limit_let_exactly_what_they_pay_for_pass(four: Platform, models: list[str]) -> None:
    consumer, admin = four.sign_up(credit=20 * PRICE), four.admin()
    org_id = consumer.profile.org_id
    keys = [made.secret for made in keys_of(consumer)]
    for amount, priority in ((10, 1), (15, 0)):
        request = credits_pb2.CreateCreditGrantRequest(org_id=org_id, amount_nanos=amount * PRICE, priority=priority)
        request.expires_at.FromDatetime(datetime.now(UTC) + timedelta(days=2 - priority))
        admin.credits.CreateCreditGrant(request)
    admin.credits.SetCreditLimit(credits_pb2.SetCreditLimitRequest(org_id=org_id, limit_nanos=30 * PRICE))
    wallet = consumer.billing.GetWallet(billing_pb2.GetWalletRequest()).wallet
    assert wallet.available_nanos == 75 * PRICE
    ended = together(await at_once(four, keys, models[:1]))
    assert ended == {"OK": 75, "RESOURCE_EXHAUSTED INSUFFICIENT_CREDIT": CALLS - 75}
    deadline = time.monotonic() + 60
    while consumer.balance() != -30 * PRICE and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    wallet = consumer.billing.GetWallet(billing_pb2.GetWalletRequest()).wallet
    assert (wallet.balance_nanos, wallet.promotional_nanos, wallet.available_nanos) == (-30 * PRICE, 0, 0)
    assert four.admin().check_ledger().clean
