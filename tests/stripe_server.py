"""A Stripe for tests: localstripe, which is stateful, in a process of its own on a free port.

What localstripe lacks and Mercat asks of Stripe is added here: `off_session` of a confirmation, the refusal to refund
more than was paid, disputes, events of refunds and disputes, lists of a time, and Connect's accounts and transfers.
`python -m tests.stripe_server PORT` serves it."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from services.embedded.ports import free_ports
from tests import processes

KEY = "sk_test_mercat"
SECRET = "whsec_mercat"


class Stripe:
    """What a test says to the server."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._http = httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {KEY}"}, timeout=10)

    def get(self, path: str, **query: Any) -> Any:
        return self._http.get(path, params=query).raise_for_status().json()

    def post(self, path: str, **form: Any) -> Any:
        return self._http.post(path, data=form).raise_for_status().json()

    def webhooks(self, url: str, secret: str = SECRET) -> None:
        """Sends events there from now on."""
        self._http.post("/_config/webhooks/mercat", json={"url": url, "secret": secret}).raise_for_status()

    def card(self, number: str) -> str:
        """A card as the owner's browser gives it to Stripe."""
        card = {"card[number]": number, "card[exp_month]": "12", "card[exp_year]": "2040", "card[cvc]": "123"}
        return str(self.post("/v1/payment_methods", type="card", **card)["id"])

    def authenticate(self, intent: str, secret: str) -> None:
        """The owner of the card proves who they are."""
        self.post(f"/v1/payment_intents/{intent}/_authenticate", client_secret=secret, success="true")

    def dispute(self, intent: str, cents: int) -> str:
        return str(self.post("/_config/disputes", payment_intent=intent, amount=cents)["id"])

    def close_dispute(self, dispute: str, status: str) -> None:
        self.post(f"/_config/disputes/{dispute}", status=status)

    def onboard(self, account: str) -> None:
        """The owner of a connected account has said all that Stripe asks."""
        self.post(f"/_config/accounts/{account}")

    def faulty(self, share: float, seed: int = 0, *, posts: bool = False) -> None:
        """From now on a share of the requests ends badly: with an error or a broken connection, before or after what
        was asked has happened. `posts`: only those that change something, and always after."""
        self._http.post("/_config/faults", json={"share": share, "seed": seed, "posts": posts}).raise_for_status()

    def requests(self) -> list[dict[str, str]]:
        """What was asked of the API since the start: method, path with query, body."""
        return list(self.get("/_config/requests"))

    def close(self) -> None:
        self._http.close()


