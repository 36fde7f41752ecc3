"""Makes the demo accounts and publishes the demo models, through the public API alone.

Every step first looks how far an earlier start came, so that one that was broken off is gone on with."""

import asyncio
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from mercat.auth.v1 import auth_pb2
from mercat.billing.v1 import billing_pb2
from mercat.registry.v1 import registry_pb2

from services.cli.client import Client
from services.cli.credentials import Credentials
from services.cli.demo.catalogue import CATALOGUE, Entry
from services.cli.prices import parse_price
from services.cli.session import Logins, parse_server
from services.cli.tokenizing import with_tokenizer
from services.cli.upload import digest_of, upload, validated
from services.common.errors import AlreadyExists, MercatError, NotFound
from services.embedded.connection import Account, Connection
from services.embedded.errors import StartError

PUBLISHER = "mercat"
CONSUMER = "consumer"
KEY_NAME = "mercat up"
CREDIT = 25_000_000_000  # nanos, to try with
_WAIT = 300.0  # seconds for the validation of one model; one that died with its process is begun again within 180


async def publish(connection: Connection) -> Connection:
    """`connection` with API keys and the names of the models. Raises StartError when the platform refuses."""
    clients: list[Client] = []
    try:
        return await asyncio.to_thread(_publish, connection, clients)
    except MercatError as error:
        raise StartError(
            f"The demo catalogue cannot be published: {error} Start with --no-demo to go without."
        ) from error
    finally:
        for client in clients:  # ends the thread's calls when the start is broken off
            client.close()


def _publish(connection: Connection, clients: list[Client]) -> Connection:
    accounts = connection.accounts
    open_client = partial(_client, connection.grpc, clients)
    anonymous = open_client("")
    _sign_up(anonymous, accounts["publisher"], PUBLISHER, auth_pb2.ROLE_PUBLISHER, "Mercat demo")
    _sign_up(anonymous, accounts["consumer"], CONSUMER, auth_pb2.ROLE_CONSUMER, "Demo consumer")
    people = {name: open_client(_sign_in(anonymous, account)) for name, account in accounts.items()}
    _top_up(people["consumer"])
    for entry in CATALOGUE:  # validated one beside another
        _push(people["publisher"], entry)
    for entry in CATALOGUE:
        _release(people["publisher"], people["admin"], entry)
    made = connection.model_copy(deep=True)
    for name, account in made.accounts.items():
        account.api_key = account.api_key or _api_key(people[name])
    made.models = [_model(entry) for entry in CATALOGUE]
    return made


def _client(address: str, clients: list[Client], token: str) -> Client:
    target = parse_server(f"http://{address}")
    client = Client(target, Credentials(target, token, "", Logins(), time.time))
    clients.append(client)
    return client


def _sign_up(client: Client, account: Account, username: str, role: auth_pb2.Role.ValueType, name: str) -> None:
    request = auth_pb2.SignUpRequest(
        email=account.email, username=username, password=account.password, role=role, display_name=name
    )
    try:
        client.auth.SignUp(request)
    except AlreadyExists:
        pass  # whether it is this account shows at signing in


def _sign_in(client: Client, account: Account) -> str:
    request = auth_pb2.SignInRequest(email=account.email, password=account.password)
    return client.auth.SignIn(request).session.access_token


def _top_up(client: Client) -> None:
    if not client.billing.ListTransactions(billing_pb2.ListTransactionsRequest()).transactions:
        client.billing.TopUpWallet(billing_pb2.TopUpWalletRequest(amount_nanos=CREDIT))


def _api_key(client: Client) -> str:
    """A key of all scopes. Those of earlier starts are ended: nobody was told their secrets."""
    for key in client.auth.ListApiKeys(auth_pb2.ListApiKeysRequest(page_size=1000)).api_keys:
        if key.name == KEY_NAME and key.is_active:
            client.auth.RevokeApiKey(auth_pb2.RevokeApiKeyRequest(key_id=key.key_id))
    return client.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name=KEY_NAME)).secret


def _model(entry: Entry) -> str:
    return f"{PUBLISHER}/{entry.name}"


def _push(client: Client, entry: Entry) -> None:
    """The model, its price, and a version whose validation has begun."""
    model = _model(entry)
    request = registry_pb2.CreateModelRequest(
        name=entry.name, display_name=entry.display_name, summary=entry.summary, description=entry.card,
        category=entry.category, task=entry.task, tags=entry.tags, license=entry.license, homepage=entry.homepage,
    )  # fmt: skip
    try:
        client.registry.CreateModel(request)
    except AlreadyExists:
        pass
    components = [parse_price(text) for text in entry.prices]
    client.billing.SetModelPrice(billing_pb2.SetModelPriceRequest(model=model, components=components))
    try:
        client.registry.GetVersion(registry_pb2.GetVersionRequest(model=model, version=entry.version))
        return
    except NotFound:
        pass
    version = registry_pb2.CreateVersionRequest(
        model=model, version=entry.version,
        settings=registry_pb2.InferenceSettings(max_batch_size=entry.max_batch_size),
        samples=[registry_pb2.Sample(title=title, request_json=make()) for title, make in entry.samples.items()],
        release_notes=f"As in the Python package {entry.package} {entry.version}.",
    )  # fmt: skip
    if entry.labels is not None:
        output, read = entry.labels
        version.labels[output].names.extend(read(entry.path))
    with TemporaryDirectory(prefix="mercat-") as folder:
        path = entry.path
        if entry.tokenizer is not None:
            path = with_tokenizer(path, entry.tokenizer(), Path(folder), context=entry.context)
        version.digest = digest_of(path)
        upload(client, path, version.digest, quiet=True)
    client.registry.CreateVersion(version)


def _release(publisher: Client, admin: Client, entry: Entry) -> None:
    """From wherever the version is to published. Raises StartError when its validation refused it."""
    model, number = _model(entry), entry.version
    now = validated(publisher, model, number, _WAIT, quiet=True)
    if now.state == registry_pb2.VERSION_STATE_REFUSED:
        reasons = "; ".join(f"{finding.code}: {finding.message}" for finding in now.findings)
        raise StartError(
            f"The demo model {model}@{number} was refused ({reasons}). Start with --no-demo to go without."
        )
    if now.state == registry_pb2.VERSION_STATE_DRAFT:
        request = registry_pb2.SubmitVersionRequest(model=model, version=number)
        now = publisher.registry.SubmitVersion(request).version
    if now.state == registry_pb2.VERSION_STATE_REVIEW:
        approval = registry_pb2.ApproveVersionRequest(model=model, version=number)
        now = admin.registry.ApproveVersion(approval).version
    if now.state == registry_pb2.VERSION_STATE_APPROVED:
        publisher.registry.PublishVersion(registry_pb2.PublishVersionRequest(model=model, version=number))
