"""Steps taken at the same moment leave what some order of them would have left."""

import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import grpc
import psutil
import pytest
from mercat.registry.v1 import registry_pb2 as r

from tests import graphs
from tests.platform import Account, Platform


@pytest.fixture(scope="module")
def maker(platform: Platform) -> Account:
    return platform.publisher()


def approved(platform: Platform, maker: Account, versions: list[str]) -> str:
    """A new model with these versions, each approved."""
    name = f"race-{secrets.token_hex(4)}"
    model = f"{maker.profile.username}/{name}"
    maker.registry.CreateModel(
        r.CreateModelRequest(name=name, summary="s", category="other", task="test", license="MIT")
    )
    digest, admin = platform.upload(maker, graphs.tiny()), platform.admin()
    for version in versions:
        platform.validated(maker, model, digest, version)
        maker.registry.SubmitVersion(r.SubmitVersionRequest(model=model, version=version))
        admin.registry.ApproveVersion(r.ApproveVersionRequest(model=model, version=version))
    return model


def test_versions_published_at_once_leave_the_newest_as_the_default(platform: Platform, maker: Account) -> None:
    versions = ["1.0.0", "1.1.0", "1.2.0", "2.0.0"]
    for _ in range(3):
        model = approved(platform, maker, versions)
        with ThreadPoolExecutor(4) as threads:
            requests = [r.PublishVersionRequest(model=model, version=v) for v in reversed(versions)]
            for answer in threads.map(maker.registry.PublishVersion, requests):
                assert answer.version.state == r.VERSION_STATE_PUBLISHED
        assert maker.registry.GetModel(r.GetModelRequest(model=model)).model.latest_version == "2.0.0"


async def test_what_was_validated_cannot_be_edited_in_the_database(platform: Platform, maker: Account) -> None:
    model = platform.publish(maker, graphs.tiny())
    version = maker.registry.GetVersion(r.GetVersionRequest(model=model, version="1.0.0")).version
    url = psutil.Process(platform.pids()["control"]).environ()["MERCAT_POSTGRES_URL"]
    connection = await asyncpg.connect(url)
    try:
        for change in (
            "digest = 'sha256:0'", "signature = ''", "document = ''", "size_bytes = 1", "release_notes = 'other'",
            "version = '9.9.9'", "findings = '[1]'", "framework = 'gguf'", "text = 'x'", "served_digest = 'sha256:0'",
            "served_size_bytes = 1",
        ):  # fmt: skip
            with pytest.raises(asyncpg.RaiseError, match="is immutable"):
                await connection.execute(f"UPDATE registry.versions SET {change} WHERE id = $1", version.version_id)
    finally:
        await connection.close()
    assert maker.registry.GetVersion(r.GetVersionRequest(model=model, version="1.0.0")).version == version


def test_a_validation_whose_process_is_killed_is_done_again(own_platform: Callable[..., Platform]) -> None:
    platform = own_platform()
    maker = platform.publisher()
    name = f"killed-{secrets.token_hex(4)}"
    model = f"{maker.profile.username}/{name}"
    maker.registry.CreateModel(
        r.CreateModelRequest(name=name, summary="s", category="other", task="test", license="MIT")
    )
    scratch = platform.home / "tmp"
    maker.registry.CreateVersion(
        r.CreateVersionRequest(model=model, version="1.0.0", digest=platform.upload(maker, graphs.tiny()))
    )
    end = time.monotonic() + 10
    while not list(scratch.glob("version-*")):
        assert time.monotonic() < end
        time.sleep(0.005)
    platform.kill("control")
    assert list(scratch.glob("version-*"))  # it was under way
    end = time.monotonic() + 60  # the dead process's claim runs out after 20
    while True:
        assert time.monotonic() < end
        time.sleep(0.5)
        try:
            state = maker.registry.GetVersion(r.GetVersionRequest(model=model, version="1.0.0")).version.state
        except grpc.RpcError:  # the control process is being started anew
            continue
        if state != r.VERSION_STATE_VALIDATING:
            break
    assert state == r.VERSION_STATE_DRAFT
    assert not list(scratch.glob("version-*"))
