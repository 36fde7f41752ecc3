"""Artifacts in an object store instead of a folder: the same main job on SeaweedFS's S3 interface."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from mercat.storage.v1 import storage_pb2

from services.common.errors import NotFound, from_rpc_error
from services.embedded.ports import free_ports
from services.storage.blobs import Blobs
from tests import graphs, processes
from tests.platform import USD, Account, Platform
from tests.robustness.traffic import Caller

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the package with SeaweedFS is for Linux")
KEY, SECRET = "access", "secret"


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables by which an S3 client finds the server; there is a bucket `mercat`."""
    weed = str(Path(sys.executable).parent / "weed")
    identity = {"name": "m", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    (tmp_path / "s3.json").write_text(json.dumps({"identities": [identity]}))
    # Each of its servers listens for gRPC as well, 10,000 above unless it is told where.
    names = ("master", "volume", "filer", "s3")
    ports = dict(zip([n + g for g in ("", ".grpc") for n in names], free_ports(8), strict=True))
    options = [
        f"-{name.replace('.grpc', '')}.port{'.grpc' if '.grpc' in name else ''}={p}" for name, p in ports.items()
    ]
    folder = tmp_path / "weed"
    folder.mkdir()
    with (tmp_path / "weed.log").open("wb") as log:
        server = processes.start(
            [weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3",
             f"-s3.config={tmp_path / 's3.json'}", *options],
            stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path,
        )  # fmt: skip
    try:
        endpoint = f"http://127.0.0.1:{ports['s3']}"
        wait_for(endpoint)
        shell = [weed, "shell", f"-master=127.0.0.1:{ports['master']}.{ports['master.grpc']}"]
        subprocess.run(shell, input=b"s3.bucket.create -name mercat\n", check=True, timeout=60, capture_output=True)
        yield {
            "MERCAT_STORAGE_URL": "s3://mercat", "AWS_ENDPOINT": endpoint, "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
        }  # fmt: skip
    finally:
        server.kill()  # asked to end, it takes half a minute
        server.wait()


def wait_for(endpoint: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(endpoint, timeout=2).status_code in (200, 403):
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise TimeoutError("SeaweedFS does not answer")


def test_a_model_is_stored_and_served_from_s3(tmp_path: Path, s3: dict[str, str]) -> None:
    with Platform(tmp_path / "home", env=s3 | {"MERCAT_STORAGE_CACHE_MB": "1"}) as platform:
        publisher, consumer = platform.publisher(), platform.sign_up(credit=USD)
        model = platform.publish(publisher, graphs.tiny(), batch=8, price={"requests": 10**12})

        async def call() -> str:
            return await Caller(platform.grpc, consumer.api_key, model).call()

        assert asyncio.run(call()) == "OK"
        data = os.urandom(12_000_000)  # more than one part
        digest = platform.upload(publisher, data, "large.bin")
        assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
        request = storage_pb2.DownloadArtifactRequest(digest=digest, offset=5_000_000, length=3_000_001)
        got = b"".join(piece.chunk.data for piece in publisher.storage.DownloadArtifact(request))
        assert got == data[5_000_000:8_000_001]
        assert not [p for p in (platform.home / "artifacts").rglob("*") if p.is_file()]
        _read_by_address(publisher, digest, data)
        _read_by_services_once(platform)


def _read_by_address(person: Account, digest: str, data: bytes) -> None:
    """What stores the bytes hands them out itself, to whoever has the address, whole and in ranges."""
    made = person.storage.GetDownloadUrl(storage_pb2.GetDownloadUrlRequest(digest=digest, lifetime_seconds=60))
    assert httpx.get(made.url).content == data
    part = httpx.get(made.url, headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, data[10:20])
    assert httpx.get(made.url.replace("X-Amz-Expires=60", "X-Amz-Expires=3600")).status_code == 403
    assert httpx.get(made.url.partition("?")[0]).status_code == 403
    other = person.platform.publisher()
    with pytest.raises(grpc.RpcError) as caught:
        other.storage.GetDownloadUrl(storage_pb2.GetDownloadUrlRequest(digest=digest))
    assert from_rpc_error(caught.value).reason == "ARTIFACT_NOT_FOUND"


def _read_by_services_once(platform: Platform) -> None:
    """What was validated and published was read from the store once: it is kept here since, within its bound."""
    kept = list((platform.home / "artifact-cache").iterdir())
    assert kept
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in kept} == {path.name for path in kept}
    assert sum(path.stat().st_size for path in kept) <= 1 << 20


def test_a_large_artifact_travels_in_parts(tmp_path: Path, s3: dict[str, str]) -> None:
    """Many of them, and what reads it back finds the same."""
    file = tmp_path / "large.bin"
    block = os.urandom(1 << 20)
    with file.open("wb") as out:
        for i in range(100):
            out.write(i.to_bytes(8, "big") + block[8:])
    digest = "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
    environment = {name: value for name, value in s3.items() if name.startswith("AWS_")}

    async def stored() -> str:
        blobs = Blobs.open(s3["MERCAT_STORAGE_URL"], tmp_path / "home", 200 << 20)
        await blobs.put(digest, file)
        assert await blobs.exists(digest)
        found = hashlib.sha256()
        async for piece in blobs.read_whole(digest, file.stat().st_size):
            found.update(piece)
        await blobs.remove(digest)  # from the cache, too
        assert not await blobs.exists(digest)
        with pytest.raises(NotFound):
            await anext(blobs.read_whole(digest, file.stat().st_size))
        return f"sha256:{found.hexdigest()}"

    with pytest.MonkeyPatch.context() as patched:
        for name, value in environment.items():
            patched.setenv(name, value)
        assert asyncio.run(stored()) == digest
