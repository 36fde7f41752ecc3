"""`mercat cards`, `payments` and `topup --card`."""

import json

from tests.platform import USD, Platform


def test_a_card_is_kept_charged_and_forgotten(platform: Platform) -> None:
    person, admin = platform.sign_up(), {"MERCAT_API_KEY": platform.admin().api_key}

    def mercat(*args: str, status: int = 0) -> str:
        done = platform.command(*args, MERCAT_API_KEY=person.api_key)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "mercat cards add pm_card_visa" in mercat("topup", "10", "--card", status=1)
    card = json.loads(mercat("cards", "add", "pm_card_visa", "--json"))["paymentMethodId"]
    assert "visa …4242" in mercat("cards", "list")
    assert "succeeded" in mercat("topup", "10", "--card")
    assert person.balance() == 10 * USD
    mercat("cards", "add", "pm_card_chargeDeclinedInsufficientFunds", "--default")
    assert "insufficient_funds" in mercat("topup", "7.50", "--card", status=1)
    listed = mercat("payments", "list")
    assert "10.00 USD" in listed
    assert "failed (insufficient_funds)" in listed
    paid = json.loads(mercat("payments", "list", "--json"))["payments"][1]["paymentId"]
    assert "4.00 USD go back" in platform.command("payments", "refund", paid, "--amount", "4", **admin).stdout
    assert "of it back to the card" in mercat("payments", "get", paid)
    assert person.balance() == 6 * USD
    assert "SCOPE_MISSING" in mercat("payments", "refund", paid, status=1)
    mercat("cards", "default", card)
    assert "Below 5.00 USD, 20.00 USD are charged" in mercat("payments", "auto", "--below", "5", "--add", "20")
    assert "Nothing is charged" in mercat("payments", "auto", "--off")
    mercat("cards", "remove", card)
    assert "4242" not in mercat("cards", "list")
    assert "amount_nanos" in mercat("topup", "1.005", "--card", status=1)


def test_a_setup_begins_in_the_browser(platform: Platform) -> None:
    person = platform.sign_up()
    done = platform.command("cards", "setup", "--json", MERCAT_API_KEY=person.api_key)
    assert json.loads(done.stdout)["clientSecret"]
