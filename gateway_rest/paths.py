"""Path templates of `google.api.http` and the router over them.

The grammar and the precedence (literal before `*` before `**`, custom verbs only where a template has them) are
those of google/api/http.proto as Envoy's transcoder reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import unquote

ANY = "*"
REST = "**"

_TOKEN = re.compile(r"\{(?P<field>[A-Za-z_][\w.]*)(?:=(?P<inner>[^{}]+))?\}|(?P<plain>[^/{}:]+)")
_SLASHES = re.compile("/{2,}")
_ESCAPED_SLASH = re.compile("%2f|%5c", re.IGNORECASE)

T = TypeVar("T")


@dataclass(frozen=True)
class Variable:
    """A field of the request bound to `segments[start:end]` of the path; `end` None: to the path's end."""

    field: str
    start: int
    end: int | None

    @property
    def multiple(self) -> bool:
        return self.end is None or self.end - self.start > 1


@dataclass(frozen=True)
class Template:
    """`/v1/models/{model=*/*}:predict` → segments, variables and the verb ("" when there is none)."""

    text: str
    segments: tuple[str, ...]
    variables: tuple[Variable, ...]
    verb: str


def parse(text: str) -> Template:
    """Raises ValueError for a template that http.proto does not allow."""
    segments: list[str] = []
    variables: list[Variable] = []
    if not text.startswith("/"):
        raise ValueError(f"{text!r}: a template starts with /")
    position = 0
    while position < len(text) and text[position] == "/":
        token = _TOKEN.match(text, position + 1)
        if token is None:
            raise ValueError(f"{text!r}: no segment at {position + 1}")
        start = len(segments)
        if token["field"]:
            segments.extend((token["inner"] or ANY).split("/"))
            end = None if REST in segments[start:] else len(segments)
            variables.append(Variable(token["field"], start, end))
        else:
            segments.append(token["plain"])
        position = token.end()
    verb = ""
    if position < len(text):
        if text[position] != ":" or "/" in text[position:] or position + 1 == len(text):
            raise ValueError(f"{text!r}: unexpected {text[position:]!r}")
        verb = text[position + 1 :]
    if REST in segments[:-1]:
        raise ValueError(f"{text!r}: ** may only come last")
    return Template(text, tuple(segments), tuple(variables), verb)


def normal(path: str) -> str:
    """A path with its slashes merged, the escaped ones too, and without a last one: clients that put a name such as
    `publisher/name` into a path escape its slash. Raises ValueError for one that climbs: what it means would depend on
    who reads it."""
    path = _ESCAPED_SLASH.sub("/", path)
    if any(unquote(segment) in (".", "..") for segment in path.split("/")):
        raise ValueError("a relative path is refused")
    return _SLASHES.sub("/", path).rstrip("/") or "/"


@dataclass
class _Node(Generic[T]):
    children: dict[str, _Node[T]] = field(default_factory=dict)
    leaves: dict[tuple[str, str], tuple[Template, T]] = field(default_factory=dict)


class Router(Generic[T]):
    """Finds the target of a method and a raw (still escaped) path."""

    def __init__(self, routes: Iterable[tuple[str, Template, T]]) -> None:
        """`routes`: HTTP method, template, target. Raises ValueError when two routes are the same."""
        self._root: _Node[T] = _Node()
        self._verbs: set[str] = set()
        for method, template, target in routes:
            node = self._root
            for segment in template.segments:
                node = node.children.setdefault(segment, _Node())
            if (method, template.verb) in node.leaves:
                raise ValueError(f"{method} {template.text} is bound twice")
            node.leaves[(method, template.verb)] = (template, target)
            if template.verb:
                self._verbs.add(template.verb)

    def _split(self, path: str) -> tuple[list[str], str]:
        head, colon, verb = path.rpartition(":")
        if not colon or "/" in verb or verb not in self._verbs:
            head, verb = path, ""
        return head.removeprefix("/").split("/"), verb

    def _walk(self, node: _Node[T], segments: list[str], position: int) -> Iterator[_Node[T]]:
        if position == len(segments):
            yield node
            return
        for name in (segments[position], ANY):
            child = node.children.get(name)
            if child is not None and segments[position]:
                yield from self._walk(child, segments, position + 1)
        if REST in node.children:
            yield node.children[REST]

    def match(self, method: str, path: str) -> tuple[T, dict[str, str]] | None:
        """The target and its variables, of a normal path; None when no template fits. Raises ValueError for bytes that
        are not UTF-8."""
        segments, verb = self._split(path)
        for node in self._walk(self._root, segments, 0):
            leaf = node.leaves.get((method, verb))
            if leaf is None:
                continue
            template, target = leaf
            values = {
                variable.field: "/".join(
                    unquote(segment, errors="strict") for segment in segments[variable.start : variable.end]
                )
                for variable in template.variables
            }
            return target, values
        return None
