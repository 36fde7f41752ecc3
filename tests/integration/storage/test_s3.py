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

import httpx
import pytest
from mercat.storage.v1 import storage_pb2

from services.embedded.ports import free_ports
from tests import graphs
from tests.platform import USD, Platform
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
        server = subprocess.Popen(
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
    with Platform(tmp_path / "home", env=s3) as platform:
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
