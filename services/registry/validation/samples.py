"""A child of its own: `python -m services.registry.validation.samples MODEL TASK LIMITS` runs a version's samples on
what is served of it, as calls of it are run. Writes one report, as JSON, to standard output, and the sample that it is
at to the file AT, for its parent to know which one it was should it not come to its end."""

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from services.registry.validation.answering import answer
from services.registry.validation.report import Finding, Limits, Refused, Report, Tensor

AT = "at"


@dataclass(frozen=True)
class Task:
    """Requests as JSON, and what each is called; what the model takes and gives, rows of a call (0: any number), and
    tokens of a text call."""

    requests: tuple[str, ...]
    names: tuple[str, ...]
    most_rows: int
    context: int
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Task":
        data = json.loads(text)
        inputs, outputs = (
            tuple(Tensor(t["name"], t["datatype"], tuple(t["shape"]), tuple(t["axes"]), t["image"]) for t in data[side])
            for side in ("inputs", "outputs")
        )
        requests, names = tuple(data["requests"]), tuple(data["names"])
        return cls(requests, names, data["most_rows"], data["context"], inputs, outputs)


def _work(arguments: list[str], limits: Limits) -> Report:
    from services.registry.validation.confine import start_nothing
    from services.registry.validation.sample_calls import open_model  # with all its libraries

    model, given = map(Path, arguments)
    task = Task.from_json(given.read_text())
    findings, replies = list[Finding](), list[str]()
    try:
        call = open_model(model, task)
        start_nothing()
        for i, (text, name) in enumerate(zip(task.requests, task.names, strict=True)):
            with contextlib.suppress(OSError):
                Path(AT).write_text(str(i))
            try:
                replies.append(call(text))
            except Refused as e:
                findings.append(Finding(e.finding.code, e.finding.message, name))
    except Refused as e:
        findings.append(e.finding)
    return Report(findings=tuple(findings), samples=() if findings else tuple(replies))


if __name__ == "__main__":
    answer(_work)
