"""A running Triton for tests and benchmarks: the real server, over a model repository."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests import processes
from tests.platform import free_port
from triton_repo import serve


class Triton:
    """Started and stopped as an operator would, on a port of its own that it keeps. `converters`: the Python that has
    PyTorch and TensorFlow; without one it serves neither."""

    def __init__(self, repository: Path, log: Path, converters: str = "") -> None:
        self.repository = repository
        self.log = log
        self.converters = converters
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 60) -> "Triton":
        """Returns when it is ready."""
        self.repository.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, serve.__file__, "--repository", str(self.repository), "--port", str(self.port)]
        env = {**os.environ, "MERCAT_CONVERTERS": self.converters}
        with self.log.open("ab") as log:
            self._process = processes.start(
                argv, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env
            )
        deadline = time.monotonic() + timeout
        with grpc.insecure_channel(self.address, options=[("grpc.max_reconnect_backoff_ms", 100)]) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while time.monotonic() < deadline and self._process.poll() is None:
                with contextlib.suppress(grpc.RpcError):
                    if stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=1).ready:
                        return self
                time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"Triton did not start:\n{self.log.read_text(errors='replace')[-3000:]}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stubs(self) -> list[psutil.Process]:
        """The processes in which its Python backend runs models."""
        return psutil.Process(self.pid).children(recursive=True)

    def served(self, model: str) -> tuple[str, int]:
        """By which backend it serves a model, and how many rows of it it has answered. Raises grpc.RpcError for what it
        does not hold."""
        with grpc.insecure_channel(self.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            backend = stub.ModelConfig(service_pb2.ModelConfigRequest(name=model), timeout=5).config.backend
            statistics = stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name=model), timeout=5).model_stats
        return backend, sum(version.inference_count for version in statistics)

    def kill(self) -> None:
        """SIGKILL, to the server alone; its models' processes see that it is gone, and are waited for."""
        if self._process is None:
            return
        stubs = []
        with contextlib.suppress(psutil.NoSuchProcess):
            stubs = self.stubs()
        self._process.kill()
        self._process.wait()
        self._process = None
        for stub in psutil.wait_procs(stubs, timeout=10)[1]:
            stub.kill()
        serve.sweep(self.port)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self._process = None
        serve.sweep(self.port)


@contextlib.contextmanager
def running_triton(folder: Path, converters: str = "") -> Iterator[Triton]:
    """One that keeps its repository and its log in a folder. Skips the test where Triton cannot be had."""
    need_triton()
    triton = Triton(folder / "repository", folder / "triton.log", converters)
    try:
        yield triton.start()
    finally:
        triton.stop()


def need_triton() -> None:
    """Skips the test where Triton cannot be had; in CI it fails."""
    problem = serve.lacking()
    if not problem and not (serve.FOLDER / "pytriton").exists():
        problem = "Triton is not installed; `make tools` installs it"
    if problem:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(problem)
