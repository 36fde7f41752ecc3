"""`mercat.auth.v1.KeyRules`: their checks, their form in a column (jsonb, NULL: none), and what they say of a call.

Callers with rules are asked for with each call, so that what follows from rules and an address, or a model, is kept."""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from google.protobuf import json_format
from mercat.auth.v1 import auth_pb2

from services.common.errors import InvalidFields, PermissionDenied, Violation

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_KEPT = 16_384  # answers


class AddressDenied(PermissionDenied, reason="KEY_ADDRESS_DENIED"):
    """The key may not be used from the caller's address, which the metadata names."""


class ModelDenied(PermissionDenied, reason="KEY_MODEL_DENIED"):
    """The key may not call this model."""


def column(rules: auth_pb2.KeyRules | None) -> str | None:
    """What is stored of rules from a request; networks in their usual form.

    Raises:
        InvalidFields: a network is none.
    """
    if rules is None or not rules.ByteSize():
        return None
    wrong: list[Violation] = []
    usual = auth_pb2.KeyRules(models=rules.models, require_signature=rules.require_signature)
    for field in ("allowed_networks", "denied_networks"):
        for at, text in enumerate(getattr(rules, field)):
            try:
                getattr(usual, field).append(str(ipaddress.ip_network(text.strip())))
            except ValueError as e:
                wrong.append(Violation(f"rules.{field}[{at}]", f"is no network such as 10.0.0.0/8: {e}"))
    if wrong:
        raise InvalidFields(violations=wrong)
    return json_format.MessageToJson(usual, indent=None)


def read(stored: str | None) -> auth_pb2.KeyRules | None:
    """The rules in a column."""
    return json_format.Parse(stored, auth_pb2.KeyRules()) if stored is not None else None


def check_address(rules: auth_pb2.KeyRules, address: str) -> None:
    """Raises AddressDenied."""
    if not _address_allowed(rules.SerializeToString(deterministic=True), address):
        raise AddressDenied(f"this key may not be used from {address}", metadata={"address": address})


def check_model(rules: auth_pb2.KeyRules, model: str, former: Iterable[str] = ()) -> None:
    """`model`: publisher/name; `former`: addresses that lead to it, either of which may be what is allowed. Raises
    ModelDenied."""
    said = rules.SerializeToString(deterministic=True)
    if not (_model_allowed(said, model) or any(_model_allowed(said, name) for name in former)):
        raise ModelDenied(f"this key may not call {model}", metadata={"model": model})


@lru_cache(_KEPT)
def _address_allowed(rules: bytes, address: str) -> bool:
    allowed, denied = _networks(rules)
    if not (allowed or denied):
        return True
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # of who comes over a socket in a folder nothing can be said
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    return not any(ip in network for network in denied) and (not allowed or any(ip in network for network in allowed))


@lru_cache(1024)
def _networks(rules: bytes) -> tuple[list[_Network], list[_Network]]:
    read = auth_pb2.KeyRules.FromString(rules)
    return _parsed(read.allowed_networks), _parsed(read.denied_networks)


def _parsed(networks: Iterable[str]) -> list[_Network]:
    return [ipaddress.ip_network(text) for text in networks]


@lru_cache(_KEPT)
def _model_allowed(rules: bytes, model: str) -> bool:
    patterns = auth_pb2.KeyRules.FromString(rules).models
    return not patterns or any(_fits(pattern, model) for pattern in patterns)


def _fits(pattern: str, model: str) -> bool:
    """Of `publisher/name` either may end with `*`, which is anything."""
    return all(
        got.startswith(half[:-1]) if half.endswith("*") else got == half
        for half, got in zip(pattern.split("/"), model.split("/"), strict=True)
    )
