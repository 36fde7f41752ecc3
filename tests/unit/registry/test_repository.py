"""What is written into the model repository."""

import hashlib
import io
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mercat.registry.v1 import registry_pb2

from services.common.errors import DataLoss
from services.registry.repository import write


async def put(folder: Path, data: bytes, file: str, *, digest: str = "") -> Path:
    """Writes a version of a publisher's own artifact; answers its folder."""
    deployment = registry_pb2.Deployment(
        repository_model="m", repository_version=3, repository_config="name: 'm'", repository_file=file,
        repository_digest=digest or f"sha256:{hashlib.sha256(data).hexdigest()}", digest="sha256:other", size_bytes=1,
    )  # fmt: skip

    async def pieces() -> AsyncIterator[bytes]:
        yield data

    await write(folder, deployment, pieces())
    return folder / "m"


def saved_model(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/saved_model.pb", b"graph")
        archive.writestr(f"model/variables/{name}", b"index")
    return buffer.getvalue()


async def test_torchscript_lies_as_it_is(tmp_path: Path) -> None:
    model = await put(tmp_path, b"script", "model.pt")
    assert (model / "3" / "model.pt").read_bytes() == b"script"
    assert sorted(p.name for p in model.rglob("*")) == ["3", "config.pbtxt", "model.pt"]


async def test_a_saved_model_is_a_folder(tmp_path: Path) -> None:
    for _ in range(2):  # the second time it is there
        model = await put(tmp_path, saved_model("variables.index"), "model.savedmodel")
        names = sorted(str(p.relative_to(model / "3")) for p in (model / "3").rglob("*") if p.is_file())
        assert names == ["model.savedmodel/saved_model.pb", "model.savedmodel/variables/variables.index"]
        assert sorted(p.name for p in model.iterdir()) == ["3", "config.pbtxt"]


@pytest.mark.parametrize(
    ("data", "digest"), [(saved_model("variables.index"), f"sha256:{'0' * 64}"), (saved_model("../../up"), "")]
)
async def test_nothing_else_is_written(data: bytes, digest: str, tmp_path: Path) -> None:
    with pytest.raises(DataLoss):
        await put(tmp_path, data, "model.savedmodel", digest=digest)
    assert [p.name for p in tmp_path.rglob("*")] == ["m"]
