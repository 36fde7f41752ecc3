"""Versions that were never published are given up and taken back, from the command line and over REST."""

from pathlib import Path

import httpx
import pytest
from mercat.registry.v1 import registry_pb2 as r

from tests import graphs
from tests.platform import Account, Platform


@pytest.fixture(scope="module")
def maker(platform: Platform) -> Account:
    return platform.publisher()


@pytest.fixture
def draft(platform: Platform, maker: Account, request: pytest.FixtureRequest) -> str:
    name = f"d{abs(hash(request.node.name)) % 10**9}"
    asked = r.CreateModelRequest(name=name, summary="s", category="other", task="test", license="MIT")
    model = str(maker.registry.CreateModel(asked).model.model)
    platform.validated(maker, model, platform.upload(maker, graphs.tiny(seed=21)))
    return model


def state(maker: Account, model: str) -> int:
    return int(maker.registry.GetVersion(r.GetVersionRequest(model=model, version="1.0.0")).version.state)


def test_from_the_command_line(platform: Platform, maker: Account, draft: str) -> None:
    env = {"MERCAT_API_KEY": maker.api_key, "MERCAT_SERVER": platform.grpc}
    gone = platform.command("models", "delete", f"{draft}@1.0.0", **env)
    assert gone.returncode == 0, gone.stderr
    assert state(maker, draft) == r.VERSION_STATE_DELETED
    again = platform.command("models", "delete", f"{draft}@1.0.0", **env)
    assert (again.returncode, "cannot delete a version that is deleted" in again.stderr) == (1, True)
    back = platform.command("models", "undelete", f"{draft}@1.0.0", **env)
    assert "is draft again" in back.stdout
    assert state(maker, draft) == r.VERSION_STATE_DRAFT


def test_what_was_pushed_is_got_back(platform: Platform, maker: Account, draft: str, tmp_path: Path) -> None:
    env = {"MERCAT_API_KEY": maker.api_key, "MERCAT_SERVER": platform.grpc}
    data, to = graphs.tiny(seed=21), tmp_path / "got.onnx"
    (tmp_path / "got.onnx.part").write_bytes(data[:100])  # a download that was broken off
    done = platform.command("models", "download", f"{draft}@1.0.0", "--to", str(to), **env)
    assert done.returncode == 0, done.stderr
    assert to.read_bytes() == data
    again = platform.command("models", "download", f"{draft}@1.0.0", "--to", str(to), **env)
    assert (again.returncode, "is there already" in again.stderr) == (1, True)
    (tmp_path / "bad.part").write_bytes(b"x" * 100)
    bad = platform.command("models", "download", f"{draft}@1.0.0", "--to", str(tmp_path / "bad"), **env)
    assert (bad.returncode, "is not the artifact" in bad.stderr) == (1, True)
    none = platform.command("models", "download", f"{draft}@1.0.0", "--file", "w.bin", "--to", "x", **env)
    assert "has no file w.bin" in none.stderr


def test_over_rest(platform: Platform, maker: Account, draft: str) -> None:
    where = f"{platform.rest}/v1/models/{draft}/versions/1.0.0"
    headers = dict(maker.metadata)
    assert httpx.delete(where, headers=headers).json()["state"] == "VERSION_STATE_DELETED"
    other = platform.publisher()
    assert httpx.post(f"{where}:undelete", headers=dict(other.metadata), json={}).status_code == 404
    assert httpx.post(f"{where}:undelete", headers=headers, json={}).json()["state"] == "VERSION_STATE_DRAFT"
    assert httpx.post(f"{where}:undelete", headers=headers, json={}).status_code == 400
    assert httpx.get(where, headers=dict(other.metadata)).status_code == 404


def test_what_was_deleted_takes_no_further_step(maker: Account, draft: str) -> None:
    maker.registry.DeleteVersion(r.DeleteVersionRequest(model=draft, version="1.0.0"))
    with pytest.raises(Exception, match="its owner gave it up"):
        maker.registry.SubmitVersion(r.SubmitVersionRequest(model=draft, version="1.0.0"))
