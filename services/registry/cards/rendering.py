"""The Markdown of a card as HTML that is safe to show among a page's own: no scripts, styles, forms, frames or ids;
links to the web and to mail alone, images over https alone.

What is allowed is listed, whatever HTML the Markdown holds (https://owasp.org/www-community/xss-filter-evasion-cheatsheet
has what others try)."""

import html
import re
from functools import lru_cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

MOST = 60_000  # characters that are rendered; the worst take a few seconds of processor time
_MOST_MADE = 2_000_000  # characters of HTML: links by reference can stand for more than the card has
_MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
_TAGS = {
    "a", "abbr", "b", "blockquote", "br", "caption", "code", "dd", "del", "details", "div", "dl", "dt", "em",
    "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "ins", "kbd", "li", "mark", "ol", "p",
    "pre", "q", "s", "samp", "small", "span", "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th",
    "thead", "tr", "u", "ul", "var",
}  # fmt: skip
_SIZES = {"width", "height", "colspan", "rowspan", "start"}
_ATTRIBUTES = {
    "a": {"href", "title"}, "abbr": {"title"}, "code": {"class"}, "img": {"alt", "height", "src", "title", "width"},
    "ol": {"start"}, "td": {"align", "colspan", "rowspan", "style"}, "th": {"align", "colspan", "rowspan", "style"},
}  # fmt: skip
_LINK = re.compile(r"(?:https?://|mailto:|#)\S*", re.IGNORECASE)
_IMAGE = re.compile(r"https://\S+", re.IGNORECASE)
_LANGUAGE = re.compile(r"language-[\w+#.-]{1,40}")
_ALIGNED = re.compile(r"\s*text-align\s*:\s*(?:left|right|center)\s*;?\s*")


@lru_cache(maxsize=32)
def rendered(markdown: str) -> str:
    """Of a longer card its beginning. What would become far more than it is, is shown as it was written."""
    if len(markdown) > MOST:
        markdown = markdown[:MOST].rpartition("\n")[0] + "\n\n…"
    tokens = _MARKDOWN.parse(markdown)
    if _weight(tokens) > _MOST_MADE:
        return f"<pre>{html.escape(markdown)}</pre>"
    made = _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})
    return nh3.clean(
        made, tags=_TAGS, attributes=_ATTRIBUTES, attribute_filter=_kept, url_schemes={"http", "https", "mailto"},
        link_rel="nofollow ugc noopener noreferrer", strip_comments=True,
        set_tag_attribute_values={"img": {"loading": "lazy", "referrerpolicy": "no-referrer"}},
    )  # fmt: skip


def _weight(tokens: list[Token]) -> int:
    """About how many characters tokens become."""
    return sum(
        16 + len(t.content) + sum(len(str(v)) for v in t.attrs.values()) + _weight(t.children or []) for t in tokens
    )


def _kept(tag: str, name: str, value: str) -> Any:
    """A value, or None to leave the attribute out."""
    if name in _SIZES:
        return value if value.isascii() and value.isdigit() and len(value) <= 4 else None
    rule = {"href": _LINK, "src": _IMAGE, "class": _LANGUAGE, "style": _ALIGNED}.get(name)
    return value if rule is None or rule.fullmatch(value) else None
