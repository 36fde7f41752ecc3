"""`mercat models download`: gets a version's files back, going on where a download was broken off."""

import time
from pathlib import Path
from typing import Annotated

import typer
from mercat.registry.v1 import registry_pb2
from mercat.storage.v1 import storage_pb2
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from services.cli import output, verifying
from services.cli.client import Client, Unreachable
from services.cli.command import Session
from services.cli.reviewing import Reference
from services.cli.session import Refusal
from services.cli.upload import digest_of
from services.common.errors import Unavailable

_TRIES = 5


def download(
    session: Session,
    version: Reference,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="Where to; there must be nothing yet.")],
    file: Annotated[str, typer.Option(metavar="NAME", help="One of its files, by name; else its artifact.")] = "",
) -> None:
    """Gets back what you pushed as a version: its artifact, or a file beside it.

    Examples:

      mercat models download adder@1.0.0 --to adder.onnx

      mercat models download adder@1.0.0 --file adder.onnx.data --to adder.onnx.data
    """
    if to.exists():
        raise Refusal(f"{to} is there already.")
    model, number = session.version_of(version)
    request = registry_pb2.GetVersionRequest(model=model, version=number)
    found = session.client.registry.GetVersion(request).version
    digest, size = found.digest, found.size_bytes
    if file:
        known = next((f for f in found.files if f.name == file), None)
        if known is None:
            names = ", ".join(f.name for f in found.files) or "none"
            raise Refusal(f"{version} has no file {file}; it has {names}.")
        digest, size = known.digest, known.size_bytes
    part = to.with_name(f"{to.name}.part")
    _fetch(session.client, digest, size, part, silent=session.json or not output.console(error=True).is_terminal)
    if digest_of(part) != digest:
        part.unlink()
        raise Refusal("what arrived is not the artifact; download it again.")
    part.replace(to)
    signed = [] if file else [attestation.envelope for attestation in found.attestations]
    if signed:
        verifying.beside(to).write_text("".join(f"{envelope}\n" for envelope in signed))
    if session.json:
        output.say_json({"digest": digest, "sizeBytes": str(size), "file": str(to)})
    else:
        output.say(f"{to} is {output.size(size)}, {digest}.")
        if signed:
            output.say(f"What its publisher signed is beside it; see `mercat models verify {to}`.")


def _fetch(client: Client, digest: str, size: int, part: Path, *, silent: bool) -> None:
    """Adds to a file what it lacks. Raises what DownloadArtifact does, and Unreachable."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        part.open("ab") as out,
        Progress(*columns, console=output.console(error=True), disable=silent, transient=True) as bars,
    ):
        bar = bars.add_task(f"downloading {part.stem}", total=size)
        tries = 0
        while (held := out.tell()) < size:
            bars.update(bar, completed=held)
            request = storage_pb2.DownloadArtifactRequest(digest=digest, offset=held)
            try:
                for piece in client.storage.DownloadArtifact(request, timeout=3600):
                    out.write(piece.chunk.data)
                    bars.update(bar, completed=out.tell())
            except (Unavailable, Unreachable):
                tries += 1
                if tries == _TRIES:
                    raise
                time.sleep(min(0.3 * 2**tries, 5.0))
