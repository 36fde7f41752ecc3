"""Runs models: the hot path of a call, the engines behind it, and the KServe v2 contract beside Mercat's own.
What a call may cost and where the money comes from is decided here; the books themselves are billing's."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.common.service import Deps, Service


async def build(deps: "Deps") -> "Service":
    # Here, since the processes in which models run import a part of this package only.
    import os
    from datetime import timedelta

    from mercat.inference.v1 import allowances_pb2_grpc, encoding_pb2_grpc, inference_pb2_grpc, text_pb2_grpc

    from services.common.events import USAGE_SUBJECT
    from services.common.personal.tasks import PersonTasks
    from services.common.rpc.pipeline import Guard
    from services.common.rpc.server import Server
    from services.common.service import Service
    from services.common.texts.limits import Limits
    from services.inference.allowance import Recorded
    from services.inference.artifacts import Artifacts
    from services.inference.cache import ResponseCache
    from services.inference.crashes import Crashes
    from services.inference.deployments import Deployments
    from services.inference.engines import Engine
    from services.inference.engines.isolated import IsolatedEngine
    from services.inference.engines.ort import OrtEngine
    from services.inference.engines.placed import PlacedEngine
    from services.inference.engines.triton import TritonEngine
    from services.inference.hotpath import HotPath
    from services.inference.job_objects import JobObjects
    from services.inference.job_run import Tools
    from services.inference.job_store import JobStore
    from services.inference.jobs import Jobs
    from services.inference.kserve import KServe
    from services.inference.load import LoadReports
    from services.inference.metering import Meter
    from services.inference.owners import Owners
    from services.inference.personal import InferenceData
    from services.inference.positions import Positions
    from services.inference.publisher import Publisher
    from services.inference.quota_notices import QuotaNotices
    from services.inference.quotes import Quotes
    from services.inference.residency import Residency
    from services.inference.service import InferenceServicer
    from services.inference.service_allowances import AllowanceServicer
    from services.inference.service_jobs import JobServicer
    from services.inference.service_text import EncodingServicer, TextServicer
    from services.inference.settings import InferenceSettings
    from services.inference.slots import Slots
    from services.inference.text.decoders import Decoders
    from services.inference.text.embedding import Embedder
    from services.inference.text.serving import TextPath
    from services.inference.wallets import Wallets

    settings = deps.settings
    assert isinstance(settings, InferenceSettings)
    if settings.cores:
        os.sched_setaffinity(0, map(int, settings.cores.split(",")))  # the engine's process inherits it
    files = settings.home / "cache" / "models"
    artifacts = Artifacts(deps.control, files, settings.cache_mb << 20, settings.repository)
    crashed = Crashes(deps.control, deps.worker_id).report
    limits = Limits(
        threads=settings.threads, slots=settings.text_slots, context=settings.text_context,
        memory_mb=settings.text_memory_mb, prefix_mb=settings.text_prefix_mb, waiting=settings.text_queue,
    )  # fmt: skip
    decoders = Decoders(artifacts, limits, settings.engine_memory_mb, crashed)
    embedded: Engine
    if settings.isolated:
        isolated = IsolatedEngine(
            artifacts, threads=settings.threads, runs=settings.runs, memory_mib=settings.engine_memory_mb,
            crashed=crashed, decoders=decoders,
        )  # fmt: skip
        await isolated.process()  # a worker that takes another's place has its engine ready
        embedded = isolated
    else:
        embedded = OrtEngine(artifacts, threads=settings.threads, runs=settings.runs, decoders=decoders)
    engine = PlacedEngine(embedded, TritonEngine(settings.triton, decoders.elsewhere) if settings.triton else None)
    deployments = Deployments(deps.control, Residency(engine, settings), deps.clock)
    wallets = Wallets(deps.control, deps.worker_id)
    publisher = Publisher(deps.events, USAGE_SUBJECT)
    meter = Meter(publisher, deps.worker_id)
    cache = ResponseCache(deps.redis, settings.response_cache_mb << 20)
    reports = LoadReports() if settings.load_reports else None
    slots = Slots(deps.redis, deps.worker_id, settings.limit_scale, settings.limit_share)
    notices = QuotaNotices(deps.database)
    deps.limiter.count, deps.limiter.reached = Recorded(deps.control).count, notices.reached
    positions = Positions(deps.redis, deps.control)
    path = HotPath(
        deployments, wallets, meter, deps.limiter, slots, cache, deps.clock, settings.region, positions, reports
    )
    await deployments.listen(deps.events)
    await wallets.listen(deps.events)
    kserve, inference = KServe(path, deployments), InferenceServicer(path, Quotes(path, deps.clock))
    embedder = Embedder(path, artifacts.find)
    text = TextServicer(TextPath(path), embedder)
    tools = Tools(
        deps.database, JobStore(), JobObjects(deps.control), Owners(deps.control), deps.clock, inference.predict_behind,
        timedelta(seconds=settings.job_retention),
    )  # fmt: skip
    jobs = Jobs(tools, deps.events, settings.job_slots)
    await jobs.listen()

    def add_kserve(server: Server, guard: Guard) -> None:
        server.add_raw("inference.GRPCInferenceService", kserve.handlers(guard))

    async def close() -> None:
        await jobs.stop()
        await path.charges.flush()
        await meter.flush()
        await wallets.close()
        await deployments.close()

    return Service(
        "inference",
        registrations=[
            (inference_pb2_grpc.add_InferenceServiceServicer_to_server, inference),
            (text_pb2_grpc.add_TextServiceServicer_to_server, text),
            (encoding_pb2_grpc.add_EncodingServiceServicer_to_server, EncodingServicer(embedder)),
            (allowances_pb2_grpc.add_AllowanceServiceServicer_to_server, AllowanceServicer(path)),
            (
                inference_pb2_grpc.add_JobServiceServicer_to_server,
                JobServicer(tools, deps.events, settings.jobs_unfinished),
            ),
        ],
        raw=[add_kserve],
        tasks=[
            publisher.keep,
            wallets.keep,
            slots.keep,
            notices.keep,
            jobs.work,
            jobs.look,
            *([reports.keep] if reports else []),
            *PersonTasks(deps, "inference", InferenceData(deps.database, tools.objects)).tasks,
        ],
        close=close,
    )
