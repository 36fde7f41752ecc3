"""Starts the floors and peers, all with the same model file and the same number of threads inside a run."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import grpc
import onnx
from tritonclient.grpc import service_pb2, service_pb2_grpc

from benchmarks import peers
from benchmarks.load import ROOT
from benchmarks.peers import PeerError, Server, listening
from tests.platform import free_port

Tell = Callable[[str], None]
_TRITON = ROOT / "triton_repo" / "serve.py"
# Of the package's sources, llama.cpp's own server: the package's answers one call at a time. No cache of pip's, which
# would not know how a wheel was built.
_LLAMA = (
    "--no-cache-dir", "--no-binary=llama-cpp-python",
    *(f"--config-settings={setting}" for setting in (
        "cmake.source-dir=vendor/llama.cpp", "build.targets=llama-server",
        *(f"cmake.define.{name}=OFF" for name in (
            "BUILD_SHARED_LIBS", "LLAMA_TOOLS_INSTALL", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_APP",
            "LLAMA_USE_PREBUILT_UI", "LLAMA_OPENSSL",
        )),
    )),
)  # fmt: skip
_TYPES = {onnx.TensorProto.FLOAT: "TYPE_FP32", onnx.TensorProto.INT64: "TYPE_INT64"}


def echo(folder: Path) -> Server:
    """The floor: a bare `grpc.aio` server."""
    port = free_port()
    server = Server(
        "echo", [sys.executable, "-m", "benchmarks.echo", str(port)], port, folder, {"PYTHONPATH": str(ROOT)}
    )
    return _answering(server, partial(listening, port))


def mlserver(model: Path, folder: Path, tell: Tell, *, threads: int, workers: int) -> Server:
    """MLServer with the model as `model`; its defaults, but for `debug`, which logs every call.

    Args:
        workers: its `parallel_workers`; 0: inference in the process that serves.
    """
    python = peers.python("mlserver", tell)
    home = folder / f"mlserver-{model.stem}-{workers}"
    (home / "model").mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings = {
        "host": "127.0.0.1", "http_port": free_port(), "grpc_port": port, "metrics_port": free_port(),
        "parallel_workers": workers, "debug": False,
    }  # fmt: skip
    described = {
        "name": "model", "implementation": "mlserver_model.OnnxModel",
        "parameters": {"uri": str(model), "threads": threads},
    }  # fmt: skip
    (home / "settings.json").write_text(json.dumps(settings))
    (home / "model" / "model-settings.json").write_text(json.dumps(described))
    server = Server(
        "mlserver", [str(python.with_name("mlserver")), "start", "."], port, home, {"PYTHONPATH": str(peers.HERE)}
    )
    return _answering(server, partial(_model_ready, server.target))


def triton(model: Path, folder: Path, *, threads: int, batch: int, preferred: int = 0) -> Server:
    """Triton with the model as `model`, dynamic batching on. `preferred`: a batch size, or none.

    Raises PeerError where it is not installed."""
    if not _TRITON.exists():
        raise PeerError("Triton is not set up in this tree")
    repository = folder / f"triton-{model.stem}"
    (repository / "model" / "1").mkdir(parents=True, exist_ok=True)
    (repository / "model" / "1" / "model.onnx").write_bytes(model.read_bytes())
    config = _config(model, threads=threads, batch=batch, preferred=preferred)
    (repository / "model" / "config.pbtxt").write_text(config)
    port = free_port()
    argv = [sys.executable, str(_TRITON), "--repository", str(repository), "--port", str(port), "--load-model=model"]
    server = Server("triton", argv, port, folder, {})
    return _answering(server, partial(_model_ready, server.target))


def litserve(model: Path, folder: Path, tell: Tell, *, threads: int) -> Server:
    """LitServe with the model behind POST /predict."""
    python = peers.python("litserve", tell)
    port = free_port()
    argv = [str(python), str(peers.HERE / "litserve_server.py"), str(model), str(port), str(threads)]
    return _answering(Server("litserve", argv, port, folder, {}), partial(listening, port))


def llama(model: Path, folder: Path, tell: Tell, *, threads: int, slots: int, context: int) -> Server:
    """llama.cpp's own server, which batches continuously, with the model and so many slots of `context` tokens each.
    Prompts that it had before are not kept when a slot is given to another."""
    python = peers.python("llamacpp", tell, build=_LLAMA)
    program = next(python.parent.parent.glob("lib/*/site-packages/bin/llama-server"), None)
    if program is None:
        raise PeerError("what was built has no llama-server: remove benchmarks/.envs/llamacpp, and it is built again")
    port = free_port()
    argv = [
        str(program), "--model", str(model), "--host", "127.0.0.1", "--port", str(port), "--threads", str(threads),
        "--threads-batch", str(threads), "--parallel", str(slots), "--ctx-size", str(slots * context),
        "--cont-batching", "--cache-ram", "0", "--log-disable",
    ]  # fmt: skip
    server = Server("llama.cpp", argv, port, folder, {})
    return _answering(server, partial(_healthy, f"http://{server.target}/health"))


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _answering(server: Server, ready: Callable[[], bool]) -> Server:
    try:
        server.wait(ready)
    except PeerError:
        server.close()
        raise
    return server


def _model_ready(target: str) -> bool:
    """Whether a KServe server has loaded the model; it may listen before."""
    with grpc.insecure_channel(target) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            return bool(stub.ModelReady(service_pb2.ModelReadyRequest(name="model"), timeout=2).ready)
        except grpc.RpcError:
            return False


def _config(model: Path, *, threads: int, batch: int, preferred: int) -> str:
    graph = onnx.load(str(model), load_external_data=False).graph

    def tensors(values: list) -> str:
        made = []
        for value in values:
            kind = value.type.tensor_type
            dims = [d.dim_value or -1 for d in kind.shape.dim[1:]]  # the batch axis is Triton's own
            made.append(f'{{ name: "{value.name}" data_type: {_TYPES[kind.elem_type]} dims: {dims} }}')
        return ", ".join(made)

    return (
        f'name: "model"\nbackend: "onnxruntime"\nmax_batch_size: {batch}\n'
        f"input [{tensors(list(graph.input))}]\noutput [{tensors(list(graph.output))}]\n"
        "instance_group [{ count: 1 kind: KIND_CPU }]\n"
        f"dynamic_batching {{ {f'preferred_batch_size: {preferred}' if preferred else ''} }}\n"
        f'parameters {{ key: "intra_op_thread_count" value: {{ string_value: "{threads}" }} }}\n'
    )


def raw(model: Path, *, threads: int, seconds: float, batches: Sequence[int], tokens: int) -> dict[int, float]:
    """Rows per second of `session.run` in a loop, by batch size, in a process of its own."""
    sizes = ",".join(map(str, batches))
    argv = [sys.executable, "-m", "benchmarks.raw", str(model), str(threads), str(seconds), sizes, str(tokens)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return {int(batch): per_second for batch, per_second in json.loads(done.stdout).items()}


def decoder(model: Path, *, threads: int, seconds: float, streams: int, prompt: int, answer: int) -> dict[str, float]:
    """What the decoder engine's own loop does in a process of its own, as `benchmarks.decoder_floor` says."""
    argv = [*floor(model, threads=threads, prompt=prompt, answer=answer), str(streams), str(seconds)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return dict(json.loads(done.stdout))


def floor(model: Path, *, threads: int, prompt: int, answer: int) -> list[str]:
    """The command that makes as many answers as each line that comes in says: `benchmarks.decoder_floor`."""
    return [sys.executable, "-m", "benchmarks.decoder_floor", str(model), *map(str, (threads, prompt, answer))]