@contextmanager
def serving(folder: Path) -> Iterator[Stripe]:
    """The server, ended afterwards."""
    (port,) = free_ports(1)
    with (folder / "stripe.log").open("ab") as log:
        process = processes.start(
            [sys.executable, "-m", "tests.stripe_server", str(port)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    stripe = Stripe(port)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                stripe.get("/v1/events")
                break
            except httpx.TransportError:
                assert process.poll() is None, (folder / "stripe.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield stripe
    finally:
        stripe.close()
        process.terminate()
        process.wait(10)


def _main(port: int) -> None:
    from aiohttp import web
    from localstripe import resources, webhooks
    from localstripe.errors import UserError

    resources.Store.dump_to_disk = lambda self: None  # a file that all servers of a machine would share

    def tell(kind: str, about: Any) -> None:
        webhooks.schedule_webhook(resources.Event(kind, about))

    confirm = resources.PaymentIntent._api_confirm

    def confirm_either(id: str, off_session: str | None = None, **others: Any) -> Any:  # noqa: A002
        return confirm(id, **others)

    path = "/v1/payment_intents/{id}/confirm"
    resources.extra_apis[:] = [(m, u, confirm_either if u == path else f) for m, u, f in resources.extra_apis]

    create_refund = resources.Refund._api_create

    def refund(**data: Any) -> Any:
        intent = resources.PaymentIntent._api_retrieve(data["payment_intent"])
        charge = intent.latest_charge
        left = charge.amount - charge.amount_refunded
        if int(data.get("amount") or left) > left:
            raise UserError(400, "more than was paid", {"code": "charge_already_refunded"})
        made = create_refund(**data)
        tell("refund.created", made)
        return made

    resources.Refund._api_create = refund

    class Dispute(resources.StripeObject):  # type: ignore[misc, name-defined]
        object = "dispute"
        _id_prefix = "dp_"

        def __init__(self, payment_intent: str, amount: str) -> None:
            super().__init__()
            self.payment_intent, self.amount = payment_intent, int(amount)
            self.status, self.reason, self.currency = "needs_response", "fraudulent", "usd"

    from localstripe import server

    async def open_dispute(request: web.Request) -> web.Response:
        made = Dispute(**await server.get_post_data(request))
        tell("charge.dispute.created", made)
        return server.json_response(made._export())

    async def end_dispute(request: web.Request) -> web.Response:
        dispute = Dispute._api_retrieve(request.match_info["id"])
        dispute.status = (await server.get_post_data(request))["status"]
        tell("charge.dispute.closed", dispute)
        return server.json_response(dispute._export())

    class Account(resources.StripeObject):  # type: ignore[misc, name-defined]
        object = "account"
        _id_prefix = "acct_"

        def __init__(self, metadata: dict[str, str]) -> None:
            super().__init__()
            self.type, self.metadata, self.payouts_enabled = "express", metadata, False
            self.capabilities = {"transfers": "inactive"}

    class Transfer(resources.StripeObject):  # type: ignore[misc, name-defined]
        object = "transfer"
        _id_prefix = "tr_"

        def __init__(self, amount: str, currency: str, destination: str, transfer_group: str) -> None:
            super().__init__()
            self.amount, self.currency, self.transfer_group = int(amount), currency, transfer_group
            self.destination = Account._api_retrieve(destination).id

    def made_within(one: Any, created: dict[str, str] | None) -> bool:
        asked = created or {}
        return int(asked.get("gte", 0)) <= one.created < int(asked.get("lt", 1 << 40))

    def list_by_time(cls: Any) -> None:
        everything = cls._api_list_all

        def list_some(url: str, created: dict[str, str] | None = None, **others: Any) -> Any:
            found = everything(url, **others)
            found._list = [one for one in found._list if made_within(one, created)]
            return found

        cls._api_list_all = list_some

    for cls in (resources.PaymentIntent, resources.Refund, Dispute):
        list_by_time(cls)

    transfers: list[Any] = []

    async def add_account(request: web.Request) -> web.Response:
        data = await server.get_post_data(request)
        return server.json_response(Account(data.get("metadata", {}))._export())

    async def onboard(request: web.Request) -> web.Response:
        account = Account._api_retrieve(request.match_info["id"])
        account.capabilities, account.payouts_enabled = {"transfers": "active"}, True
        return server.json_response(account._export())

    async def link_account(request: web.Request) -> web.Response:
        account = (await server.get_post_data(request))["account"]
        return web.json_response({"object": "account_link", "url": f"http://stripe.invalid/{account}"})

    async def add_transfer(request: web.Request) -> web.Response:
        data = await server.get_post_data(request)
        account = Account._api_retrieve(data["destination"])
        if account.capabilities["transfers"] != "active":
            raise UserError(400, "it takes no transfers yet", {"code": "insufficient_capabilities_for_transfer"})
        transfers.append(Transfer(**data))
        return server.json_response(transfers[-1]._export())

    async def list_transfers(request: web.Request) -> web.Response:
        asked = server.unflatten_data(request.query)
        wanted = [
            t._export() for t in transfers
            if all(getattr(t, key) == asked.get(key, getattr(t, key)) for key in ("destination", "transfer_group"))
            and made_within(t, asked.get("created"))
        ]  # fmt: skip
        return web.json_response({"object": "list", "url": "/v1/transfers", "has_more": False, "data": wanted})

    asked: list[dict[str, str]] = []
    faults: dict[str, Any] = {"share": 0.0, "random": random.Random(0), "posts": False}

    @web.middleware
    async def note(request: web.Request, handler: Any) -> Any:
        if not request.path.startswith("/v1/"):
            return await handler(request)
        asked.append({"method": request.method, "path": request.path_qs, "body": await request.text()})
        dice = faults["random"]
        spared = faults["posts"] and request.method != "POST"
        if spared or dice.random() >= faults["share"]:
            return await handler(request)
        if faults["posts"] or dice.random() < 0.5:  # it happens, and nobody is told
            try:
                await handler(request)
            except UserError:
                pass
        if dice.random() < 0.5 and request.transport is not None:
            request.transport.abort()
        status = dice.choice([429, 500, 503])
        return web.json_response({"error": {"type": "api_error", "message": "a fault"}}, status=status)

    async def set_faults(request: web.Request) -> web.Response:
        wanted = await request.json()
        faults.update(wanted, random=random.Random(wanted["seed"]))
        return web.Response()

    async def tell_asked(request: web.Request) -> web.Response:
        return web.json_response(asked)

    server.app.middlewares.append(note)
    server.app.router.add_get("/_config/requests", tell_asked)
    server.app.router.add_post("/_config/faults", set_faults)
    server.app.router.add_post("/_config/disputes", open_dispute)
    server.app.router.add_post("/_config/disputes/{id}", end_dispute)
    server.app.router.add_post("/_config/accounts/{id}", onboard)
    server.app.router.add_post("/v1/accounts", add_account)
    server.app.router.add_get("/v1/accounts/{id}", server.api_retrieve(Account, ""))
    server.app.router.add_post("/v1/account_links", link_account)
    server.app.router.add_post("/v1/transfers", add_transfer)
    server.app.router.add_get("/v1/transfers", list_transfers)
    server.app.router.add_get("/v1/transfers/{id}", server.api_retrieve(Transfer, ""))
    server.app.router.add_get("/v1/disputes", server.api_list_all(Dispute, "/v1/disputes"))
    server.app.router.add_get("/v1/disputes/{id}", server.api_retrieve(Dispute, ""))
    web.run_app(server.app, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
