"""The YAML at the top of a card, as fields. Keys and forms are those of the Hugging Face Hub
(https://huggingface.co/docs/hub/model-cards#model-card-metadata), so that cards from there are taken as they are; keys
that are not known here are left alone."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import langcodes
from langcodes.tag_parser import LanguageTagError
from mercat.registry.v1 import card_pb2
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from services.common.errors import InvalidFields, Violation
from services.common.plain_yaml import BadYaml, load

_FRONT = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_LONGEST_NAME, _LONGEST_LICENSE, _LONGEST_USE = 200, 100, 5000  # characters
_LANGUAGES, _DATASETS, _BASE_MODELS, _METRICS = 200, 100, 20, 100  # at most


class CardInvalid(InvalidFields, reason="CARD_INVALID"):
    """The front matter of a card breaks its rules; `violations` names the keys."""


def split(text: str) -> tuple[str, str]:
    """The front matter of a card, empty where it has none, and the Markdown behind it."""
    found = _FRONT.match(text)
    return (found[1], text[found.end() :]) if found else ("", text)


def read(text: str, field: str) -> card_pb2.CardMetadata | None:
    """What the front matter says; None where there is none. Raises CardInvalid, which names keys behind `field`."""
    front, _ = split(text)
    if not front.strip():
        return None
    try:
        said = load(front, first_line=2)
    except BadYaml as e:
        raise CardInvalid(violations=[Violation(field, f"front matter: {e}")]) from None
    reader = _Reader(said, field)
    found = card_pb2.CardMetadata(
        license=reader.one("license", _LONGEST_LICENSE, license_of),
        languages=reader.several(("language", "languages"), _LANGUAGES, _language),
        datasets=reader.several(("datasets",), _DATASETS),
        base_models=reader.several(("base_model", "base_models"), _BASE_MODELS),
        intended_use=reader.one("intended_use", _LONGEST_USE),
        metrics=reader.metrics(),
    )
    if reader.problems:
        raise CardInvalid(violations=reader.problems)
    return found


def license_of(text: str) -> str:
    """An SPDX expression as SPDX writes it. Raises ValueError."""
    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression:
        problem = "is no SPDX expression, such as Apache-2.0; a licence of its own is LicenseRef-NAME"
        raise ValueError(problem) from None


def _language(text: str) -> str:
    problem = "is no BCP 47 tag, such as en, pt-BR or zh-Hant; several languages are a list, any number of them is mul"
    try:
        if langcodes.tag_is_valid(text):
            return langcodes.standardize_tag(text)
    except LanguageTagError:
        pass
    raise ValueError(problem)


def _as_it_is(text: str) -> str:
    return text


class _Reader:
    """Takes values out of a mapping and gathers what is wrong with them."""

    def __init__(self, said: dict[str, Any], field: str) -> None:
        self._said = said
        self._field = field
        self.problems: list[Violation] = []

    def _bad(self, key: str, problem: str) -> None:
        self.problems.append(Violation(f"{self._field}.{key}", problem))

    def _text(self, key: str, value: Any, most: int, made: Callable[[str], str]) -> str:
        if not isinstance(value, str) or not value.strip():
            self._bad(key, "must be a text")
        elif len(value) > most:
            self._bad(key, f"has {len(value):,} characters; at most {most:,}")
        else:
            try:
                return made(value.strip())
            except ValueError as e:
                self._bad(key, str(e))
        return ""

    def one(self, key: str, most: int, made: Callable[[str], str] = _as_it_is) -> str:
        value = self._said.get(key, "")
        return self._text(key, value, most, made) if value != "" else ""

    def several(self, keys: tuple[str, ...], most: int, made: Callable[[str], str] = _as_it_is) -> list[str]:
        """Under the one or the other key; a text alone is a list of one."""
        found: dict[str, None] = {}
        for key in keys:
            for at, value in self._items(key, most):
                if text := self._text(at, value, _LONGEST_NAME, made):
                    found[text] = None
        return list(found)

    def metrics(self) -> list[card_pb2.CardMetric]:
        found = []
        for at, value in self._items("metrics", _METRICS):
            given = {"name": value} if isinstance(value, str) else value
            if not isinstance(given, dict):
                self._bad(at, "must be a name, or name, value and dataset")
                continue
            metric = card_pb2.CardMetric(
                name=self._text(f"{at}.name", given.get("name", given.get("type")), _LONGEST_NAME, _as_it_is)
            )
            if given.get("dataset", "") != "":
                metric.dataset = self._text(f"{at}.dataset", given["dataset"], _LONGEST_NAME, _as_it_is)
            if given.get("value", "") != "":
                number = _number(given["value"])
                if number is None:
                    self._bad(f"{at}.value", "must be a number")
                else:
                    metric.value = number
            found.append(metric)
        return found

    def _items(self, key: str, most: int) -> Iterator[tuple[str, Any]]:
        value = self._said.get(key, "")
        if isinstance(value, list):
            if len(value) > most:
                self._bad(key, f"has {len(value):,} items; at most {most:,}")
            yield from ((f"{key}[{i}]", item) for i, item in enumerate(value[:most]))
        elif value != "":
            yield key, value


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
