"""Passkeys in a real browser, with a virtual device that holds them."""

import json
from collections.abc import Callable, Iterator

import grpc
import pytest
from mercat.auth.v1 import auth_pb2, mfa_pb2, passkey_pb2
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions as expect
from selenium.webdriver.support.wait import WebDriverWait

from services.common.errors import from_rpc_error
from tests.browser import authenticator, chromium
from tests.expect import fails
from tests.integration.signin.companies import Company
from tests.integration.signin.people import Mailbox, Member, code_of, enrolled, member, move
from tests.integration.signin.test_devices import begin, poll
from tests.platform import PASSWORD, Account, Platform

LIST = passkey_pb2.ListPasskeysRequest()
KEY = auth_pb2.CreateApiKeyRequest(name="k")


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


class Visitor:
    """Somebody at the platform's pages, whose device holds passkeys."""

    def __init__(self, chrome: Chrome, platform: Platform, *, verifies: bool = True) -> None:
        self.chrome = chrome
        self.site = f"http://localhost:{platform.port}"  # an address is no site to a browser
        chrome.get(f"{self.site}/oauth/style.css")
        chrome.delete_all_cookies()
        chrome.add_virtual_authenticator(authenticator(verifies=verifies))

    def leave(self) -> None:
        self.chrome.remove_virtual_authenticator()

    def open(self, path: str) -> None:
        self.chrome.get(self.site + path)

    def sees(self, text: str) -> None:
        # What is looked at may be of the page before, which is just going.
        wait = WebDriverWait(self.chrome, 15, ignored_exceptions=[WebDriverException])
        wait.until(expect.text_to_be_present_in_element((By.TAG_NAME, "main"), text))

    def fill(self, **fields: str) -> None:
        for name, value in fields.items():
            found = self.chrome.find_element(By.CSS_SELECTOR, f"form input[name={name}]:not([type=hidden])")
            found.clear()
            found.send_keys(value)

    def press(self, text: str) -> None:
        self.chrome.find_element(By.XPATH, f"//button[normalize-space()='{text}']").click()

    def sign_in(self, person: Member, code: str = "") -> None:
        self.fill(email=person.email, password=PASSWORD, **({"code": code} if code else {}))
        self.press("Sign in")


@pytest.fixture
def visitor(chrome: Chrome, platform: Platform) -> Iterator[Visitor]:
    made = Visitor(chrome, platform)
    yield made
    made.leave()


def with_passkey(visitor: Visitor, person: Member, name: str = "Laptop") -> None:
    """Adds a passkey and leaves its page signed out."""
    visitor.open("/oauth/passkeys")
    visitor.sign_in(person)
    visitor.sees("You have none")
    visitor.fill(name=name)
    visitor.press("Add a passkey")
    visitor.sees(name)
    visitor.press("Sign out")
    visitor.sees("You can close this page")


def test_a_passkey_is_added_used_and_removed(platform: Platform, visitor: Visitor, mailbox: Mailbox) -> None:
    person = member(platform)
    with_passkey(visitor, person)
    mailbox.to(person.email, 1, "passkey")
    listed = person.passkeys.ListPasskeys(LIST)
    assert [p.name for p in listed.passkeys] == ["Laptop"]
    assert listed.page == f"{visitor.site}/oauth/passkeys"
    assert not listed.passkeys[0].HasField("last_used_at")
    # Without a name or a password: the device knows who it is.
    visitor.open("/oauth/passkeys")
    visitor.press("Sign in with a passkey")
    visitor.sees("Laptop")
    assert person.passkeys.ListPasskeys(LIST).passkeys[0].HasField("last_used_at")
    visitor.press("Remove")
    visitor.sees("You have none")
    assert not person.passkeys.ListPasskeys(LIST).passkeys
    visitor.press("Sign out")
    visitor.sees("You can close this page")
    # What was removed opens nothing.
    visitor.open("/oauth/passkeys")
    visitor.press("Sign in with a passkey")
    visitor.sees("not one of an account here")


