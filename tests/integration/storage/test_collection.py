"""What no version needs is removed after a while; what one needs, or one that can be taken back, never is."""

import hashlib
import os
import random
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from mercat.registry.v1 import registry_pb2 as r
from mercat.storage.v1 import storage_pb2 as s

from services.common.errors import from_rpc_error
from tests import graphs
from tests.platform import Account, Platform

AFTER, WINDOW = 4.0, 6.0  # seconds: of artifacts that nothing names, and to take back a deletion
STRAY = b"a process died before it said that it had stored these"


def place(home: Path, digest: str) -> Path:
    name = digest.removeprefix("sha256:")
    return home / "artifacts" / "sha256" / name[:2] / name


def named(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("collection") / "home"
    env = {
        "MERCAT_STORAGE_COLLECT": "0.3", "MERCAT_STORAGE_COLLECT_AFTER": str(AFTER),
        "MERCAT_UNDELETE_SECONDS": str(WINDOW),
    }  # fmt: skip
    with Platform(home, env=env) as platform:
        stray = place(home, named(STRAY))
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_bytes(STRAY)
        os.utime(stray, (0, 0))
        platform.until_ready("control", platform.kill("control"))  # such are looked for at the start, and once a day
        yield platform


def model_of(maker: Account) -> str:
    name = f"c{secrets.token_hex(4)}"
    asked = r.CreateModelRequest(name=name, summary="s", category="other", task="test", license="MIT")
    return str(maker.registry.CreateModel(asked).model.model)


def until_gone(path: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while path.exists():
        assert time.monotonic() < deadline, f"{path.name} is still there"
        time.sleep(0.1)


def reads(person: Account, digest: str) -> bytes:
    pieces = person.storage.DownloadArtifact(s.DownloadArtifactRequest(digest=digest))
    return b"".join(piece.chunk.data for piece in pieces)


def test_only_what_is_needed_stays(running: Platform) -> None:
    maker = running.publisher()
    model = model_of(maker)
    published = running.publish(maker, graphs.tiny(seed=1))
    kept, given_up, taken_back = graphs.tiny(seed=2), graphs.tiny(seed=3), graphs.tiny(seed=4)
    for number, data in (("1.0.0", kept), ("2.0.0", given_up), ("3.0.0", taken_back)):
        assert running.validated(maker, model, running.upload(maker, data), number).state == r.VERSION_STATE_DRAFT
    for number in ("2.0.0", "3.0.0"):
        gone = maker.registry.DeleteVersion(r.DeleteVersionRequest(model=model, version=number)).version
        assert gone.state == r.VERSION_STATE_DELETED
        assert gone.HasField("deleted_at")
    card = b"# A card that belongs to a version"
    with_card = r.CreateVersionRequest(model=model, version="4.0.0", digest=named(kept))
    with_card.files.add(name="README.md", role=r.FILE_ROLE_CARD, digest=running.upload(maker, card))
    maker.registry.CreateVersion(with_card)
    unnamed = secrets.token_bytes(5000)
    running.upload(maker, unnamed)
    back = maker.registry.UndeleteVersion(r.UndeleteVersionRequest(model=model, version="3.0.0")).version
    assert (back.state, back.HasField("deleted_at")) == (r.VERSION_STATE_DRAFT, False)
    until_gone(place(running.home, named(unnamed)), AFTER + 10)
    until_gone(place(running.home, named(STRAY)), AFTER + 10)
    until_gone(place(running.home, named(given_up)), WINDOW + AFTER + 20)
    with pytest.raises(grpc.RpcError) as caught:
        maker.registry.UndeleteVersion(r.UndeleteVersionRequest(model=model, version="2.0.0"))
    assert from_rpc_error(caught.value).reason == "VERSION_STATE"
    for data in (graphs.tiny(seed=1), kept, taken_back, card):
        assert reads(maker, named(data)) == data
    for data in (unnamed, given_up):
        with pytest.raises(grpc.RpcError) as caught:
            reads(maker, named(data))
        assert from_rpc_error(caught.value).reason == "ARTIFACT_NOT_FOUND"
    # It was known, and has to be sent again all the same; its number stays taken.
    opened = maker.storage.CreateUpload(
        s.CreateUploadRequest(filename="m", size_bytes=len(unnamed), digest=named(unnamed))
    ).upload
    assert opened.state == s.Upload.STATE_OPEN
    assert reads(maker, running.upload(maker, unnamed)) == unnamed
    with pytest.raises(grpc.RpcError) as caught:
        maker.registry.CreateVersion(r.CreateVersionRequest(model=model, version="2.0.0", digest=named(kept)))
    assert from_rpc_error(caught.value).reason == "VERSION_EXISTS"
    assert published


def test_what_was_published_is_not_deleted(running: Platform) -> None:
    maker = running.publisher()
    model = running.publish(maker, graphs.tiny(seed=9))
    with pytest.raises(grpc.RpcError) as caught:
        maker.registry.DeleteVersion(r.DeleteVersionRequest(model=model, version="1.0.0"))
    assert from_rpc_error(caught.value).reason == "VERSION_STATE"
    with pytest.raises(grpc.RpcError) as caught:
        maker.registry.UndeleteVersion(r.UndeleteVersionRequest(model=model, version="1.0.0"))
    assert from_rpc_error(caught.value).reason == "VERSION_STATE"


def test_a_version_that_is_made_meanwhile_has_its_bytes(running: Platform) -> None:
    """Uploads that are just about to be removed become versions, or are told to be gone: nothing between."""
    maker = running.publisher()
    model = model_of(maker)
    seed = time.time_ns()
    print(f"seed {seed}")
    waits = random.Random(seed)

    def attempt(i: int, wait: float) -> bytes | None:
        data = secrets.token_bytes(1000)
        digest = running.upload(maker, data)
        time.sleep(wait)
        try:
            maker.registry.CreateVersion(r.CreateVersionRequest(model=model, version=f"1.0.{i}", digest=digest))
        except grpc.RpcError as e:
            if from_rpc_error(e).reason != "ARTIFACT_NOT_FOUND":
                raise
            assert running.upload(maker, data) == digest  # again, while the bytes may be on their way out
            return None
        return data

    with ThreadPoolExecutor(24) as pool:
        ended = list(pool.map(attempt, range(48), [waits.uniform(AFTER - 0.5, AFTER + 1.2) for _ in range(48)]))
    made = [data for data in ended if data is not None]
    print(f"oracle L: {len(made)} of {len(ended)} became versions")
    assert 0 < len(made) < len(ended), "nothing was on the edge"
    time.sleep(AFTER + 2)
    for data in made:
        assert reads(maker, named(data)) == data
