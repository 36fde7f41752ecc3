"""What names a person, by which their last traces are found. Pure."""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Marks:
    """`places`: network addresses and user agents they came with."""

    email: str
    handles: list[str]
    names: list[str]
    places: list[list[str]]

    def dump(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def load(cls, data: bytes) -> "Marks":
        return cls(**json.loads(data))

    def in_json(self) -> list[str]:
        """What stands in a JSON text in lower case that names the person: the address anywhere, their handles and
        names as whole strings, and models by theirs."""
        names = [*self.handles, *(name for name in self.names if name)]
        return [
            self.email.lower(), *(_quoted(name).lower() for name in names),
            *(f'"{handle.lower()}/' for handle in self.handles),
        ]  # fmt: skip

    def in_bytes(self, *ids: str) -> re.Pattern[bytes]:
        """The same in a serialized message, whose strings begin with their lengths, or stand in a JSON text; and ids
        anywhere."""
        wholes = [text.encode() for text in (*self.handles, *self.names) if text]
        patterns = [
            *(re.escape(text.encode()) for text in (self.email, self.email.lower(), *ids)),
            *(re.escape(_length(text) + text) for text in wholes),
            *(re.escape(_quoted(text.decode()).encode()) for text in wholes),
            *(rb"(?<![0-9A-Za-z_-])" + re.escape(handle.encode()) + rb"/" for handle in self.handles),
        ]  # fmt: skip
        return re.compile(b"|".join(patterns))


def _length(text: bytes) -> bytes:
    """As protobuf writes it: seven bits an octet, the lowest first."""
    left, octets = len(text), bytearray()
    while left > 0x7F:
        octets.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*octets, left])


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
