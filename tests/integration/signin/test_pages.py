"""Signing in with an account elsewhere on the platform's own pages, at a real provider: by forms, and in a browser."""

import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest
from mercat.auth.v1 import auth_pb2, mfa_pb2
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions as expect
from selenium.webdriver.support.wait import WebDriverWait

from tests.browser import chromium
from tests.integration.signin.companies import Company, subject
from tests.integration.signin.elsewhere import Elsewhere
from tests.integration.signin.people import Member, code_of
from tests.integration.signin.test_devices import Page, begin, page, poll
from tests.integration.signin.test_passkeys import Visitor
from tests.platform import PASSWORD, Account, Platform

__all__ = ["page"]
ME = auth_pb2.GetProfileRequest()
FORM = "/oauth/sign-in/elsewhere"


def goes_on(answer: httpx.Response) -> str:
    """Where a page sends the browser by itself."""
    found = re.findall(r'http-equiv="refresh" content="0; url=([^"]+)"', answer.text)
    assert found, answer.text
    return unescape(found[0])


def let_in(platform: Platform, page: Page, shown: httpx.Response, asked: object) -> Account:
    """The device that waits, let in on the page that was shown."""
    assert "The device is in" in page.submit(shown, "/oauth/device/decide", decision="approve").text
    answer = poll(platform, asked)  # type: ignore[arg-type]
    assert not isinstance(answer, str)
    return Account(platform, answer.access_token)


def test_a_device_is_let_in_with_an_account_elsewhere(platform: Platform, page: Page, elsewhere: Elsewhere) -> None:
    asked, who = begin(platform), subject()
    elsewhere.put(who, email=f"{who}@example.com", email_verified=True, preferred_username=who)
    first = page.open(asked.verification_uri_complete)
    assert "Sign in with Acme" in first.text
    away = page.submit(first, FORM, provider="acme")
    kept = next(c for c in away.headers.get_list("set-cookie") if c.startswith("mercat-elsewhere=")).lower()
    assert "samesite=lax" in kept  # or it would not come along from the provider
    assert "httponly" in kept
    back = page.open(elsewhere.authorize(goes_on(away), who))
    assert "mercat-elsewhere" not in page.http.cookies
    shown = page.open(goes_on(back))
    assert "command line" in shown.text
    device = let_in(platform, page, shown, asked)
    assert device.auth.GetProfile(ME).profile.username == who


def test_a_second_factor_is_asked_for_after_the_provider(platform: Platform, page: Page, elsewhere: Elsewhere) -> None:
    who, asked = subject(), begin(platform)
    elsewhere.put(who, email=f"{who}@example.com", email_verified=True)
    away = page.submit(page.open("/oauth/device"), FORM, provider="acme")
    page.open(elsewhere.authorize(goes_on(away), who))
    token = page.http.cookies["mercat-page"]
    person = Member(platform, f"{who}@example.com", auth_pb2.Session(access_token=token), auth_pb2.Profile())
    secret = person.second.EnrollTotp(mfa_pb2.EnrollTotpRequest()).secret
    person.second.ConfirmTotp(mfa_pb2.ConfirmTotpRequest(code=code_of(platform, secret, steps=-1)))
    page.http.cookies.clear()
    away = page.submit(page.open("/oauth/device"), FORM, provider="acme")
    back = page.open(elsewhere.authorize(goes_on(away), who))
    assert "mercat-page" not in page.http.cookies
    wrong = page.submit(back, "/oauth/sign-in/factor", code="000000")
    assert "second factor" in wrong.text
    signed = page.submit(wrong, "/oauth/sign-in/factor", code=code_of(platform, secret))
    # Who came without a code is asked for it, and not to sign in again.
    assert "Code that the device shows" in page.open(goes_on(signed)).text
    device = let_in(platform, page, page.open(f"/oauth/device?user_code={asked.user_code}"), asked)
    device.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k"))  # the second factor counts


def test_whose_organisation_wants_it_sign_in_by_its_provider(
    platform: Platform, page: Page, company: Company, employee: Callable[..., Member]
) -> None:
    person, asked, who = employee(company.domain), begin(platform), subject()
    company.connect(required=True)
    company.elsewhere.put(who, email=person.email, email_verified=True)
    first = page.open(asked.verification_uri_complete)
    refused = page.submit(first, "/oauth/sign-in", email=person.email, password=PASSWORD)
    assert f'name="domain" value="{company.domain}"' in refused.text
    away = page.submit(refused, FORM, domain=person.email)  # an address does as well
    shown = page.open(goes_on(page.open(company.elsewhere.authorize(goes_on(away), who))))
    device = let_in(platform, page, shown, asked)
    assert device.auth.GetProfile(ME).profile.user_id == person.profile.user_id


def test_an_answer_is_taken_in_the_browser_that_began(platform: Platform, page: Page, elsewhere: Elsewhere) -> None:
    who = subject()
    elsewhere.put(who, email=f"{who}@example.com", email_verified=True)
    away = page.submit(page.open("/oauth/device"), FORM, provider="acme")
    sent = httpx.get(elsewhere.authorize(goes_on(away), who)).headers["location"]
    # Not in another, whether or not it has begun too.
    other = Page(platform)
    assert "begin anew" in other.open(sent).text
    other.submit(other.open("/oauth/device"), FORM, provider="acme")
    assert "not that of the program that began" in other.open(sent).text
    assert "mercat-page" not in other.http.cookies
    other.http.close()
    assert goes_on(page.open(sent)) == "/oauth/device"


def test_what_goes_wrong_on_the_way_is_said(platform: Platform, page: Page) -> None:
    first = page.open("/oauth/device")
    assert "nobody signs in with none here" in page.submit(first, FORM, provider="none").text
    assert "nobody has set up single sign-on" in page.submit(first, FORM, domain="nobody.example").text
    assert httpx.post(f"{platform.rest}{FORM}", data={"csrf": "x", "provider": "acme"}).status_code == 400
    page.submit(first, FORM, provider="acme")
    assert "You were not signed in there" in page.open("/oauth/sign-in/return?error=access_denied").text
    assert "begin anew" in page.open("/oauth/sign-in/return?code=x").text


@pytest.fixture
def chrome(tmp_path: Path) -> Iterator[Chrome]:
    with chromium(tmp_path) as browser:
        yield browser


def test_a_browser_goes_to_the_provider_of_another_site_and_back(
    platform: Platform, company: Company, chrome: Chrome
) -> None:
    elsewhere, asked, who = company.elsewhere, begin(platform), subject()
    company.connect(issuer=elsewhere.issuer.replace("127.0.0.1", "localhost"), required=True)  # to a browser: another
    elsewhere.put(who, email=f"{who}@{company.domain}", email_verified=True, preferred_username=who)
    visitor = Visitor(chrome, platform)
    visitor.site = platform.rest
    visitor.open("/oauth/device")
    visitor.fill(user_code=asked.user_code, domain=company.domain)
    visitor.press("Sign in by your organisation")
    WebDriverWait(chrome, 15).until(expect.presence_of_element_located((By.NAME, "sub"))).send_keys(who)
    assert "//localhost:" in chrome.current_url
    visitor.press("Authorize")
    visitor.sees("asks to act for you")  # the code that was typed came along
    visitor.press("Let it in")
    visitor.sees("The device is in")
    answer = poll(platform, asked)
    assert not isinstance(answer, str)
    assert Account(platform, answer.access_token).auth.GetProfile(ME).profile.username == who