def test_a_passkey_is_no_way_around_single_sign_on(
    visitor: Visitor, company: Company, employee: Callable[..., Member]
) -> None:
    person = employee(company.domain)
    with_passkey(visitor, person)
    company.connect(required=True)
    visitor.open("/oauth/passkeys")
    visitor.press("Sign in with a passkey")
    visitor.sees(f"mercat login --sso {company.domain}")
    visitor.open("/oauth/passkeys")
    visitor.sign_in(person)
    visitor.sees(f"mercat login --sso {company.domain}")
    company.connect(required=False)
    visitor.open("/oauth/passkeys")
    visitor.press("Sign in with a passkey")
    visitor.sees("Laptop")


def test_a_device_is_let_in_by_passkey_with_both_factors(platform: Platform, visitor: Visitor) -> None:
    person, secret, _ = enrolled(platform)
    visitor.open("/oauth/passkeys")
    visitor.sign_in(person, code_of(platform, secret))
    visitor.sees("You have none")
    visitor.press("Add a passkey")
    visitor.sees("Remove")
    visitor.press("Sign out")
    visitor.sees("You can close this page")
    asked = begin(platform)
    visitor.open("/oauth/device")
    visitor.fill(user_code=asked.user_code)
    visitor.press("Sign in with a passkey")
    visitor.sees("asks to act for you")
    visitor.press("Let it in")
    visitor.sees("The device is in")
    answer = poll(platform, asked)
    assert not isinstance(answer, str)
    device = Account(platform, answer.access_token)
    device.auth.CreateApiKey(KEY)  # which takes the second factor
    move(platform, minutes=16)
    refresh = auth_pb2.RefreshSessionRequest(refresh_token=answer.refresh_token)
    session = platform.anonymous.auth.RefreshSession(refresh).session
    assert fails(Account(platform, session.access_token).auth.CreateApiKey, KEY).reason == "STEP_UP_REQUIRED"
    # Proved again by the passkey alone, as a program in a browser does it.
    options = platform.anonymous.passkeys.BeginPasskeySignIn(passkey_pb2.BeginPasskeySignInRequest()).options
    credential = used(visitor, options)
    device = Account(platform, session.access_token)
    again = passkey_pb2.ReauthenticateWithPasskeyRequest(credential=credential)
    proved = device.passkeys.ReauthenticateWithPasskey(again).session
    Account(platform, proved.access_token).auth.CreateApiKey(KEY)
    Member(platform, person.email, proved, person.profile).second.DisableTotp(mfa_pb2.DisableTotpRequest())
    # A challenge is answered once.
    assert fails(device.passkeys.ReauthenticateWithPasskey, again).reason == "PASSKEY_WRONG"


def used(visitor: Visitor, options: str, *, change: str = "") -> str:
    """What the device answers to a challenge; `change`: JavaScript that alters the options before."""
    visitor.open("/oauth/passkeys")
    script = """
        const done = arguments[arguments.length - 1];
        const said = JSON.parse(arguments[0]);
        CHANGE
        said.challenge = bytes(said.challenge);
        for (const one of said.allowCredentials || []) one.id = bytes(one.id);
        navigator.credentials.get({publicKey: said}).then((made) => done(shown(made)), (error) => done("" + error));
    """
    return str(visitor.chrome.execute_async_script(script.replace("CHANGE", change), options))


def asked_for(platform: Platform) -> str:
    return str(platform.anonymous.passkeys.BeginPasskeySignIn(passkey_pb2.BeginPasskeySignInRequest()).options)


def sign_in(platform: Platform, credential: str) -> str:
    """The username, or the reason of the refusal."""
    request = passkey_pb2.SignInWithPasskeyRequest(credential=credential)
    try:
        return str(platform.anonymous.passkeys.SignInWithPasskey(request).profile.username)
    except grpc.RpcError as e:
        return from_rpc_error(e).reason


