"""Several processes search, each with an index of its own: whichever of them hears of a change, all of them have it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from mercat.marketplace.v1 import marketplace_pb2 as m
from mercat.marketplace.v1 import marketplace_pb2_grpc
from mercat.registry.v1 import registry_pb2 as r

from tests import graphs, processes
from tests.expect import until
from tests.platform import Platform, free_port

SOON = 2.0  # seconds within which every reader knows


@pytest.fixture
def second(platform: Platform, tmp_path: Path) -> Iterator[marketplace_pb2_grpc.MarketplaceServiceStub]:
    """Another marketplace of the same platform, which shares the work of hearing events with the first."""
    address = f"127.0.0.1:{free_port()}"
    env = psutil.Process(platform.pids()["control"]).environ() | {
        "MERCAT_HOME": str(tmp_path / "home"), "MERCAT_PROCESS": "second", "MERCAT_READY_FILE": str(tmp_path / "ready"),
    }  # fmt: skip
    (tmp_path / "home").mkdir()
    command = [sys.executable, "-m", "services", "serve", "marketplace", "--listen", address]
    with (tmp_path / "log").open("wb") as log:
        process = processes.start(command, env=env, stdout=log, stderr=log)
    try:
        until((tmp_path / "ready").exists, 30)
        with grpc.insecure_channel(address) as channel:
            yield marketplace_pb2_grpc.MarketplaceServiceStub(channel)
    finally:
        process.terminate()
        process.wait(30)


def test_all_of_them_follow(platform: Platform, second: marketplace_pb2_grpc.MarketplaceServiceStub) -> None:
    owner = platform.publisher()
    request = m.SearchModelsRequest(publisher=owner.profile.username, sort=m.SORT_ORDER_NEWEST)
    first = platform.anonymous.marketplace
    made: list[str] = []
    for _ in range(6):  # one or the other hears of each
        made.insert(0, platform.publish(owner, graphs.tiny()))
        for reader in (first, second):
            until(lambda reader=reader: [h.model for h in reader.SearchModels(request).hits] == made, SOON)
    owner.registry.DeprecateVersion(r.DeprecateVersionRequest(model=made.pop(2), version="1.0.0"))
    for reader in (first, second):
        until(lambda reader=reader: [h.model for h in reader.SearchModels(request).hits] == made, SOON)


def test_pages_go_on_in_another_process(
    platform: Platform, second: marketplace_pb2_grpc.MarketplaceServiceStub
) -> None:
    owner = platform.publisher()
    made = {platform.publish(owner, graphs.tiny()) for _ in range(5)}
    readers = [platform.anonymous.marketplace, second]
    request = m.SearchModelsRequest(publisher=owner.profile.username, page_size=2)
    for reader in readers:
        until(lambda reader=reader: reader.SearchModels(request).total == 5, SOON)
    seen: list[str] = []
    for turn in range(3):
        page = readers[turn % 2].SearchModels(request)
        seen += [h.model for h in page.hits]
        request.page_token = page.next_page_token
    assert not request.page_token
    assert len(seen) == 5
    assert set(seen) == made
