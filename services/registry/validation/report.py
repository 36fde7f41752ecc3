"""What goes into a validation and what comes out of it, as plain data that travels as JSON."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Limits:
    """What the child may use."""

    memory_bytes: int = 8 * 1024**3  # address space; ONNX Runtime reserves far more than it touches
    cpu_seconds: int = 90
    wall_seconds: float = 120.0
    file_bytes: int = 16 * 1024**2  # most artifacts have nothing to write; see `limits`
    artifact_bytes: int = 2 * 1024**3  # protobuf, and so ONNX, has none larger
    tensor_bytes: int = 4 * 1024**3  # of one initialiser or synthesised input
    nodes: int = 200_000
    depth: int = 16  # of graphs inside graphs


DATA, TOKENIZER = "external data", "tokenizer"


@dataclass(frozen=True)
class File:
    """A file that belongs to a model, under the name by which the model knows it; its role is one of those above."""

    path: str
    name: str
    role: str


@dataclass(frozen=True)
class Finding:
    """Why an artifact is refused. `code` is stable; `where` names the node, tensor or file."""

    code: str
    message: str
    where: str = ""

    def __post_init__(self) -> None:
        # Both may quote the artifact: kept short, and without characters that no database or terminal should see.
        object.__setattr__(self, "message", harmless(self.message, 500))
        object.__setattr__(self, "where", harmless(self.where, 200))


def harmless(text: str, most: int) -> str:
    """At most so many characters, and only such as a terminal may be shown."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:most])


class Refused(Exception):
    """Ends an examination: the artifact is refused for this."""

    def __init__(self, code: str, message: str, where: str = "") -> None:
        super().__init__(message)
        self.finding = Finding(code, message, where)


@dataclass(frozen=True)
class Tensor:
    """An input or output: KServe datatype, shape with -1 for any length, one name an axis, empty where it has none; and
    whether the graph says that it is an image."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    image: bool = False


@dataclass(frozen=True)
class Text:
    """What a text model is: `kind` as in `services.common.text_model`, tokens of its context and vocabulary, whether it
    has a chat template and that takes tools; how far a converted model is from its file's own weights."""

    kind: str
    context: int
    vocabulary: int
    chat: bool = False
    tools: bool = False
    architecture: str = ""
    divergence: float = 0.0
    agreement: float = 0.0


@dataclass(frozen=True)
class Scan:
    """What is in a graph: how often each operator occurs (`Gemm`, `com.microsoft.Attention`), graphs inside it and
    functions included; its weights, and the bytes that they take."""

    operators: tuple[tuple[str, int], ...] = ()
    parameters: int = 0
    weight_bytes: int = 0


@dataclass(frozen=True)
class Report:
    """What the child found. Without findings the artifact is fit to be served, or what the child `made` of it is.
    `framework`: what the content is, empty for what is nothing known. `form`: how it is written down, where it has to
    be converted; `difference`: of the largest element that its source and what was made of it give;
    `samples`: replies to a version's samples, as JSON, in their order."""

    findings: tuple[Finding, ...] = ()
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    load_us: int = 0
    run_us: int = 0
    memory_bytes: int = 0
    framework: str = ""
    text: Text | None = None
    made: bool = False
    form: str = ""
    difference: float = 0.0
    scan: Scan = Scan()
    samples: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Raises ValueError, KeyError or TypeError when the text is no report."""
        data = json.loads(text)
        inputs, outputs = (
            tuple(Tensor(t["name"], t["datatype"], tuple(t["shape"]), tuple(t["axes"]), t["image"]) for t in data[side])
            for side in ("inputs", "outputs")
        )
        findings = tuple(Finding(**f) for f in data["findings"])
        seen = data["scan"]
        said = Text(**data["text"]) if data["text"] is not None else None
        return cls(
            findings, inputs, outputs, int(data["load_us"]), int(data["run_us"]), int(data["memory_bytes"]),
            str(data["framework"]), said, bool(data["made"]), str(data["form"]), float(data["difference"]),
            Scan(
                tuple((harmless(str(name), 200), int(n)) for name, n in seen["operators"]),
                int(seen["parameters"]), int(seen["weight_bytes"]),
            ),
            tuple(map(str, data["samples"])),
        )  # fmt: skip
