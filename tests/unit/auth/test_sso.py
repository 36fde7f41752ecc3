"""What proves a domain, and where a provider that an organisation names may be."""

import asyncio
from collections.abc import Iterator

import pytest

from services.auth.identities.reaching import check_outside
from services.auth.sso import domains
from services.auth.sso.domains import Dns, DnsUnavailable
from services.auth.sso.requiring import domain_of
from services.common.errors import InvalidFields
from tests.dns_server import DnsServer


@pytest.fixture
def names() -> Iterator[DnsServer]:
    server = DnsServer()
    yield server
    server.stop()


def test_a_record_proves_the_domain_that_it_is_below(names: DnsServer) -> None:
    token = domains.new_token()
    name, value = domains.record("acme.example", token)
    resolver = Dns(names.address)

    def proved(domain: str = "acme.example", said: str = token) -> bool:
        return asyncio.run(domains.proves(resolver, domain, said))

    assert not proved()
    names.records[name] = ["v=spf1 -all"]
    assert not proved()
    names.records[name].append(value)
    assert proved()
    assert not proved(said=token[:-1])
    assert not proved("sub.acme.example")


def test_who_cannot_be_asked_proves_nothing(names: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domains, "_PATIENCE", 0.3)
    names.silent = True
    with pytest.raises(DnsUnavailable):
        asyncio.run(Dns(names.address).txt("acme.example"))


@pytest.mark.parametrize(
    "url",
    [
        "http://93.184.215.14/", "https://127.0.0.1/", "https://10.1.2.3/token", "https://169.254.169.254/latest",
        "https://[::1]/", "https://[fd00::1]/", "https://[::ffff:10.0.0.1]/", "https://localhost/", "file:///etc/passwd",
        "https:///", "https://0.0.0.0/", "https://100.64.0.1/",
    ],
)  # fmt: skip
def test_a_provider_is_not_within(url: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        asyncio.run(check_outside(url))
    assert refused.value.reason == "ISSUER_REFUSED"


def test_a_provider_on_the_public_network_may_be_asked() -> None:
    asyncio.run(check_outside("https://93.184.215.14/authorize"))


def test_the_domain_of_an_address_is_what_follows_the_at() -> None:
    assert domain_of("Ada@Acme.Example") == "acme.example"
