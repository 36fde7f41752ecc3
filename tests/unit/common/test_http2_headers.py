"""Header blocks: what they say is what the package `hpack` says of them, with a dynamic table and without."""

import pytest
from hpack import Decoder, Encoder, NeverIndexedHeaderTuple
from hpack.exceptions import HPACKError
from hypothesis import given
from hypothesis import strategies as st

from services.common.rpc.http2.frames import ConnectionFailed
from services.common.rpc.http2.headers import MOST, Header, Headers

names = st.text("abcdefghijklmnopqrstuvwxyz-0123456789:", min_size=1, max_size=200)
values = st.text(st.characters(max_codepoint=0x10FFFF, exclude_categories=["Cs"]), max_size=300)
known = st.sampled_from([(":method", "POST"), (":path", "/"), ("accept-encoding", "gzip, deflate"), (":status", "404")])
lists = st.lists(known | st.tuples(names, values), max_size=12)


def encoder(size: int) -> Encoder:
    made = Encoder()
    if size != made.header_table_size:
        made.header_table_size = size
    return made


def marked(headers: list[Header], often: int) -> list[Header]:
    """Every so many of them is one that no table may hold."""
    return [NeverIndexedHeaderTuple(*h) if often and n % often == 0 else h for n, h in enumerate(headers)]


@given(st.lists(lists, min_size=1, max_size=5), st.sampled_from([0, 64, 4096]), st.booleans(), st.integers(0, 3))
def test_blocks_say_what_was_meant(blocks: list[list[Header]], size: int, huffman: bool, often: int) -> None:
    peer, headers = encoder(size), Headers()
    for block in blocks * 2:
        assert headers.decode(peer.encode(marked(block, often), huffman=huffman)) == block


@given(st.lists(lists, min_size=1, max_size=4), st.integers(0, 3))
def test_a_table_may_be_emptied_and_used_again(blocks: list[list[Header]], at: int) -> None:
    peer, headers = Encoder(), Headers()
    for number, block in enumerate(blocks * 3):
        if number % 4 == at:
            peer.header_table_size = 4096 if peer.header_table_size == 0 else 0
        assert headers.decode(peer.encode(block)) == block


@given(lists, st.data())
def test_a_block_that_is_cut_or_changed_is_refused_or_read_as_hpack_reads_it(block: list[Header], data) -> None:
    whole = encoder(0).encode(block)[1:]  # without the change of the size
    if whole:
        place = data.draw(st.integers(0, len(whole) - 1))
        changed = whole[:place] + data.draw(st.binary(max_size=4)) + whole[place + data.draw(st.integers(0, 3)) :]
    else:
        changed = data.draw(st.binary(max_size=20))
    if changed and changed[0] & 0xE0 == 0x20:
        return  # it changes the size once more
    reference = Decoder()
    reference.header_table_size = 0
    headers = Headers()
    headers.decode(b"\x20")
    try:
        expected = [(str(n), str(v)) for n, v in reference.decode(changed)]
    except (HPACKError, UnicodeDecodeError):
        with pytest.raises((HPACKError, ConnectionFailed)):
            headers.decode(changed)
        return
    if not all(name for name, _ in expected):
        with pytest.raises(ConnectionFailed):
            headers.decode(changed)
        return
    assert headers.decode(changed) == expected


@pytest.mark.parametrize("size", [0, 4096])
def test_headers_without_end_are_refused(size: int) -> None:
    peer, headers = encoder(size), Headers()
    some = [("a" * 20, "b" * (MOST // 4 - 52))] * 4
    assert headers.decode(peer.encode(some)) == some
    with pytest.raises((HPACKError, ConnectionFailed)):
        headers.decode(peer.encode([*some, ("x", "")]))


@pytest.mark.parametrize(
    "block",
    [b"\x80", b"\xff\x00", b"\xbe", b"\x0f\xff\xff\xff\xff\xff", b"\x00\x00\x01a", b"\x82\x20", b"\x00\x01\xff\x00"],
)
def test_what_is_no_block_is_refused(block: bytes) -> None:
    headers = Headers()
    headers.decode(b"\x20")
    with pytest.raises((HPACKError, ConnectionFailed)):
        headers.decode(block)
    with pytest.raises((HPACKError, ConnectionFailed)):  # and the second time as well
        headers.decode(block)