def test_what_is_no_answer_to_the_challenge_signs_nobody_in(platform: Platform, visitor: Visitor) -> None:
    person = member(platform)
    with_passkey(visitor, person)
    good = used(visitor, asked_for(platform))
    assert sign_in(platform, good) == person.profile.username
    assert sign_in(platform, good) == "PASSKEY_WRONG"  # a replay
    # A challenge of nobody's, one that is too old, one of a registration.
    assert sign_in(platform, used(visitor, asked_for(platform), change="said.challenge = 'AAAA';")) == "PASSKEY_WRONG"
    late = used(visitor, asked_for(platform))
    move(platform, minutes=6)
    assert sign_in(platform, late) == "PASSKEY_WRONG"
    person = person.again()
    begun = person.passkeys.BeginPasskeyRegistration(passkey_pb2.BeginPasskeyRegistrationRequest())
    other = json.loads(asked_for(platform)) | {"challenge": json.loads(begun.options)["challenge"]}
    assert sign_in(platform, used(visitor, json.dumps(other))) == "PASSKEY_WRONG"
    # An answer that was tampered with, or is of another account.
    fresh = json.loads(used(visitor, asked_for(platform)))
    for name, value in (("signature", "AAAA"), ("userHandle", "dXNyXzA"), ("authenticatorData", "AAAA")):
        broken = fresh | {"response": fresh["response"] | {name: value}}
        assert sign_in(platform, json.dumps(broken)) == "PASSKEY_WRONG"
    for nonsense in ("{}", "[]", "x", json.dumps(fresh | {"response": {}}), json.dumps({"id": 1})):
        assert sign_in(platform, nonsense) in ("INVALID_FIELDS", "PASSKEY_WRONG")
    assert sign_in(platform, json.dumps(fresh)) == person.profile.username
    # Nobody proves themselves by the passkey of another.
    again = passkey_pb2.ReauthenticateWithPasskeyRequest(credential=used(visitor, asked_for(platform)))
    assert fails(member(platform).passkeys.ReauthenticateWithPasskey, again).reason == "PASSKEY_WRONG"


def test_a_device_that_does_not_know_its_person_is_not_enough(chrome: Chrome, platform: Platform) -> None:
    unsure = Visitor(chrome, platform, verifies=False)
    try:
        person = member(platform)
        unsure.open("/oauth/passkeys")
        unsure.sign_in(person)
        unsure.sees("You have none")
        unsure.press("Add a passkey")
        unsure.sees("Your device did not do it")
        assert not person.passkeys.ListPasskeys(LIST).passkeys
    finally:
        unsure.leave()


def test_passkeys_are_added_by_who_proved_themselves_lately(platform: Platform) -> None:
    person = member(platform)
    request = passkey_pb2.BeginPasskeyRegistrationRequest()
    options = json.loads(person.passkeys.BeginPasskeyRegistration(request).options)
    assert options["rp"]["id"] == "localhost"
    assert options["authenticatorSelection"]["userVerification"] == "required"
    assert options["authenticatorSelection"]["residentKey"] == "required"
    key = Account(platform, person.auth.CreateApiKey(KEY).secret)
    assert fails(key.passkeys.BeginPasskeyRegistration, request).reason == "SESSION_REQUIRED"
    move(platform, minutes=16)
    refresh = auth_pb2.RefreshSessionRequest(refresh_token=person.session.refresh_token)
    stale = Account(platform, platform.anonymous.auth.RefreshSession(refresh).session.access_token)
    assert fails(stale.passkeys.BeginPasskeyRegistration, request).reason == "STEP_UP_REQUIRED"


def test_removing_what_is_anothers_is_as_if_it_were_not(platform: Platform, visitor: Visitor) -> None:
    person, other = member(platform), member(platform)
    with_passkey(visitor, person)
    passkey_id = person.passkeys.ListPasskeys(LIST).passkeys[0].passkey_id
    request = passkey_pb2.DeletePasskeyRequest(passkey_id=passkey_id)
    assert fails(other.passkeys.DeletePasskey, request).reason == "PASSKEY_NOT_FOUND"
    assert person.passkeys.ListPasskeys(LIST).passkeys
    person.passkeys.DeletePasskey(request)
