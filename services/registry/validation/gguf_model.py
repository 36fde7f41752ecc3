"""Makes an ONNX decoder of a GGUF file."""

from pathlib import Path

from services.common.text_model import TEXT_KEY, TOKENIZER_KEY, TextConfig
from services.registry.validation import decoder_graph, gguf_file, llama, tokenizer


def convert(gguf_path: Path, onnx_path: Path) -> TextConfig:
    """Writes the decoder, tokenizer and configuration inside. Raises Refused for a file that cannot be read or holds
    what is not known here, OSError where the decoder cannot be written."""
    file = gguf_file.read(gguf_path)
    net = llama.network(file)
    config = tokenizer.config(file, net)
    metadata = {TOKENIZER_KEY: tokenizer.tokenizer(file, net).to_str(), TEXT_KEY: config.to_json()}
    decoder_graph.write(onnx_path, file, net, metadata)
    return config
