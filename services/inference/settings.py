"""Settings of an inference worker."""

import os

from services.common.settings import Settings, option


class InferenceSettings(Settings):
    """What a worker may use of its machine."""

    threads: int = option(max(1, (os.cpu_count() or 2) // 2), "threads inside one engine run", ge=1)
    cores: str = option(
        "", "processor cores this worker stays on, separated by commas; empty: all", pattern=r"^(\d+(,\d+)*)?$"
    )
    load_reports: bool = option(False, "say in replies how busy this worker is (ORCA)")
    triton: str = option("", "host:port of Triton's gRPC, for models placed there; empty: none")
    runs: int = option(1, "engine runs at a time", ge=1)
    isolated: bool = option(True, "run models in a process beside the worker, which a graph may bring down alone")
    engine_memory_mb: int = option(32_768, "address space of that process", unit="MiB", ge=1024)
    memory_mb: int = option(4096, "models kept loaded, by their files' size", unit="MiB", ge=1)
    pinned: str = option(
        "", "models kept loaded whatever else is called: publisher/model[@version], separated by commas"
    )
    cache_mb: int = option(20_480, "model files kept on disk", unit="MiB", ge=1)
    text_slots: int = option(16, "answers that one decoder makes at a time", ge=1, le=256)
    text_memory_mb: int = option(2048, "keys and values of the answers that one decoder makes", unit="MiB", ge=16)
    text_prefix_mb: int = option(256, "keys and values kept of earlier prompts, by decoder", unit="MiB", ge=0)
    text_queue: int = option(256, "calls that may wait for one decoder", ge=1)
    response_cache_mb: int = option(64, "answers of deterministic models kept in memory", unit="MiB", ge=0)
    queue_rows: int = option(2048, "rows that may wait for one model", ge=1)
    job_slots: int = option(2, "jobs run at a time", ge=1)
    job_retention: float = option(86_400.0, "how long a job that has ended is kept", unit="s", gt=0)
    jobs_unfinished: int = option(100, "jobs an organisation may have that have not ended", ge=1)
    region: str = option("local", "written into usage records")
