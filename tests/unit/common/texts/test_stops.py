"""What is told of an answer: whole characters, and nothing that belongs to a stop string."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from services.common.texts.stops import Stops, Words
from tests.decoder_graph import tokenizer

WORDS = tokenizer()


def reference(text: str, stops: list[str]) -> tuple[str, bool]:
    """Letter by letter: the text before the first stop string that is whole, the longest of those so at once."""
    for end in range(1, len(text) + 1):
        ending = [s for s in stops if text[:end].endswith(s)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@given(
    st.lists(st.text("abc", max_size=4), max_size=12), st.lists(st.text("abc", min_size=1, max_size=4), max_size=4)
)  # fmt: skip
def test_no_part_of_a_stop_string_is_told(pieces, stops):
    expected, stopped = reference("".join(pieces), stops)
    watch = Stops(stops)
    told, met = "", False
    for piece in pieces:
        text, met = watch.feed(piece)
        told += text
        assert expected.startswith(told)
        if met:
            break
    assert met == stopped
    if not met:
        told += watch.rest()
    assert told == expected


def test_what_cannot_become_a_stop_string_is_told_at_once():
    watch = Stops(["END"])
    assert watch.feed("some E") == ("some ", False)
    assert watch.feed("N") == ("", False)
    assert watch.feed("T") == ("ENT", False)
    assert watch.feed("EEND more") == ("E", True)


@given(st.text())
def test_text_comes_back_in_whole_characters(text):
    words = Words(WORDS, [])
    pieces = [words.add(token) for token in WORDS.encode(text).ids]
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece or "\ufffd" in text for piece in pieces)


@given(st.lists(st.integers(0, WORDS.get_vocab_size() - 1), max_size=60), st.integers(0, 20))
def test_any_tokens_come_out_as_the_whole_would(tokens, cut):
    words = Words(WORDS, [])
    told = "".join(words.add(token) for token in tokens)
    whole = WORDS.decode(tokens, skip_special_tokens=True)
    assert whole.startswith(told)
    assert set(whole[len(told) :]) <= {"\ufffd"}


def test_a_character_that_the_prompt_began_is_told_whole():
    tokens = WORDS.encode("a😀").ids
    words = Words(WORDS, tokens[:-2])
    assert [words.add(token) for token in tokens[-2:]] == ["", "😀"]


@pytest.mark.parametrize(("prompt", "first"), [([1], " world"), ([], "world")])
def test_the_first_word_is_written_as_after_its_prompt(prompt, first):
    spaced = Tokenizer(models.BPE(vocab={"<unk>": 0, "▁hello": 1, "▁world": 2}, merges=[], unk_token="<unk>"))
    spaced.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    assert Words(spaced, prompt).add(2) == first
