"""A Stripe, and a Mercat that pays with it."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.platform import Platform
from tests.stripe_server import KEY, SECRET, Stripe, serving


@dataclass
class Shop:
    """Both, with webhooks from one to the other."""

    platform: Platform
    stripe: Stripe


def settings(stripe: Stripe) -> dict[str, str]:
    return {
        "MERCAT_STRIPE_SECRET_KEY": KEY, "MERCAT_STRIPE_WEBHOOK_SECRET": f"whsec_older,{SECRET}",
        "MERCAT_STRIPE_API_BASE": stripe.url,
    }  # fmt: skip


@pytest.fixture(scope="package")
def stripe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stripe]:
    with serving(tmp_path_factory.mktemp("stripe")) as made:
        yield made


@pytest.fixture(scope="package")
def shop(stripe: Stripe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Platform(tmp_path_factory.mktemp("shop") / "home", env=settings(stripe)) as platform:
        stripe.webhooks(f"{platform.rest}/v1/stripe/webhooks")
        yield Shop(platform, stripe)
