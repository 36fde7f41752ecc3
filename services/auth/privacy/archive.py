"""A zip archive as it is made, of which never more than a piece is in memory."""

import io
import json
import zipfile
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from typing import Any

_PIECE = 256 * 1024  # bytes


class _Sink(io.RawIOBase):
    """What was written since it was last taken."""

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._held += data
        return len(data)

    def take(self) -> bytes:
        held, self._held = bytes(self._held), bytearray()
        return held

    def __len__(self) -> int:
        return len(self._held)


async def pack(
    manifest: Mapping[str, Any], files: Iterable[tuple[str, AsyncIterator[bytes]]], at: datetime
) -> AsyncIterator[bytes]:
    """The bytes of an archive of `manifest.json` and files by their names, in pieces."""
    sink, date = _Sink(), at.timetuple()[:6]
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_info("manifest.json", date), json.dumps(manifest, indent=2))
        for name, pieces in files:
            with archive.open(_info(name, date), "w", force_zip64=True) as entry:
                async for piece in pieces:
                    entry.write(piece)
                    if len(sink) >= _PIECE:
                        yield sink.take()
    yield sink.take()


def _info(name: str, date: tuple[int, ...]) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date)  # type: ignore[arg-type]
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o600 << 16
    return info
