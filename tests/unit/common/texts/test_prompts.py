"""Prompts as tokens, and templates that mean no good."""

import json

import pytest

from services.common.errors import EngineFailed
from services.common.text_model import DECODER, TextConfig
from services.common.texts import BadPrompt, NoChatTemplate, Prompt, PromptTooLong
from services.common.texts.prompts import Prompts
from tests.decoder_graph import TEMPLATE, tokenizer

WORDS = tokenizer()
HELLO = ({"role": "user", "content": "hi"},)


def prompts(template: str = TEMPLATE, **facts) -> Prompts:
    config = TextConfig(
        DECODER, 512, WORDS.get_vocab_size(), bos_token="<|im_start|>", eos_token="<|im_end|>",
        chat_template=template, **facts,
    )  # fmt: skip
    return Prompts(config, WORDS, patience=1.0)  # a collection of garbage alone may take 0.2 s


def written(template: str, messages=HELLO, tools=()) -> str:
    ids = prompts(template).tokens(Prompt(messages=messages, tools=tools))
    return WORDS.decode(ids, skip_special_tokens=False)


def test_a_conversation_is_written_out_and_answered():
    assert written(TEMPLATE) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_a_template_has_what_it_has_elsewhere():
    template = """\
{% for m in messages %}
    {%- if m.role == 'system' %}{% continue %}{% endif %}
{{ bos_token }}{{ m.content }}{{ eos_token }}
{% endfor %}
{% if tools is not none %}{{ tools | tojson }}{% endif %}
{% set ns = namespace(n=1) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}
"""
    tool = {"type": "function", "function": {"name": "wetter", "description": "für <Ä>"}}
    text = written(template, [{"role": "system", "content": "no"}, *HELLO], [tool])
    assert text.split("\n")[:2] == ["<|im_start|>hi<|im_end|>", json.dumps([tool], ensure_ascii=False) + "2"]
    assert "2" in written("{{ strftime_now('%Y') }}")
    assert written("{% if tools is none %}none{% endif %}") == "none"


def test_a_template_may_refuse():
    with pytest.raises(BadPrompt, match="roles must alternate"):
        written("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(
    "template",
    [
        pytest.param("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", id="loops"),
        pytest.param("{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}", id="recursion"),
        pytest.param("{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}", id="writes"),
        pytest.param("{{ messages.__class__.__mro__[1].__subclasses__() }}", id="escape"),
        pytest.param("{{ messages[7].content.nothing }}", id="undefined"),
        pytest.param("{{ messages.append(1) }}", id="changes"),
        pytest.param("{{ 1 / 0 }}", id="divides"),
        pytest.param("{% for a in range(10 ** 9) %}{% endfor %}", id="range"),
    ],
)
def test_a_template_that_does_wrong_is_ended(template):
    with pytest.raises(BadPrompt):
        written(template)


def test_a_template_that_is_none_fails_to_load():
    with pytest.raises(EngineFailed, match="chat template"):
        prompts("{% for %}")


def test_no_template_no_chat():
    with pytest.raises(NoChatTemplate):
        prompts("").tokens(Prompt(messages=HELLO))


def test_special_tokens_in_text_are_read_as_such():
    assert prompts().tokens(Prompt(text="<|im_start|>a")) == [1, *WORDS.encode("a").ids]


def test_a_model_that_wants_a_beginning_gets_one():
    wants = prompts(add_bos=True)
    assert wants.tokens(Prompt(text="a"))[0] == 1
    assert wants.tokens(Prompt(text="<|im_start|>a")) == prompts().tokens(Prompt(text="<|im_start|>a"))
    assert wants.tokens(Prompt(text="")) == [1]
    assert wants.tokens(Prompt(messages=HELLO)) == prompts().tokens(Prompt(messages=HELLO))


def test_prompts_that_are_none():
    for bad in (Prompt(text=""), Prompt(tokens=[]), Prompt(tokens=[-1]), Prompt(tokens=[WORDS.get_vocab_size()])):
        with pytest.raises(BadPrompt):
            prompts().tokens(bad)
    assert prompts().tokens(Prompt(tokens=[3, 0])) == [3, 0]


def test_what_cannot_fit_is_not_read():
    with pytest.raises(PromptTooLong):
        prompts().tokens(Prompt(text="x" * 100_000), 100)
    assert len(prompts().tokens(Prompt(text="x" * 101), 100)) == 101  # not certain before it is read
