"""Rules of keys: networks and models, and what is no rule."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mercat.auth.v1 import auth_pb2

from services.common import key_rules
from services.common.errors import InvalidFields
from services.common.key_rules import AddressDenied, ModelDenied

ADDRESSES = st.ip_addresses().map(str)


def allowed(rules: auth_pb2.KeyRules, address: str) -> bool:
    try:
        key_rules.check_address(rules, address)
    except AddressDenied as e:
        return e.metadata != {"address": address}
    return True


def callable_(model: str, *patterns: str) -> bool:
    try:
        key_rules.check_model(auth_pb2.KeyRules(models=patterns), model)
    except ModelDenied:
        return False
    return True


@given(ADDRESSES)
def test_without_networks_every_address_is_allowed(address: str) -> None:
    assert allowed(auth_pb2.KeyRules(models=["a/b"]), address)


@given(ADDRESSES, st.integers(0, 32), st.data())
def test_a_network_allows_and_denies_its_addresses(address: str, bits: int, data: st.DataObject) -> None:
    network = ipaddress.ip_network(f"{address}/{bits}", strict=False)
    other = data.draw(ADDRESSES)
    ip = ipaddress.ip_address(other)
    inside = (getattr(ip, "ipv4_mapped", None) or ip) in network
    assert allowed(auth_pb2.KeyRules(allowed_networks=[str(network)]), other) == inside
    assert allowed(auth_pb2.KeyRules(denied_networks=[str(network)]), other) != inside


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.1.2.3", True),
        ("10.9.9.9", False),  # denied within what is allowed
        ("11.0.0.1", False),
        ("::ffff:10.1.2.3", True),  # the same machine over IPv6
        ("::ffff:10.9.9.9", False),
        ("2001:db8::1", True),
        ("local", False),
        ("", False),
        ("10.1.2.3:80", False),
    ],
)
def test_denied_wins_over_allowed(address: str, expected: bool) -> None:
    rules = auth_pb2.KeyRules(allowed_networks=["10.0.0.0/8", "2001:db8::/32"], denied_networks=["10.9.0.0/16"])
    assert allowed(rules, address) == expected


@pytest.mark.parametrize(
    ("model", "patterns", "expected"),
    [
        ("ada/adder", (), True),
        ("ada/adder", ("ada/adder",), True),
        ("ada/adder2", ("ada/adder",), False),
        ("ada/adder", ("ada/*",), True),
        ("adam/adder", ("ada/*",), False),
        ("adam/adder", ("ada*/adder",), True),
        ("ada/small-2", ("bob/x", "ada/small-*"), True),
        ("ada/large", ("bob/x", "ada/small-*"), False),
        ("bob/adder", ("*/adder",), True),
        ("bob/adder", ("*/*",), True),
    ],
)
def test_patterns_of_models(model: str, patterns: tuple[str, ...], expected: bool) -> None:
    assert callable_(model, *patterns) == expected


def test_networks_are_kept_in_their_usual_form() -> None:
    rules = auth_pb2.KeyRules(allowed_networks=["203.0.113.7", " 2001:DB8:0::/48"], models=["ada/*"])
    kept = key_rules.read(key_rules.column(rules))
    assert kept == auth_pb2.KeyRules(allowed_networks=["203.0.113.7/32", "2001:db8::/48"], models=["ada/*"])


def test_rules_that_say_nothing_are_none() -> None:
    assert key_rules.column(auth_pb2.KeyRules()) is None
    assert key_rules.column(None) is None
    assert key_rules.read(None) is None


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0", "example.com", "10.0.0.0/33", "", "1.2.3.4/24/8"])
def test_what_is_no_network_is_named(network: str) -> None:
    with pytest.raises(InvalidFields) as caught:
        key_rules.column(auth_pb2.KeyRules(allowed_networks=["10.0.0.0/8"], denied_networks=["::/0", network]))
    assert [v.field for v in caught.value.violations] == ["rules.denied_networks[1]"]
