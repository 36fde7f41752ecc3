"""Names that look alike, and websites that are proven."""

import pytest

from services.marketplace.profiles.names import proven, skeleton


@pytest.mark.parametrize(
    ("one", "other"), [("Acme AI", "acme-ai"), ("Acme", "Acrne"), ("Google", "G00gle"), ("Lima", "1ima")]
)
def test_names_that_look_alike(one: str, other: str) -> None:
    assert skeleton(one) == skeleton(other)


def test_others_do_not() -> None:
    names = ["Acme", "Acme Labs", "Apex", "Ada", "Bob", "Mercat"]
    assert len({skeleton(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("website", "verified"),
    [
        ("https://acme.example", True),
        ("https://WWW.acme.example:8443/models?x=1", True),
        ("https://notacme.example", False),
        ("https://acme.example.evil.example", False),
        ("https://acme.example@evil.example/", False),
        ("", False),
    ],
)
def test_websites_of_a_domain(website: str, verified: bool) -> None:
    assert proven(website, ["acme.example"]) is verified
    assert not proven(website, [])
