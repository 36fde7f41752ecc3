"""Reflection describes every service that outsiders may call, whichever file of the contracts it stands in."""

from services.__main__ import public_services
from services.embedded.envoy_config import KSERVE, descriptor_pb2
from services.embedded.envoy_contracts import transcodable
from services.embedded.envoy_door import DESCRIPTORS


def test_every_routed_service_is_described() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    assert sorted(public_services()) == sorted({KSERVE, *(method.service for method in transcodable(files))})
