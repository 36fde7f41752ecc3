"""What is measured of each model version. Where Triton has a metric of the same meaning it carries Triton's name,
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/metrics.html."""

from services.common import clock
from services.common.metrics import SIZES, Counter, ForeignCounter, Gauge, Histogram
from services.inference.text.news import Stats

_BY = ("model", "version")
_SUCCESS = ForeignCounter("nv_inference_request_success", "Calls answered", _BY)
_FAILURE = ForeignCounter("nv_inference_request_failure", "Runs that failed", _BY)
_ROWS = ForeignCounter("nv_inference_count", "Rows run", _BY)
_RUNS = ForeignCounter("nv_inference_exec_count", "Engine runs", _BY)
_HITS = ForeignCounter("nv_cache_num_hits_per_model", "Calls answered from the response cache", _BY)
_MISSES = ForeignCounter("nv_cache_num_misses_per_model", "Calls looked for in the response cache in vain", _BY)
_REFUSED = Counter("mercat_inference_refused", "Calls refused for a full queue or a close deadline", _BY)
_LATE = Counter("mercat_inference_late_starts", "Calls whose run began after their deadline", _BY)
_TOTAL = Histogram("mercat_inference_request_seconds", "From the call's arrival to its stored record", _BY)
_QUEUE = Histogram("mercat_inference_queue_seconds", "What a call waited for its run", _BY)
_COMPUTE = Histogram("mercat_inference_compute_seconds", "What a run took in the engine", _BY)
_BATCH = Histogram("mercat_inference_batch_rows", "Rows of a run", _BY, bounds=SIZES)
_COLD_START = Gauge("mercat_model_cold_start_seconds", "What its last load took, with its warm-up", _BY)
RESIDENT = Gauge("mercat_models_resident", "Models in memory", ())
RESIDENT_BYTES = Gauge("mercat_models_resident_bytes", "What the models in memory take, by their files' size", ())
EVICTIONS = Counter("mercat_model_evictions", "Models unloaded to make room", ())
LOAD_SECONDS = Histogram("mercat_model_load_seconds", "From the first call for a model to its being ready", ())
_TEXT_RUNNING = Gauge("mercat_text_running", "Calls of a text model that are being answered", _BY)
_TEXT_WAITING = Gauge("mercat_text_waiting", "Calls of a text model that wait for a place", _BY)
_TEXT_TOKENS = Counter("mercat_text_tokens", "Output tokens made", _BY)
_TEXT_PROMPT = Counter("mercat_text_prompt_tokens", "Tokens of prompts that were run", _BY)
_TEXT_CACHED = Counter("mercat_text_cached_prompt_tokens", "Tokens of prompts that were known from earlier ones", _BY)
_TEXT_STEP = Histogram("mercat_text_step_seconds", "What the next token of all answers together took", _BY)


class Figures:
    """One version's, counted since this worker started."""

    def __init__(self, model: str, version: str) -> None:
        by = (model, version)
        self.success, self.failure = _SUCCESS.labels(*by), _FAILURE.labels(*by)
        self.rows, self.runs = _ROWS.labels(*by), _RUNS.labels(*by)
        self.hits, self.misses = _HITS.labels(*by), _MISSES.labels(*by)
        self._refused, self.late = _REFUSED.labels(*by), _LATE.labels(*by)
        self.total, self.queue = _TOTAL.labels(*by), _QUEUE.labels(*by)
        self.compute, self._batch = _COMPUTE.labels(*by), _BATCH.labels(*by)
        self.cold_start = _COLD_START.labels(*by)
        self.failure_seconds = 0.0
        self.last_ms = 0

    def answered(self, waited: float) -> None:
        """A call's rows came out of a run for which it waited so many seconds."""
        self.success.value += 1
        self.queue.observe(waited)

    def ran(self, rows: int, took: float) -> None:
        self.rows.value += rows
        self.runs.value += 1
        self.compute.observe(took)
        self._batch.observe(rows)
        self.last_ms = clock.time_ns() // 1_000_000

    def failed(self, took: float) -> None:
        self.failure.value += 1
        self.failure_seconds += took

    def refused(self) -> None:
        self._refused.value += 1


class TextFigures:
    """One text model version's, as its process counts them."""

    def __init__(self, model: str, version: str) -> None:
        by = (model, version)
        self._running, self._waiting = _TEXT_RUNNING.labels(*by), _TEXT_WAITING.labels(*by)
        self._tokens, self._prompt = _TEXT_TOKENS.labels(*by), _TEXT_PROMPT.labels(*by)
        self._cached, self._step = _TEXT_CACHED.labels(*by), _TEXT_STEP.labels(*by)

    def told(self, now: Stats, before: Stats) -> None:
        """What one process counted, and what it had when it was last heard of."""
        self._running.value, self._waiting.value = now.running, now.waiting
        self._tokens.value += now.tokens - before.tokens
        self._prompt.value += now.prompt_tokens - before.prompt_tokens
        self._cached.value += now.cached_tokens - before.cached_tokens
        if steps := now.steps - before.steps:
            self._step.observe((now.step_seconds - before.step_seconds) / steps)

    def gone(self) -> None:
        """Its process ended."""
        self._running.value = self._waiting.value = 0
