# ruff: noqa: E501 - samples are as they were found
"""Cards as HTML: what a browser would run, load or send is not in it, whatever the card holds."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry.cards.rendering import MOST, rendered

# https://cheatsheetseries.owasp.org/cheatsheets/XSS_Filter_Evasion_Cheat_Sheet.html, and forms that are Markdown's own.
HOSTILE = [
    "<SCRIPT SRC=https://cdn.example/xss.js></SCRIPT>",
    "<script>alert(1)</script>",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "javascript:/*--></title></style></textarea></script></xmp><svg/onload='+/\"`/+/onmouseover=1/+/[*/[]/+alert(42);//'>",
    '<IMG SRC="javascript:alert(1);">',
    "<IMG SRC=javascript:alert(1)>",
    "<IMG SRC=JaVaScRiPt:alert(1)>",
    "<IMG SRC=`javascript:alert(\"'XSS'\")`>",
    '<a onmouseover="alert(document.cookie)">x</a>',
    '<IMG """><SCRIPT>alert("XSS")</SCRIPT>"\\>',
    "<IMG SRC=# onmouseover=\"alert('xxs')\">",
    '<IMG SRC=/ onerror="alert(String.fromCharCode(88,83,83))"></img>',
    '<img src=https://a.example/x onerror="&#0000106&#0000097&#0000118&#0000097">',
    '<a href="&#106;&#97;&#118;&#97;&#115;&#99;&#114;&#105;&#112;&#116;&#58;alert(1)">x</a>',
    '<a href="&#x6A&#x61&#x76&#x61&#x73&#x63&#x72&#x69&#x70&#x74&#x3A&#x61">x</a>',
    '<a href="jav\tascript:alert(1)">x</a>',
    '<a href="jav&#x0A;ascript:alert(1)">x</a>',
    '<a href=" &#14;  javascript:alert(1)">x</a>',
    '<SCRIPT/XSS SRC="https://xss.example/xss.js"></SCRIPT>',
    '<BODY onload!#$%&()*~+-_.,:;?@[/|\\]^`=alert("XSS")>',
    '<<SCRIPT>alert("XSS");//\\<</SCRIPT>',
    "<SCRIPT SRC=//xss.example/.j>",
    "<IMG SRC=\"`<javascript:alert>`('XSS')\"",
    '</TITLE><SCRIPT>alert("XSS");</SCRIPT>',
    '<INPUT TYPE="IMAGE" SRC="javascript:alert(1);">',
    '<BODY BACKGROUND="javascript:alert(1)">',
    '<IMG DYNSRC="javascript:alert(1)">',
    '<STYLE>li {list-style-image: url("javascript:alert(1)");}</STYLE><UL><LI>XSS</br>',
    "<svg/onload=alert('XSS')>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">',
    '<LINK REL="stylesheet" HREF="https://xss.example/xss.css">',
    "<STYLE>@import'https://xss.example/xss.css';</STYLE>",
    '<META HTTP-EQUIV="refresh" CONTENT="0;url=javascript:alert(1);">',
    '<IFRAME SRC="javascript:alert(1);"></IFRAME>',
    '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
    '<TABLE><TD BACKGROUND="javascript:alert(1)">',
    '<DIV STYLE="background-image: url(javascript:alert(1))">',
    '<DIV STYLE="width: expression(alert(1));">',
    '<td style="position:fixed;top:0;width:100%">x</td>',
    '<BASE HREF="javascript:alert(1);//">',
    '<OBJECT TYPE="text/x-scriptlet" DATA="https://xss.example/scriptlet.html"></OBJECT>',
    '<EMBED SRC="data:image/svg+xml;base64,PHN2Zz4=" type="image/svg+xml" AllowScriptAccess="always"></EMBED>',
    '<form action="https://phish.example"><input name="password"><button formaction="javascript:alert(1)">x</button></form>',
    '<a href="data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==">x</a>',
    '<a href="vbscript:msgbox(1)">x</a>',
    '<video><source onerror="alert(1)"></video>',
    "<audio src=x onerror=alert(1)>",
    "<details open ontoggle=alert(1)><summary>x</summary></details>",
    '<img src="http://tracker.example/pixel.gif">',
    '<img src="//tracker.example/pixel.gif">',
    '<img src="https://a.example/1.png" srcset="javascript:alert(1) 1x">',
    '<img src="data:image/svg+xml,<svg onload=alert(1)>">',
    '<a id="config" name="attributes" href="https://a.example">clobbers</a>',
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](javascript&colon;alert(1))",
    "[x](<javascript:alert(1)>)",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](//evil.example)",
    "[x](/v1/auth:signOut)",
    "[x]( java\tscript:alert(1))",
    "![x](javascript:alert(1))",
    '![x](https://a.example/1.png"onerror="alert(1))',
    '![" onerror="alert(1)](https://a.example/1.png)',
    "<javascript:alert(1)>",
    "[x]: javascript:alert(1)\n\n[x]",
    '[x](https://a.example "\\" onmouseover=alert(1) \\"")',
    '```html" onload="alert(1)\n<script>alert(1)</script>\n```',
    "`<script>alert(1)</script>`",
    '<!--<img src="--><img src=x onerror=alert(1)//">',
    '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    "<template><script>alert(1)</script></template>",
    "<plaintext><script>alert(1)</script>",
    "\ufeff<script\x0c>alert(1)</script>",
]
FORBIDDEN = {
    "applet", "audio", "base", "body", "button", "embed", "form", "frame", "frameset", "iframe", "input", "link", "math",
    "meta", "noscript", "object", "script", "select", "source", "style", "svg", "template", "textarea", "title", "video",
}  # fmt: skip


