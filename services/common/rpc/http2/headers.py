"""Header blocks, HPACK, RFC 7541. This server asks its peers for a dynamic table of no entries, so that a text is the
same octets in any block, and what most of them mean is known from calls before. That takes a third of the time of
decoding a block anew, as must be done with a table: deadlines make every block another one. Until a peer says that its
table is empty the package `hpack` decodes."""

from functools import lru_cache

from hpack import Decoder
from hpack.exceptions import HPACKDecodingError, InvalidTableIndexError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from services.common.rpc.http2 import frames as f

Header = tuple[str, str]
MOST = 64 * 1024  # octets of the headers of one request, each counted with 32 more (RFC 9113, 6.5.2)
_KNOWN, _LONGEST = 8192, 1024  # texts remembered for all connections, and octets of one
_BLOCKS = 256  # blocks remembered by a connection
_STATIC: list[Header] = [(name.decode(), value.decode()) for name, value in HeaderTable.STATIC_TABLE]


class Headers:
    """Decodes the blocks of one connection, in order."""

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=MOST)
        self._blocks: dict[bytes, list[Header]] = {}

    def decode(self, block: bytes) -> list[Header]:
        """Raises HPACKError, ConnectionFailed."""
        with_table = self._decoder.header_table_size or (block and block[0] & 0xE0 == 0x20)  # or its size changes
        if not with_table and (known := self._blocks.get(block)) is not None:
            return known
        try:
            if with_table:
                headers = [(str(name), str(value)) for name, value in self._decoder.decode(block)]
            else:
                headers = _stateless(block)
        except IndexError:
            raise HPACKDecodingError("a block that ends within a field") from None
        except UnicodeDecodeError as e:
            raise f.ConnectionFailed(f.PROTOCOL_ERROR, "headers that are not UTF-8") from e
        if not all(name for name, _ in headers):
            raise f.ConnectionFailed(f.PROTOCOL_ERROR, "a header without a name")
        if not with_table:
            if len(self._blocks) >= _BLOCKS:
                self._blocks.clear()
            self._blocks[block] = headers
        return headers


def _stateless(block: bytes) -> list[Header]:
    """The fields of a block, RFC 7541, 6, without a dynamic table. Raises IndexError when it ends too early."""
    headers: list[Header] = []
    at, end, size = 0, len(block), 0
    while at < end:
        first = block[at]
        if first & 0x80:
            at += 1
            header = _static(first & 0x7F)  # more than the octet holds is no entry
        else:
            if first & 0xE0 == 0x20:
                raise HPACKDecodingError("the size of the table changes within a block")
            mask = 0x3F if first & 0x40 else 0x0F
            if first & mask:
                index, at = _integer(block, at, mask)
                name = _static(index)[0]
            else:
                name, at = _string(block, at + 1)
            value, at = _string(block, at)
            header = (name, value)
        size += len(header[0]) + len(header[1]) + 32
        if size > MOST:
            raise f.ConnectionFailed(f.ENHANCE_YOUR_CALM, "headers without end")
        headers.append(header)
    return headers


def _static(index: int) -> Header:
    if not 1 <= index <= len(_STATIC):
        raise InvalidTableIndexError(f"there is no entry {index}")
    return _STATIC[index - 1]


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """An integer whose first octet has these bits for it, RFC 7541, 5.1, and where it ends."""
    value, shift = block[at] & mask, 0
    at += 1
    if value == mask:
        while True:
            octet = block[at]
            at += 1
            value += (octet & 0x7F) << shift
            shift += 7
            if octet < 0x80:
                break
            if shift > 28:
                raise HPACKDecodingError("an integer without end")
    return value, at


def _string(block: bytes, at: int) -> tuple[str, int]:
    """A string, RFC 7541, 5.2, and where it ends."""
    first, start = block[at], at + 1
    length = first & 0x7F
    if length == 0x7F:
        length, start = _integer(block, at, 0x7F)
    end = start + length
    if end > len(block):
        raise IndexError
    return (_known if length <= _LONGEST else _text)(block[start:end], first >= 0x80), end


def _text(data: bytes, coded: bool) -> str:
    return (decode_huffman(data) if coded else data).decode()


_known = lru_cache(_KNOWN)(_text)
