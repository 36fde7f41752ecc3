"""What is measured of text calls."""

from services.common.metrics import Counter, Gauge

_BY = ("model", "version")
_INPUT = Counter("mercat_text_input_tokens", "Tokens of prompts whose calls were charged", _BY)
_CACHED = Counter("mercat_text_cached_input_tokens", "Of them those whose state was known from earlier calls", _BY)
_OUTPUT = Counter("mercat_text_output_tokens", "Tokens delivered", _BY)
STREAMS = Gauge("mercat_text_streams", "Streams open", ())


class Counts:
    """One version's."""

    def __init__(self, model: str, version: str) -> None:
        by = (model, version)
        self._input, self._cached, self._output = _INPUT.labels(*by), _CACHED.labels(*by), _OUTPUT.labels(*by)

    def count(self, input_tokens: int, cached: int, output_tokens: int) -> None:
        self._input.value += input_tokens
        self._cached.value += cached
        self._output.value += output_tokens