class Looked(HTMLParser):
    """What a browser would find."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in FORBIDDEN:
            self.found.append(tag)
        for name, value in attrs:
            value = value or ""
            harmless = {
                "href": re.match(r"https?://|mailto:|#", value), "src": value.startswith("https://"),
                "style": re.fullmatch(r"text-align:(left|right|center);?", value.replace(" ", "")),
            }.get(name, True)  # fmt: skip
            known = {"align", "alt", "class", "colspan", "height", "href", "loading", "referrerpolicy", "rel", "rowspan",
                     "src", "start", "style", "title", "width"}  # fmt: skip
            if name not in known or not harmless:
                self.found.append(f"{tag} {name}={value}")


def dangers(html: str) -> list[str]:
    looked = Looked()
    looked.feed(html)
    looked.close()
    return looked.found


@pytest.mark.parametrize("card", HOSTILE)
@pytest.mark.parametrize("around", ["{}", "# A\n\n{}\n\ntext", "- {}", "|a|b|\n|-|-|\n|{}|x|", "> {}", "text {} text"])
def test_hostile_cards_are_harmless(card: str, around: str) -> None:
    assert dangers(rendered(around.replace("{}", card))) == []


def test_the_test_sees_what_is_hostile() -> None:
    assert sum(bool(dangers(card)) for card in HOSTILE if card.startswith("<")) > 40


@given(st.text("<>=\"'/&;: !-`[]()\n#|imgscrpthreflonad", max_size=120))
def test_so_is_noise(card: str) -> None:
    assert dangers(rendered(card)) == []


def test_what_cards_are_written_with_is_shown() -> None:
    html = rendered(
        "# Title\n\n**bold** ~~not~~ [a](https://a.example/b?c=1#d) [here](#there) <kbd>x</kbd>\n\n"
        "| a | b |\n|:-:|--:|\n| 1 | 2 |\n\n```python\nprint('<b>')\n```\n\n![plot](https://a.example/plot.png)\n\n"
        "1. one\n2. two\n\n<details><summary>more</summary>text</details>\n\n<img src=\"https://a.example/1.png\" width=40>"
    )  # fmt: skip
    for part in (
        "<h1>Title</h1>", "<strong>bold</strong>", "<s>not</s>", 'href="https://a.example/b?c=1#d"', 'href="#there"',
        "<kbd>x</kbd>", "text-align:center", '<code class="language-python">print(\'&lt;b&gt;\')', "<li>one</li>",
        "<summary>more</summary>", 'width="40"', 'loading="lazy"', 'referrerpolicy="no-referrer"',
        'rel="nofollow ugc noopener noreferrer"',
    ):  # fmt: skip
        assert part in html, part


def test_what_would_grow_is_shown_as_it_is() -> None:
    bomb = f"[a]: https://a.example/{'x' * 20_000}\n\n" + "[a] " * 8_000
    assert rendered(bomb).startswith("<pre>[a]: https://a.example/xxx")
    rows = "|".join("a" * 1000) + "\n" + "|".join("-" * 1000) + "\n" + "a\n" * 5_000
    assert len(rendered(rows)) < 5_000_000
    assert dangers(rendered("<script>x</script>" * 10_000)) == []


def test_of_a_long_card_the_beginning_is_shown() -> None:
    html = rendered("a line\n" * MOST)
    assert len(html) < MOST + 100
    assert html.endswith("<p>…</p>\n")
