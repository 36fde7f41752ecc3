"""Model references: `publisher/name`, `publisher/name@1.4.2`, `publisher/name:alias`; and the order of versions."""

import re
from dataclasses import dataclass

from services.common.errors import InvalidFields, Violation

_REFERENCE = re.compile(
    r"(?P<publisher>[a-z0-9-]{1,39})/(?P<name>[a-z0-9._-]{1,64})(?:@(?P<version>[0-9A-Za-z.-]{1,64})|:(?P<alias>[a-z][a-z0-9-]{0,39}))?"
)


@dataclass(frozen=True)
class Reference:
    """A model, and perhaps which version of it; `version` and `alias` are empty where not given."""

    publisher: str
    name: str
    version: str = ""
    alias: str = ""

    @property
    def model(self) -> str:
        return f"{self.publisher}/{self.name}"


def parse(text: str, field: str = "model") -> Reference:
    """Raises InvalidFields naming `field` for what is no reference."""
    match = _REFERENCE.fullmatch(text)
    if match is None:
        problem = "must be publisher/name, publisher/name@1.4.2 or publisher/name:alias"
        raise InvalidFields(violations=[Violation(field, problem)])
    return Reference(**{k: v or "" for k, v in match.groupdict().items()})


def parse_model(text: str, field: str = "model") -> Reference:
    """A model without any version. Raises InvalidFields naming `field`."""
    match = _REFERENCE.fullmatch(text)
    if match is None or match["version"] or match["alias"]:
        raise InvalidFields(violations=[Violation(field, "must be publisher/name")])
    return Reference(match["publisher"], match["name"])


def precedence(version: str) -> tuple[object, ...]:
    """Sort key of a semantic version (semver.org, 11): a pre-release comes before its release, numbers before words."""
    release, _, pre = version.partition("-")
    numbers = tuple(int(n) for n in release.split("."))
    if not pre:
        return (numbers, 1, ())
    return (numbers, 0, tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in pre.split(".")))


def newest(versions: list[str]) -> str:
    """The highest release, or the highest pre-release where there is no release; empty for none."""
    releases = [v for v in versions if "-" not in v]
    return max(releases or versions, key=precedence, default="")
