"""HTTP/2 frames, RFC 9113, and gRPC's form of messages and trailers inside them,
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. Pure: bytes in, bytes out."""

import base64
import zlib
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
# Error codes, section 7.
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 5, 6, 7, 8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11
# Settings, section 6.5.2.
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 1, 3, 4, 5, 6
MOST = 2**31 - 1  # octets of a window
FRAME = 16_384  # octets of a frame's payload: the default, and all that is taken here

_UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "S": 1.0, "M": 60.0, "H": 3600.0}


class ConnectionFailed(Exception):
    """The peer broke the protocol: the connection ends with this error code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def head(kind: int, flags: int, stream: int, size: int) -> bytes:
    """What goes before a payload of so many octets."""
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return head(kind, flags, stream, len(payload)) + payload


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(k.to_bytes(2, "big") + v.to_bytes(4, "big") for k, v in values))


def literal(name: bytes, value: bytes) -> bytes:
    """A header as HPACK's literal without indexing and without Huffman coding (RFC 7541, 6.2.2): it says the same at
    any time, so it can be made once."""
    return b"\x00" + _length(len(name)) + name + _length(len(value)) + value


def _length(value: int) -> bytes:
    """An integer with a prefix of seven bits, RFC 7541, 5.1."""
    if value < 127:
        return bytes((value,))
    out = bytearray((127,))
    value -= 127
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    out.append(value)
    return bytes(out)


# `:status: 200` is entry 8 of the static table.
RESPONSE = b"\x88" + literal(b"content-type", b"application/grpc") + literal(b"grpc-accept-encoding", b"identity")
# Of trailers, over REST too.
_SAID = ("mercat-", "ratelimit", "retry-after", "idempotent-replayed", "deprecation", "sunset", "link")
_STATUS = {code: literal(b"grpc-status", str(code).encode()) for code in range(17)}


def trailers(status: int, message: str, metadata: Iterable[tuple[str, str | bytes]]) -> bytes:
    """The header block that ends a call."""
    parts = [_STATUS[status]]
    if message:
        parts.append(literal(b"grpc-message", quote(message, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()))
    for name, value in metadata:
        parts.append(_trailer(name, value) if name.endswith(("-id", "-bin")) else _frequent(name, value))
    return b"".join(parts)


def response(trailing: Iterable[tuple[str, str | bytes]]) -> bytes:
    """The header block that begins the reply to a REST call, or a stream: HTTP says at the beginning what gRPC says at
    the end."""
    said = (_trailer(name, value) for name, value in trailing if name.startswith(_SAID))
    return RESPONSE + b"".join(said)


def _trailer(name: str, value: str | bytes) -> bytes:
    if name.endswith("-bin"):
        data = value.encode() if isinstance(value, str) else value
        return literal(name.encode(), base64.b64encode(data).rstrip(b"="))
    return literal(name.encode(), value.encode("ascii", "replace") if isinstance(value, str) else value)


_frequent = lru_cache(1024)(_trailer)  # what is no id is often the same in many calls


def message(payload: bytes) -> bytes:
    """A gRPC message, length-prefixed, not compressed."""
    return b"\x00" + len(payload).to_bytes(4, "big") + payload


def binary(value: str) -> bytes:
    """The value of a `-bin` header. Raises ValueError."""
    return base64.b64decode(value.partition(",")[0] + "=" * (-len(value) % 4))


def timeout(value: str) -> float:
    """Seconds of a `grpc-timeout`. Raises ValueError."""
    if not 2 <= len(value) <= 9 or value[-1] not in _UNITS or not value[:-1].isdigit():
        raise ValueError(f"not a grpc-timeout: {value[:20]}")
    return int(value[:-1]) * _UNITS[value[-1]]


def inflate(data: bytes, encoding: str, most: int) -> bytes:
    """A compressed message. Raises ValueError when it is none, or larger than `most` when unpacked."""
    if encoding not in ("gzip", "deflate"):
        raise ValueError(f"grpc-encoding {encoding[:20] or 'identity'} cannot be unpacked")
    unpacker = zlib.decompressobj(31 if encoding == "gzip" else 15)
    try:
        unpacked = unpacker.decompress(data, most)
    except zlib.error as e:
        raise ValueError(f"the message is no {encoding}") from e
    if unpacker.unconsumed_tail:
        raise ValueError(f"the message unpacks to more than {most} bytes")
    return unpacked
