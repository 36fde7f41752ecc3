"""Handles that look like another's, and those that speak for the platform."""

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import pytest
from mercat.auth.v1 import auth_pb2
from mercat.auth.v1 import organisation_pb2 as org

from services.common.errors import from_rpc_error
from tests.expect import fails
from tests.platform import PASSWORD, Account, Platform


def new(name: str) -> auth_pb2.SignUpRequest:
    return auth_pb2.SignUpRequest(email=f"t{secrets.token_hex(8)}@example.com", username=name, password=PASSWORD)


@pytest.fixture(scope="module")
def person(platform: Platform) -> Account:
    return platform.session(platform.sign_up(name=f"ruis-{secrets.token_hex(5)}"))


@pytest.mark.parametrize(
    "like",
    [lambda n: n.replace("-", ""), lambda n: n.replace("u", "-u"), lambda n: n.replace("i", "1"),
     lambda n: n.replace("s", "5"), lambda n: n.replace("i", "l").replace("-", "--")],
)  # fmt: skip
def test_look_alikes_are_refused(platform: Platform, person: Account, like: Callable[[str], str]) -> None:
    name = like(person.profile.username)
    error = fails(platform.anonymous.auth.SignUp, new(name))
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "HANDLE_TOO_SIMILAR")
    assert [v.field for v in error.violations] == ["username"]
    assert person.profile.username not in error.message + error.violations[0].description
    made = org.CreateOrganisationRequest(handle=name)
    error = fails(person.organisations.CreateOrganisation, made)  # their own too: others would take one for the other
    assert (error.reason, [v.field for v in error.violations]) == ("HANDLE_TOO_SIMILAR", ["handle"])


def test_people_do_not_look_like_organisations(platform: Platform, person: Account) -> None:
    handle = f"acme{secrets.token_hex(5)}"
    person.organisations.CreateOrganisation(org.CreateOrganisationRequest(handle=handle))
    like = handle.replace("m", "rn")
    assert fails(platform.anonymous.auth.SignUp, new(like)).reason == "HANDLE_TOO_SIMILAR"
    answer = httpx.post(
        f"{platform.rest}/v1/signup",
        json={"email": f"{secrets.token_hex(6)}@example.com", "username": like, "password": PASSWORD}, timeout=20,
    )  # fmt: skip
    assert answer.status_code == 409
    assert "HANDLE_TOO_SIMILAR" in answer.text


def test_of_many_that_look_alike_one_gets_it(platform: Platform) -> None:
    name = f"o1-{secrets.token_hex(5)}"
    names = [name, name.replace("-", ""), name.replace("o", "0"), name.replace("1", "i"), name.replace("o1", "0l")]

    def attempt(name: str) -> str:
        try:
            platform.anonymous.auth.SignUp(new(name))
        except grpc.RpcError as e:
            return from_rpc_error(e).reason
        return "made"

    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(attempt, names))
    assert sorted(answers) == ["HANDLE_TOO_SIMILAR"] * 4 + ["made"]


@pytest.mark.parametrize("name", ["mercat", "rnercat", "mercat-support", "adm1n", "official", "a-p-i", "deleted-0abc"])
def test_reserved_words(platform: Platform, person: Account, name: str) -> None:
    error = fails(platform.anonymous.auth.SignUp, new(name))
    assert (error.reason, [v.field for v in error.violations]) == ("INVALID_FIELDS", ["username"])
    error = fails(person.organisations.CreateOrganisation, org.CreateOrganisationRequest(handle=name))
    assert (error.reason, [v.field for v in error.violations]) == ("INVALID_FIELDS", ["handle"])


def test_the_platform_speaks_for_itself(platform: Platform) -> None:
    """Its administrators may take what is reserved."""
    made = org.CreateOrganisationRequest(handle="mercat-team")
    assert platform.admin().organisations.CreateOrganisation(made).organisation.handle == "mercat-team"
